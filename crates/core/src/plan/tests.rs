use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    backoff::IMAGE,
    budget::Admission,
    cooldown::Refused,
    desired::SourcedList,
    disk_guard::{Marks, Usage},
    error_class::{ErrorClass, PullError},
    image_state::Stored,
    list::{ImageList, affinity::NodeFacts},
};

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

fn desired(text: &str) -> Desired {
    let list = Arc::new(ImageList::parse(text).unwrap());
    let list = SourcedList { source: "test".into(), revision: "r".into(), namespace: None, selected: false, list };
    Desired::merge(&[list], &NodeFacts::default())
}

fn queued() -> ImageState {
    ImageState::Pending { why: Wait::Queue, since: at(0), failures: None }
}

/// Nothing holds the node up, and the disk was looked at just now.
fn ready(now: u64) -> Gates {
    Gates { runtime_ready: true, measured: Some(at(now)), ..Gates::default() }
}

fn guarded(
    desired: &Desired,
    states: &[ImageState],
    cooldowns: &Cooldowns,
    guard: &DiskGuard,
    gates: Gates,
    now: u64,
) -> Plan {
    plan(desired, &states.iter().collect::<Vec<_>>(), cooldowns, guard, gates, at(now))
}

fn planned(desired: &Desired, states: &[ImageState], cooldowns: &Cooldowns, now: u64) -> Plan {
    guarded(desired, states, cooldowns, &DiskGuard::default(), ready(now), now)
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
    let (guard, states) = (DiskGuard::default(), [queued()]);
    let planned = |now| {
        let gates = Gates { spread_until: Some(at(20)), ..ready(now) };
        guarded(&wanted, &states, &Cooldowns::default(), &guard, gates, now)
    };
    let early = planned(5);
    assert_eq!((early.actions, early.wake), (vec![Action::Hold(0, Wait::Spread)], Some(at(20))));
    let due = planned(20);
    assert_eq!(due.actions, [Action::Start(0)]);
}

#[test]
fn a_slot_is_wanted_only_for_what_could_begin() {
    let wanted = desired("images: [a.io/x:1, b.io/y:1]");
    let (states, none, guard) = ([queued(), queued()], Cooldowns::default(), DiskGuard::default());
    let planned = |cooldowns: &Cooldowns, slot, spread_until, now| {
        let gates = Gates { spread_until, slot, ..ready(now) };
        guarded(&wanted, &states, cooldowns, &guard, gates, now)
    };
    let waits = planned(&none, Admission::Closed, None, 5);
    assert_eq!(waits.actions, [Action::Hold(0, Wait::Budget), Action::Hold(1, Wait::Budget)]);
    assert!(waits.wants_slot);
    let held = Admission::Until(at(9));
    assert_eq!(planned(&none, held, None, 8).actions, [Action::Start(0), Action::Start(1)]);
    assert_eq!(planned(&none, held, None, 9).actions, waits.actions, "a slot that is not renewed ends");
    assert!(!planned(&none, Admission::Closed, Some(at(20)), 5).wants_slot);
    let mut cooling = Cooldowns::default();
    for target in &wanted.targets {
        let refused = Refused { began: at(0), limited: true, moved: false };
        cooling.failed(target.image.registry(), refused, at(0), 0.0);
    }
    assert!(!planned(&cooling, Admission::Closed, None, 5).wants_slot);
    assert!(planned(&cooling, Admission::Closed, None, 10).wants_slot);
}

#[test]
fn a_cooling_registry_lets_nothing_begin_and_then_one() {
    let wanted = desired("images: [a.io/x:1, a.io/y:1, b.io/z:1]");
    let mut cooldowns = Cooldowns::default();
    let refused = Refused { began: at(0), limited: true, moved: false };
    cooldowns.failed(wanted.targets[0].image.registry(), refused, at(0), 0.0);
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
    assert_eq!(planned(&wanted, &states, &Cooldowns::default(), 1), Plan { wake: Some(at(10)), ..Plan::default() });
    assert_eq!(
        planned(&wanted, &states, &Cooldowns::default(), 12),
        Plan { actions: vec![Action::Start(0)], wake: Some(at(35)), wants_slot: true, ..Plan::default() }
    );
    assert_eq!(planned(&wanted, &states, &Cooldowns::default(), 35).actions, [Action::Start(0), Action::Start(1)]);
}

/// A disk of which so many percent are used.
fn disk(percent: u64) -> DiskGuard {
    let mut guard = DiskGuard::default();
    guard.measured(Some(Usage { capacity: 100, available: 100 - percent, inodes: 0, inodes_free: 0 }), at(0));
    guard
}

#[test]
fn a_full_disk_holds_everything_and_is_looked_at_again() {
    let wanted = desired("images: [a.io/x:1, a.io/y:1]");
    let planned = |measured, now| {
        let gates = Gates { measured: Some(at(measured)), ..ready(now) };
        guarded(&wanted, &[queued(), queued()], &Cooldowns::default(), &disk(81), gates, now)
    };
    let plan = planned(0, 3);
    assert_eq!(plan.actions, [Action::Hold(0, Wait::Disk), Action::Hold(1, Wait::Disk)]);
    assert_eq!((plan.wake, plan.measure), (Some(at(10)), false));
    let plan = planned(0, 10);
    assert_eq!((plan.wake, plan.measure), (None, true));
}

#[test]
fn nothing_begins_by_what_the_disk_was_like_earlier() {
    let wanted = desired("images: [a.io/x:1]");
    for (measured, begins) in [(None, false), (Some(at(4)), false), (Some(at(5)), true)] {
        let gates = Gates { measured, ..ready(5) };
        let plan = guarded(&wanted, &[queued()], &Cooldowns::default(), &disk(10), gates, 5);
        assert_eq!((plan.actions.len(), plan.measure), (usize::from(begins), !begins), "{measured:?}");
    }
    let off = desired("limits: {maxDiskUsage: 100%}\nimages: [a.io/x:1]");
    let mut guard = DiskGuard::default();
    guard.set_marks(Marks::of(&off.limits));
    let gates = Gates { measured: None, ..ready(5) };
    let plan = guarded(&off, &[queued()], &Cooldowns::default(), &guard, gates, 5);
    assert_eq!((plan.actions.len(), plan.measure), (1, false), "without a guard nobody looks");
}

#[test]
fn what_is_required_goes_first_between_the_marks() {
    let wanted =
        desired("images:\n  - {image: 'a.io/optional:1', required: false, priority: 9}\n  - a.io/required:1\n");
    let planned = |percent, required: ImageState| {
        guarded(&wanted, &[queued(), required], &Cooldowns::default(), &disk(percent), ready(0), 0).actions
    };
    assert_eq!(planned(74, queued()), [Action::Start(0), Action::Start(1)]);
    assert_eq!(planned(76, queued()), [Action::Hold(0, Wait::Disk), Action::Start(1)]);
    let stored = Stored { digest: "sha256:1".into(), size: 1, pinned: false };
    let present = ImageState::Present { stored, since: at(0), asked: None, credential: None };
    assert_eq!(planned(76, present), [Action::Start(0)]);
    let error = PullError::own(ErrorClass::NotFound, "no");
    let failed = ImageState::BackOff { failures: IMAGE.failed(None, at(0)), until: at(10), error };
    assert_eq!(planned(76, failed), [Action::Start(0)], "what fails by itself holds nobody up");
}

#[test]
fn what_is_required_and_can_never_fit_holds_nobody_up() {
    let wanted =
        desired("images:\n  - a.io/required:1\n  - {image: 'a.io/optional:1', required: false, priority: -1}\n");
    let begins = |percent, size, since| {
        let mut guard = disk(percent);
        guard.removed(&wanted.targets[0].key, size, at(since));
        guarded(&wanted, &[queued(), queued()], &Cooldowns::default(), &guard, ready(since), since).actions
    };
    let held = [Action::Hold(0, Wait::Disk), Action::Hold(1, Wait::Disk)];
    let goes = [Action::Hold(0, Wait::Disk), Action::Start(1)];
    assert_eq!(begins(60, 25, 0), held, "it waits for room that the other one would take");
    assert_eq!(begins(60, 81, 0), goes, "no room is enough for it");
    assert_eq!(begins(60, 25, 3600), goes, "nor does it keep the other one out for ever");
    let error = PullError::own(ErrorClass::NoSpace, "no");
    let failed = ImageState::BackOff { failures: IMAGE.failed(None, at(0)), until: at(10), error };
    let mut guard = disk(10);
    guard.set_marks(Marks::OFF);
    for (needs, begins) in [(90, 0), (180, 1)] {
        guard.began(&wanted.targets[0].key);
        guard.refused(&wanted.targets[0].key, at(0));
        let states = [failed.clone(), queued()];
        let plan = guarded(&wanted, &states, &Cooldowns::default(), &guard, ready(0), 0);
        let started = plan.actions.iter().filter(|a| matches!(a, Action::Start(_))).count();
        assert_eq!(started, begins, "it needs {needs} of 100");
    }
}

#[test]
fn between_the_marks_one_pull_ends_before_the_next_begins() {
    let wanted = desired("images: [a.io/x:1, a.io/y:1]");
    let planned = |percent, first: ImageState| {
        guarded(&wanted, &[first, queued()], &Cooldowns::default(), &disk(percent), ready(0), 0)
    };
    assert_eq!(planned(74, queued()).actions, [Action::Start(0), Action::Start(1)]);
    assert_eq!(planned(75, queued()).actions, [Action::Start(0), Action::Hold(1, Wait::Disk)]);
    let pulling = ImageState::Pulling { attempt: 1, started: at(0), failures: None, answered: false };
    let plan = planned(75, pulling);
    assert_eq!((plan.actions, plan.room.one_at_a_time), (vec![Action::Hold(1, Wait::Disk)], true));
}

#[test]
fn a_pull_that_was_answered_holds_no_place_but_not_for_ever() {
    let wanted = desired(
        "limits: {parallelPulls: 2, parallelPullsPerRegistry: 1}\nimages: [a.io/x:1, b.io/x:1, b.io/y:1, b.io/z:1, a.io/y:1]",
    );
    let begins = |states: &str| {
        let state = |is: char| match is {
            '-' => queued(),
            is => ImageState::Pulling { attempt: 1, started: at(0), failures: None, answered: is == 'a' },
        };
        let states: Vec<_> = states.chars().map(state).collect();
        planned(&wanted, &states, &Cooldowns::default(), 0).actions.contains(&Action::Start(4))
    };
    assert!(!begins("pp---"), "two are under way");
    assert!(!begins("pa---"), "one is, from its registry");
    assert!(begins("aap--"), "its registry is free, and so is a place");
    assert!(!begins("aaaa-"), "the runtime owes an answer to twice as many as may be pulled at once");
}

#[test]
fn images_that_come_back_share_what_is_left() {
    let wanted = desired("images: [a.io/x:1, a.io/y:1, a.io/z:1]");
    let mut guard = disk(60);
    for target in &wanted.targets[..2] {
        guard.removed(&target.key, 15, at(0));
    }
    let plan = guarded(&wanted, &[queued(), queued(), queued()], &Cooldowns::default(), &guard, ready(0), 0);
    assert_eq!(plan.actions, [Action::Start(0), Action::Hold(1, Wait::Disk), Action::Start(2)]);
    assert_eq!(plan.room.reserved, 15);
}

#[test]
fn images_that_found_no_space_together_are_tried_with_no_more_than_there_is_room_for() {
    let wanted = desired("limits: {maxDiskUsage: 100%}\nimages: [a.io/x:1, a.io/y:1, a.io/z:1]");
    let mut guard = disk(70);
    guard.set_marks(Marks::OFF);
    for target in &wanted.targets {
        guard.began(&target.key);
    }
    for target in &wanted.targets {
        guard.refused(&target.key, at(0));
    }
    let plan = guarded(&wanted, &vec![queued(); 3], &Cooldowns::default(), &guard, ready(0), 0);
    assert_eq!(plan.actions, [Action::Start(0), Action::Start(1), Action::Hold(2, Wait::Disk)]);
}

#[test]
fn busy_disks_hold_what_would_begin_now() {
    let wanted = desired("images: [a.io/x:1]");
    let planned = |io_pressure| {
        let gates = Gates { io_pressure, max_io_pressure: Some(40.0), ..ready(0) };
        guarded(&wanted, &[queued()], &Cooldowns::default(), &DiskGuard::default(), gates, 0).actions
    };
    assert_eq!(planned(Some(40.5)), [Action::Hold(0, Wait::IoPressure)]);
    assert_eq!(planned(Some(40.0)), [Action::Start(0)]);
    assert_eq!(planned(None), [Action::Start(0)], "what cannot be seen holds nothing up");
}
