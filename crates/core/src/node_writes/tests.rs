use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::node_view::TaintView;

const ALL: Parts = Parts { condition: true, label: true, taint: true };
const KEY: &str = "prepull.dev/not-warm";

fn at(milliseconds: u64) -> Moment {
    Moment::after_start(Duration::from_millis(milliseconds))
}

fn writes(parts: Parts) -> NodeWrites {
    up_for(parts, Duration::from_hours(24))
}

/// On a node that had been up for so long when the agent started.
fn up_for(parts: Parts, uptime: Duration) -> NodeWrites {
    NodeWrites::new(parts, KEY.to_owned(), Duration::from_mins(15), at(0), Some(uptime))
}

fn report(readiness: Readiness, message: &str, revision: &str) -> NodeReport {
    let reason = match readiness {
        Readiness::Unknown => "StoreNotLookedAt",
        Readiness::NotWarm => "ImagesMissing",
        Readiness::Warm => "AllImagesPresent",
    };
    NodeReport { readiness, reason, message: message.to_owned(), revision: revision.into() }
}

fn node() -> NodeView {
    NodeView { labels: Some(BTreeMap::new()), ..NodeView::default() }
}

/// What the API server does with a write.
fn apply(node: &mut NodeView, write: &StateWrite) {
    if let Some(condition) = &write.condition {
        node.condition = Some(condition.clone());
    }
    if let (Some(label), Some(labels)) = (write.label, &mut node.labels) {
        labels.insert(LABEL.to_owned(), label.to_owned());
    }
}

/// Plans and carries out.
fn carry_out(writes: &mut NodeWrites, node: &mut NodeView, report: &NodeReport, now: Moment, random: f64) -> Due {
    let due = writes.plan(report, node, now, random);
    if let Some(write) = due.state.clone() {
        apply(node, &write);
        writes.wrote(write, report, now);
    }
    if due.taint {
        node.taints.retain(|t| t.key != KEY);
        writes.removed(now);
    }
    due
}

#[test]
fn nothing_is_written_before_the_node_was_seen() {
    let due = writes(ALL).plan(&report(Readiness::Warm, "", "1"), &NodeView::default(), at(99_999), 0.5);
    assert_eq!(due, Due::default());
}

#[test]
fn a_node_that_is_not_warm_is_told_only_when_the_first_look_took_its_time() {
    let (mut writes, mut node) = (writes(ALL), node());
    let due = carry_out(&mut writes, &mut node, &report(Readiness::Unknown, "", ""), at(100), 0.5);
    assert_eq!((due.state, due.wake), (None, Some(at(2000))));
    let due = carry_out(&mut writes, &mut node, &report(Readiness::Unknown, "", ""), at(2000), 0.5);
    let write = due.state.unwrap();
    assert_eq!(write.condition.unwrap().status, "Unknown");
    assert_eq!((write.transition, write.label), (true, Some("false")));
}

#[test]
fn an_edit_is_jittered_and_becoming_warm_afterwards_is_not() {
    let (mut writes, mut node) = (writes(ALL), node());
    let due = carry_out(&mut writes, &mut node, &report(Readiness::Warm, "", "1"), at(10), 0.5);
    assert_eq!(due.state.unwrap().label, Some("true"), "the first word is at once");
    let cold = report(Readiness::NotWarm, "0 of 1", "2");
    let due = carry_out(&mut writes, &mut node, &cold, at(20_000), 0.5);
    assert_eq!((due.state, due.wake), (None, Some(at(25_000))));
    // the moment is drawn once
    let due = carry_out(&mut writes, &mut node, &cold, at(21_000), 0.9);
    assert_eq!((due.state, due.wake), (None, Some(at(25_000))));
    assert!(carry_out(&mut writes, &mut node, &cold, at(25_000), 0.1).state.is_some());
    let due = carry_out(&mut writes, &mut node, &report(Readiness::Warm, "", "2"), at(25_001), 0.9);
    assert_eq!(due.state.unwrap().label, Some("true"));
}

#[test]
fn an_edit_that_is_done_before_its_moment_writes_nothing() {
    let (mut writes, mut node) = (writes(ALL), node());
    carry_out(&mut writes, &mut node, &report(Readiness::Warm, "all 1", "1"), at(10), 0.5);
    carry_out(&mut writes, &mut node, &report(Readiness::NotWarm, "0 of 1", "2"), at(20_000), 0.9);
    let due = carry_out(&mut writes, &mut node, &report(Readiness::Warm, "all 1", "2"), at(22_000), 0.9);
    assert_eq!(due, Due::default());
}

#[test]
fn the_message_alone_waits_five_minutes() {
    let (mut writes, mut node) = (writes(ALL), node());
    carry_out(&mut writes, &mut node, &report(Readiness::NotWarm, "1 of 9", "1"), at(2000), 0.5);
    let next = report(Readiness::NotWarm, "2 of 9", "1");
    let due = carry_out(&mut writes, &mut node, &next, at(3000), 0.5);
    assert_eq!((due.state, due.wake), (None, Some(at(302_000))));
    let write = carry_out(&mut writes, &mut node, &next, at(302_000), 0.5).state.unwrap();
    assert_eq!((write.transition, write.label, write.condition.unwrap().message.as_str()), (false, None, "2 of 9"));
}

#[test]
fn what_somebody_removes_comes_back_but_not_as_a_fight() {
    let (mut writes, mut node) = (writes(ALL), node());
    let warm = report(Readiness::Warm, "", "1");
    carry_out(&mut writes, &mut node, &warm, at(1000), 0.5);
    node = NodeView { labels: Some(BTreeMap::new()), ..NodeView::default() };
    let due = carry_out(&mut writes, &mut node, &warm, at(2000), 0.5);
    assert_eq!((due.state, due.wake), (None, Some(at(301_000))));
    assert!(carry_out(&mut writes, &mut node, &warm, at(301_000), 0.5).state.is_some());
}

/// When the API server's clock showed this, in seconds, the agent of these tests started.
const STARTED: u64 = 1_800_000_000;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A tainted node that was created so many seconds before the agent started.
fn tainted(age: u64) -> NodeView {
    let taint = TaintView { key: KEY.to_owned(), effect: "NoSchedule".to_owned(), added: None };
    NodeView { taints: vec![taint], created: Some(seconds(STARTED - age)), ..node() }
}

/// An agent that knows the API server's time.
fn removes_taint(uptime: u64) -> NodeWrites {
    let mut writes = up_for(Parts { taint: true, ..Parts::default() }, seconds(uptime));
    writes.server_time(seconds(STARTED), at(0));
    writes
}

#[test]
fn the_taint_goes_when_warm_or_at_the_deadline() {
    let cold = report(Readiness::NotWarm, "", "1");
    let mut first = removes_taint(100_000);
    let due = first.plan(&cold, &tainted(10), at(1000), 0.5);
    assert_eq!(due, Due { wake: Some(at(890_000)), ..Due::default() });
    assert!(first.plan(&report(Readiness::Warm, "", "1"), &tainted(10), at(2000), 0.5).taint);
    assert!(!first.plan(&cold, &tainted(10), at(889_999), 0.5).taint);
    assert!(first.plan(&cold, &tainted(10), at(890_000), 0.5).taint);
    assert!(!writes(Parts { label: true, ..Parts::default() }).plan(&cold, &tainted(10), at(900_000), 0.5).taint);
}

#[test]
fn a_restart_does_not_move_the_deadline_of_the_taint() {
    let cold = report(Readiness::NotWarm, "", "1");
    // each agent lives for 10 s; the node was created 10 s before the first one
    let removed = (0..200).find(|n| removes_taint(100_000).plan(&cold, &tainted(10 + n * 10), at(9_999), 0.5).taint);
    assert_eq!(removed, Some(89), "15 min after the node's creation");
}

#[test]
fn a_reboot_gives_the_node_its_time_again() {
    let cold = report(Readiness::NotWarm, "", "1");
    // a node of a year that booted 30 s ago; what restarts then is the agent only
    let due = removes_taint(30).plan(&cold, &tainted(31_536_000), at(1000), 0.5);
    assert_eq!(due, Due { wake: Some(at(870_000)), ..Due::default() });
    assert!(removes_taint(900).plan(&cold, &tainted(31_536_000), at(0), 0.5).taint);
}

#[test]
fn a_taint_that_comes_back_on_an_old_node_has_a_deadline_of_its_own() {
    let cold = report(Readiness::NotWarm, "", "1");
    let mut writes = removes_taint(100_000);
    let clean = NodeView { taints: Vec::new(), ..tainted(100_000) };
    assert!(!writes.plan(&cold, &clean, at(1000), 0.5).taint);
    for now in [5000, 60_000] {
        let due = writes.plan(&cold, &tainted(100_000), at(now), 0.5);
        assert_eq!(due.wake, Some(at(905_000)), "counts from when it appeared");
    }
    assert!(writes.plan(&cold, &tainted(100_000), at(905_000), 0.5).taint);
    // an agent that did not see it come goes by the taint's own time, if it has one
    let added = |at| {
        let mut node = tainted(100_000);
        node.taints[0].added = Some(seconds(at));
        node
    };
    let due = removes_taint(100_000).plan(&cold, &added(STARTED - 100), at(0), 0.5);
    assert_eq!(due.wake, Some(at(800_000)));
    assert!(removes_taint(100_000).plan(&cold, &tainted(100_000), at(0), 0.5).taint);
    // a time that lies ahead would move the deadline at each restart
    assert!(removes_taint(100_000).plan(&cold, &added(STARTED + 1_000_000), at(0), 0.5).taint);
}

#[test]
fn the_deadline_of_the_taint_needs_the_time_of_the_api_server() {
    let cold = report(Readiness::NotWarm, "", "1");
    let mut writes = up_for(Parts { taint: true, ..Parts::default() }, seconds(100_000));
    let due = writes.plan(&cold, &tainted(10), at(1000), 0.5);
    assert_eq!(due, Due { server_time: true, ..Due::default() });
    writes.failed(at(1000), 1.0);
    let due = writes.plan(&cold, &tainted(10), at(1500), 0.5);
    assert_eq!(due, Due { wake: Some(at(3000)), ..Due::default() }, "not again at once");
    writes.server_time(seconds(STARTED + 3), at(3000));
    assert_eq!(writes.plan(&cold, &tainted(10), at(3000), 0.5).wake, Some(at(890_000)));
    // a warm node needs no time, and a node without the taint neither
    let mut writes = up_for(Parts { taint: true, ..Parts::default() }, seconds(100_000));
    assert_eq!(writes.plan(&cold, &node(), at(0), 0.5), Due::default());
    let due = writes.plan(&report(Readiness::Warm, "", "1"), &tainted(10), at(0), 0.5);
    assert_eq!(due, Due { taint: true, ..Due::default() });
}

#[test]
fn a_refused_write_is_tried_again_ever_more_rarely() {
    let (mut writes, node) = (writes(ALL), node());
    let warm = report(Readiness::Warm, "", "1");
    let mut now = at(1000);
    let mut delays = Vec::new();
    for _ in 0..12 {
        assert!(writes.plan(&warm, &node, now, 0.5).state.is_some());
        writes.failed(now, 1.0);
        let wake = writes.plan(&warm, &node, now, 0.5).wake.unwrap();
        delays.push(wake.since(now).as_secs());
        now = wake;
    }
    assert_eq!(delays, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
}

#[test]
fn nodes_that_failed_together_do_not_try_together() {
    let warm = report(Readiness::Warm, "", "1");
    let wake = |random: f64| {
        let mut writes = writes(ALL);
        writes.failed(at(1000), random);
        writes.plan(&warm, &node(), at(1000), 0.5).wake.unwrap()
    };
    assert_eq!((wake(0.0), wake(0.5), wake(1.0)), (at(2000), at(2500), at(3000)));
}

#[test]
fn messages_are_not_written_one_by_one_while_the_watch_is_deaf() {
    let (mut writes, node) = (writes(ALL), node());
    for (step, wanted) in [(2000, true), (3000, false), (200_000, false), (302_000, true)] {
        let report = report(Readiness::NotWarm, &format!("at {step}"), "1");
        let due = writes.plan(&report, &node, at(step), 0.5);
        assert_eq!(due.state.is_some(), wanted, "at {step}");
        if let Some(write) = due.state {
            writes.wrote(write, &report, at(step));
        }
    }
}

#[test]
fn a_node_that_is_made_again_is_told_at_once() {
    let (mut writes, mut first) = (writes(ALL), NodeView { uid: "1".to_owned(), ..node() });
    let warm = report(Readiness::Warm, "", "1");
    assert!(carry_out(&mut writes, &mut first, &warm, at(10), 0.5).state.is_some());
    writes.failed(at(1000), 1.0);
    let mut second = NodeView { uid: "2".to_owned(), ..node() };
    assert!(carry_out(&mut writes, &mut second, &warm, at(1500), 0.5).state.is_some());
}

fn any_report() -> impl Strategy<Value = NodeReport> {
    let readiness = prop_oneof![Just(Readiness::Unknown), Just(Readiness::NotWarm), Just(Readiness::Warm)];
    (readiness, 0..3u8, 0..3u8)
        .prop_map(|(readiness, message, revision)| report(readiness, &message.to_string(), &revision.to_string()))
}

proptest! {
    #[test]
    fn writes_are_never_idle_and_always_arrive(
        steps in prop::collection::vec((any_report(), 0..400_000u64, 0.0..1.0f64), 1..40)
    ) {
        let (mut writes, mut node) = (writes(ALL), node());
        let mut now = 2000;
        let mut last_write: Option<u64> = None;
        for (report, later, random) in steps {
            now += later;
            let before = node.clone();
            let due = carry_out(&mut writes, &mut node, &report, at(now), random);
            if let Some(write) = &due.state {
                prop_assert_ne!(&before, &node, "a write changes something");
                let same_kind = before.condition.as_ref().zip(node.condition.as_ref())
                    .is_some_and(|(a, b)| a.status == b.status && a.reason == b.reason);
                if same_kind && write.label.is_none() {
                    let gap = now - last_write.unwrap_or(0);
                    prop_assert!(gap >= 300_000, "a message alone after {gap} ms");
                }
                last_write = Some(now);
            }
            if let Some(wake) = due.wake {
                prop_assert!(wake > at(now), "a wake-up lies ahead");
            }
            // where nothing more happens, status and reason stand within the jitter
            let mut quiet = (at(now), due.wake);
            while let Some(wake) = quiet.1.filter(|wake| wake.since(at(now)) <= JITTER) {
                quiet = (wake, carry_out(&mut writes, &mut node, &report, wake, random).wake);
                last_write = Some(now + u64::try_from(wake.since(at(now)).as_millis()).unwrap());
            }
            let said = node.condition.clone().unwrap();
            prop_assert_eq!((said.status.as_str(), said.reason.as_str()), (report.readiness.status(), report.reason));
            now += u64::try_from(quiet.0.since(at(now)).as_millis()).unwrap();
        }
    }
}
