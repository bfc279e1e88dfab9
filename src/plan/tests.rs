use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    backoff::IMAGE,
    budget::Admission,
    desired::SourcedList,
    error_class::{ErrorClass, PullError},
    image_state::Stored,
    list::{ImageList, affinity::NodeFacts},
};

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

fn desired(text: &str) -> Desired {
    let list = Arc::new(ImageList::parse(text).unwrap());
    let list = SourcedList { source: "test".into(), revision: "r".into(), namespace: None, list };
    Desired::merge(&[list], &NodeFacts::default())
}

fn queued() -> ImageState {
    ImageState::Pending { why: Wait::Queue, since: at(0), failures: None }
}

fn planned(desired: &Desired, states: &[ImageState], cooldowns: &Cooldowns, now: u64) -> Plan {
    let gates = Gates { runtime_ready: true, ..Gates::default() };
    plan(desired, &states.iter().collect::<Vec<_>>(), cooldowns, gates, at(now))
}

#[test]
fn priority_then_list_order_within_the_limits() {
    let wanted = desired(
        "limits: {parallelPulls: 2, parallelPullsPerRegistry: 1}\nimages:\n  - a.io/x:1\n  - a.io/y:1\n  - {image: 'b.io/x:1', priority: 1}\n  - {image: 'b.io/y:1', priority: 1}\n  - c.io/x:1\n",
    );
    let plan = planned(&wanted, &vec![queued(); 5], &Cooldowns::default(), 0);
    // targets stand in the order of pulling: b/x, b/y, a/x, a/y, c/x; one of each registry, two in all
    assert_eq!(plan.actions, [Action::Start(0), Action::Start(2)]);
    assert_eq!(plan.wake, None);
}

#[test]
fn nothing_begins_before_the_store_was_looked_at() {
    let wanted = desired("images: [a.io/x:1]");
    let plan = planned(&wanted, &[ImageState::new(at(0))], &Cooldowns::default(), 0);
    assert_eq!(plan, Plan::default());
}

#[test]
fn spread_holds_everything_until_its_moment() {
    let wanted = desired("images: [a.io/x:1]");
    let gates = Gates { runtime_ready: true, spread_until: Some(at(20)), ..Gates::default() };
    let early = plan(&wanted, &[&queued()], &Cooldowns::default(), gates, at(5));
    assert_eq!(early, Plan { actions: vec![Action::Hold(0, Wait::Spread)], wake: Some(at(20)), ..Plan::default() });
    let due = plan(&wanted, &[&queued()], &Cooldowns::default(), gates, at(20));
    assert_eq!(due.actions, [Action::Start(0)]);
}

#[test]
fn a_slot_is_wanted_only_for_what_could_begin() {
    let wanted = desired("images: [a.io/x:1, b.io/y:1]");
    let closed = Gates { runtime_ready: true, slot: Admission::Closed, ..Gates::default() };
    let (states, none) = ([&queued(), &queued()], Cooldowns::default());
    let waits = plan(&wanted, &states, &none, closed, at(5));
    assert_eq!(waits.actions, [Action::Hold(0, Wait::Budget), Action::Hold(1, Wait::Budget)]);
    assert!(waits.wants_slot);
    let held = Gates { slot: Admission::Until(at(9)), ..closed };
    assert_eq!(plan(&wanted, &states, &none, held, at(8)).actions, [Action::Start(0), Action::Start(1)]);
    assert_eq!(plan(&wanted, &states, &none, held, at(9)).actions, waits.actions, "a slot that is not renewed ends");
    let early = Gates { spread_until: Some(at(20)), ..closed };
    assert!(!plan(&wanted, &states, &none, early, at(5)).wants_slot);
    let mut cooling = Cooldowns::default();
    for target in &wanted.targets {
        cooling.failed(target.image.registry(), at(0), at(0), 0.0);
    }
    assert!(!plan(&wanted, &states, &cooling, closed, at(5)).wants_slot);
    assert!(plan(&wanted, &states, &cooling, closed, at(10)).wants_slot);
}

#[test]
fn a_cooling_registry_lets_nothing_begin_and_then_one() {
    let wanted = desired("images: [a.io/x:1, a.io/y:1, b.io/z:1]");
    let mut cooldowns = Cooldowns::default();
    cooldowns.failed(wanted.targets[0].image.registry(), at(0), at(0), 0.0);
    let states = vec![queued(); 3];
    let closed = planned(&wanted, &states, &cooldowns, 1);
    assert_eq!(closed.actions, [Action::Hold(0, Wait::Cooldown), Action::Hold(1, Wait::Cooldown), Action::Start(2)]);
    assert_eq!(closed.wake, Some(at(10)));
    let probe = planned(&wanted, &states, &cooldowns, 10);
    assert_eq!(probe.actions, [Action::Start(0), Action::Hold(1, Wait::Cooldown), Action::Start(2)]);
}

#[test]
fn backoff_and_refresh_wake_the_plan() {
    let wanted = desired(
        "images: [a.io/x:1, {image: 'a.io/y:latest', refreshInterval: 30s}, {image: 'a.io/z:1', imagePullPolicy: Never}]",
    );
    let failures = IMAGE.failed(None, at(0));
    let backoff = ImageState::BackOff { failures, until: at(10), error: PullError::own(ErrorClass::NotFound, "no") };
    let stored = Stored { digest: "sha256:1".into(), size: 1, pinned: false };
    let present = ImageState::Present { stored, since: at(0), asked: Some(at(5)), credential: None };
    let states = [backoff, present, queued()];
    assert_eq!(
        planned(&wanted, &states, &Cooldowns::default(), 1),
        Plan { actions: vec![], wake: Some(at(10)), ..Plan::default() }
    );
    assert_eq!(
        planned(&wanted, &states, &Cooldowns::default(), 12),
        Plan { actions: vec![Action::Start(0)], wake: Some(at(35)), wants_slot: true }
    );
    assert_eq!(planned(&wanted, &states, &Cooldowns::default(), 35).actions, [Action::Start(0), Action::Start(1)]);
}
