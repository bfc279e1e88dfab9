use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

fn wants(cap: u32) -> Event {
    Event::Need(Need { cap: Some(cap), wants: true, pulling: false })
}

fn slot(version: u64, holder: Option<&str>) -> Event {
    Event::Answer(Answer::Slot { version: version.to_string(), holder: holder.map(str::to_owned) })
}

/// Slots of a node that renews.
fn renewals() -> impl FnMut() -> Event {
    let mut version = 1;
    move || {
        version += 1;
        slot(version, Some("b"))
    }
}

fn node(name: &str) -> Budget {
    Budget::new(name.into())
}

/// A node that looks at one of two slots, which is returned.
fn looking(budget: &mut Budget, now: Moment) -> u32 {
    assert_eq!(budget.step(wants(2), now, 0.0), None, "the first look has its moment");
    assert_eq!(budget.wake(), Some(now));
    match budget.step(wants(2), now, 0.0) {
        Some(Ask::Look(slot)) => slot,
        other => panic!("{other:?}"),
    }
}

/// A node that holds one of two slots in version 2, which is returned.
fn holding(budget: &mut Budget, now: Moment) -> u32 {
    let first = looking(budget, now);
    assert_eq!(budget.step(slot(1, None), now, 0.0), Some(Ask::Hold(first, "1".into())));
    assert_eq!(budget.step(slot(2, Some("a")), now, 0.0), None);
    first
}

#[test]
fn without_a_cap_or_anything_to_pull_nothing_is_asked() {
    let mut budget = node("a");
    assert_eq!(budget.admission(None), Admission::Open);
    for need in [Need::default(), Need { cap: Some(5), ..Need::default() }, Need { wants: true, ..Need::default() }] {
        assert_eq!(budget.step(Event::Need(need), at(9), 0.5), None);
        assert_eq!(budget.wake(), None);
    }
}

#[test]
fn a_free_slot_is_taken_renewed_and_given_back() {
    let mut budget = node("a");
    let first = looking(&mut budget, at(100));
    assert_eq!(budget.step(slot(1, None), at(100), 0.0), Some(Ask::Hold(first, "1".into())));
    assert_eq!(budget.admission(Some(2)), Admission::Closed);
    assert_eq!(budget.step(slot(2, Some("a")), at(103), 0.0), None);
    assert_eq!(budget.admission(Some(2)), Admission::Until(at(140)), "good from when it was asked for");
    assert_eq!(budget.admission(Some(first)), Admission::Closed, "a lower cap has no such slot");
    let pulling = Need { cap: Some(2), wants: false, pulling: true };
    assert_eq!(budget.step(Event::Need(pulling), at(110), 0.0), None);
    assert_eq!(budget.wake(), Some(at(115)));
    assert_eq!(budget.step(Event::Need(pulling), at(115), 0.0), Some(Ask::Hold(first, "2".into())));
    assert_eq!(budget.step(slot(3, Some("a")), at(116), 0.0), None);
    let idle = Need { cap: Some(2), ..Need::default() };
    assert_eq!(budget.step(Event::Need(idle), at(120), 0.0), Some(Ask::Free(first, "3".into())));
    assert_eq!(budget.admission(Some(2)), Admission::Closed, "nothing begins from then on");
    let ask = budget.step(slot(4, None), at(121), 0.0);
    // one that met the last slot knows that all are there
    assert_eq!(ask, (first == 0).then_some(Ask::Look(1)), "it is counted once whether all are there");
    if ask.is_some() {
        assert_eq!(budget.step(slot(1, None), at(121), 0.0), None);
    }
    assert_eq!(budget.wake(), None);
    assert_eq!(budget.step(wants(2), at(130), 0.0), None);
    assert!(matches!(budget.step(wants(2), at(130), 0.0), Some(Ask::Look(_))));
    assert!(matches!(budget.step(slot(1, None), at(130), 0.0), Some(Ask::Hold(..))));
    assert_eq!(budget.step(slot(5, Some("a")), at(130), 0.0), None);
    assert!(matches!(budget.step(Event::Need(idle), at(131), 0.0), Some(Ask::Free(..))));
    assert_eq!(budget.step(slot(6, None), at(131), 0.0), None, "and not again");
}

#[test]
fn a_slot_is_taken_over_only_after_it_was_seen_unchanged_for_long_enough() {
    let mut budget = node("a");
    assert_eq!(budget.step(wants(1), at(0), 0.0), None);
    assert_eq!(budget.step(wants(1), at(0), 0.0), Some(Ask::Look(0)));
    let mut version = 7;
    let mut now = 0;
    for _ in 0..20 {
        // a holder that is there renews between two looks
        version += 1;
        assert_eq!(budget.step(slot(version, Some("b")), at(now), 0.0), None, "at {now}");
        now += 10;
        assert_eq!(budget.step(wants(1), at(now), 0.0), Some(Ask::Look(0)));
    }
    assert_eq!(budget.step(slot(50, Some("b")), at(now), 0.0), None);
    for _ in 0..5 {
        now += 10;
        assert_eq!(budget.step(wants(1), at(now), 0.0), Some(Ask::Look(0)));
        assert_eq!(budget.step(slot(50, Some("b")), at(now), 0.0), None, "too early at {now}");
    }
    now += 10;
    assert_eq!(budget.step(wants(1), at(now), 0.0), Some(Ask::Look(0)));
    assert_eq!(budget.step(slot(50, Some("b")), at(now), 0.0), Some(Ask::Hold(0, "50".into())));
    assert!(budget.sentence().contains("slot 0, looked at last, is held by b"), "{}", budget.sentence());
}

#[test]
fn a_conflict_leaves_the_slot_to_the_other_one_and_an_own_slot_is_found_again() {
    let mut budget = node("a");
    let first = looking(&mut budget, at(0));
    assert!(matches!(budget.step(slot(1, None), at(0), 0.0), Some(Ask::Hold(..))));
    assert_eq!(budget.step(Event::Answer(Answer::Conflict), at(1), 0.5), None);
    assert_eq!(budget.admission(Some(2)), Admission::Closed);
    assert_eq!(budget.wake(), Some(at(21)), "between 10 and 30 seconds");
    let mut other = budget.step(wants(2), at(21), 0.0);
    if first == 0 {
        assert_eq!(other, Some(Ask::Look(1)), "the last slot tells whether all exist");
        other = budget.step(slot(1, None), at(21), 0.0);
    }
    assert_eq!(other, Some(Ask::Look(1 - first)), "the next slot");
    // a write of this node whose answer was lost
    assert!(matches!(budget.step(slot(5, Some("a")), at(22), 0.0), Some(Ask::Hold(_, version)) if version == "5"));
    assert_eq!(budget.step(slot(6, Some("a")), at(22), 0.0), None);
    assert_eq!(budget.admission(Some(2)), Admission::Until(at(62)));
    // a renewal that came through unheard
    assert!(matches!(budget.step(wants(2), at(37), 0.0), Some(Ask::Hold(..))));
    assert_eq!(budget.step(Event::Answer(Answer::NoAnswer("cut".into())), at(47), 0.0), None);
    assert_eq!(budget.problem(), None, "that nobody answers is no mistake in a list");
    assert_eq!(budget.sentence(), "no slot can be asked for (pullingNodes): cut");
    assert_eq!((budget.silence(at(106)), budget.silence(at(107))), (None, Some("cut")));
    assert!(matches!(budget.step(wants(2), at(52), 0.0), Some(Ask::Hold(_, version)) if version == "6"));
    assert!(matches!(budget.step(Event::Answer(Answer::Conflict), at(52), 0.0), Some(Ask::Look(_))));
    assert!(matches!(budget.step(slot(7, Some("a")), at(52), 0.0), Some(Ask::Hold(..))));
    assert_eq!(budget.step(slot(8, Some("a")), at(52), 0.0), None);
    assert_eq!((budget.admission(Some(2)), budget.silence(at(200))), (Admission::Until(at(92)), None));
}

#[test]
fn missing_slots_are_counted_and_told() {
    for (exist, cap) in [(50, 60), (1, 100_000), (99_999, 100_000), (3, 4), (64, 65), (1, 2)] {
        let mut budget = node("a");
        let (mut now, mut looks) = (0, 0);
        let mut renewed = renewals();
        while budget.problem().is_none() {
            assert!(looks < 25, "{exist} of {cap}");
            let mut ask = budget.step(wants(cap), at(now), 0.0);
            while let Some(Ask::Look(asked)) = ask {
                looks += 1;
                let answer = if asked < exist { renewed() } else { Event::Answer(Answer::Missing) };
                ask = budget.step(answer, at(now), 0.0);
            }
            now += 10;
        }
        let problem = budget.problem().unwrap();
        let told =
            if exist == 1 { "1 slot exists (the Lease prepull-slot-0)".into() } else { format!("{exist} slots exist") };
        assert!(problem.contains(&format!("is {cap} and {told}")), "{problem}");
        assert!(problem.contains(&format!("clusterWideCap.slots={cap}")), "{problem}");
        for _ in 0..5 {
            now += 10;
            let ask = budget.step(wants(cap), at(now), 0.0);
            assert!(
                matches!(ask, Some(Ask::Look(asked)) if asked < exist),
                "slots that do not exist are not looked at"
            );
            assert_eq!(budget.step(renewed(), at(now), 0.0), None);
        }
    }
}

/// Whatever is missing, a node finds what is there; and it says what it met.
#[test]
fn one_missing_slot_is_passed_by_and_told() {
    let mut budget = node("a");
    let (mut now, mut met) = (0, 0);
    let mut renewed = renewals();
    for _ in 0..200 {
        let mut ask = budget.step(wants(5), at(now), 0.0);
        while let Some(Ask::Look(asked)) = ask {
            let answer = if asked == 2 { Event::Answer(Answer::Missing) } else { renewed() };
            met += u32::from(asked == 2);
            ask = budget.step(answer, at(now), 0.0);
        }
        if met > 0 {
            let problem = budget.problem().unwrap();
            assert!(problem.contains("slot 2 cannot be used"), "{problem}");
            assert!(problem.contains("prepull-slot-2 does not exist"), "{problem}");
            assert!(budget.sentence().starts_with("waiting for one of the 5 slots"), "{}", budget.sentence());
        }
        now += 10;
    }
    assert!(met > 20, "it is looked at in its turn: {met} times");
    // and when it is there, nothing is told any more
    for _ in 0..10 {
        let mut ask = budget.step(wants(5), at(now), 0.0);
        while let Some(Ask::Look(_)) = ask {
            ask = budget.step(renewed(), at(now), 0.0);
        }
        now += 10;
    }
    assert_eq!(budget.problem(), None);
}

#[test]
fn a_slot_that_was_deleted_while_it_was_held_is_taken_back_or_missed() {
    let pulling = Need { cap: Some(2), wants: false, pulling: true };
    let renewing = || {
        let mut budget = node("a");
        let first = holding(&mut budget, at(0));
        assert_eq!(budget.step(Event::Need(pulling), at(15), 0.0), Some(Ask::Hold(first, "2".into())));
        (budget, first)
    };
    // made again: free, and of another version
    let (mut budget, first) = renewing();
    assert_eq!(budget.step(Event::Answer(Answer::Conflict), at(15), 0.0), Some(Ask::Look(first)));
    assert_eq!(budget.step(slot(9, None), at(15), 0.0), Some(Ask::Hold(first, "9".into())));
    // gone: nothing begins, and the others are looked at
    let (mut budget, _) = renewing();
    let mut ask = budget.step(Event::Answer(Answer::Missing), at(15), 0.0);
    assert_eq!(budget.admission(Some(2)), Admission::Closed);
    while let Some(Ask::Look(asked)) = ask {
        ask = budget.step(if asked == 1 { slot(1, None) } else { Event::Answer(Answer::Missing) }, at(15), 0.0);
    }
    assert_eq!(budget.wake(), None, "nothing waits for a slot");
}

#[test]
fn a_slot_whose_return_is_refused_is_looked_at_and_given_back_at_once() {
    let mut budget = node("a");
    let first = holding(&mut budget, at(0));
    let idle = Event::Need(Need { cap: Some(2), ..Need::default() });
    assert_eq!(budget.step(idle, at(1), 0.0), Some(Ask::Free(first, "2".into())));
    // a renewal that was given up came through
    assert_eq!(budget.step(Event::Answer(Answer::Conflict), at(1), 0.0), Some(Ask::Look(first)));
    assert!(budget.holds(), "an agent that ends waits for it");
    assert_eq!(budget.step(slot(7, Some("a")), at(1), 0.0), Some(Ask::Free(first, "7".into())));
}

#[test]
fn what_was_wrong_is_forgotten_when_nothing_is_wanted_any_more() {
    let idle = Need { cap: Some(2), ..Need::default() };
    // a renewal that nobody answered, and a return that came through
    let mut budget = node("a");
    let first = holding(&mut budget, at(0));
    assert!(budget.step(Event::Need(Need { pulling: true, ..idle }), at(15), 0.0).is_some());
    assert_eq!(budget.step(Event::Answer(Answer::NoAnswer("cut".into())), at(25), 0.0), None);
    assert_eq!(budget.step(Event::Need(idle), at(26), 0.0), Some(Ask::Free(first, "2".into())));
    // and one that nobody answered until the slot had expired
    for (answer, when) in [(slot(3, None), 27), (Event::Answer(Answer::NoAnswer("cut".into())), 60)] {
        let mut budget = budget.clone();
        let mut ask = budget.step(answer, at(when), 0.0);
        while ask.is_some() {
            ask = budget.step(slot(1, None), at(when), 0.0);
        }
        assert_eq!((budget.silence(at(500)), budget.wake()), (None, None));
        assert_eq!(budget.sentence(), "waiting for one of the 2 slots of all nodes (pullingNodes)");
    }
    // a cap without slots, and an edit that takes the image away
    let mut budget = node("a");
    let mut ask = {
        looking(&mut budget, at(0));
        budget.step(Event::Answer(Answer::Missing), at(0), 0.0)
    };
    while ask.is_some() {
        ask = budget.step(Event::Answer(Answer::Missing), at(0), 0.0);
    }
    assert!(budget.problem().unwrap().contains("no slot can be used"));
    assert_eq!(budget.step(Event::Need(idle), at(1), 0.0), None);
    assert_eq!((budget.problem(), budget.wake()), (None, None));
}

#[test]
fn a_right_to_read_alone_is_no_slot() {
    let mut budget = node("a");
    let first = looking(&mut budget, at(0));
    assert_eq!(budget.step(slot(1, None), at(0), 0.0), Some(Ask::Hold(first, "1".into())));
    assert_eq!(budget.step(Event::Answer(Answer::Forbidden("cannot update".into())), at(0), 0.0), None);
    let problem = budget.problem().unwrap();
    assert!(problem.contains("a right is absent: cannot update"), "{problem}");
    // told on while it is tried again
    assert!(matches!(budget.step(wants(2), at(60), 0.0), Some(Ask::Look(_))));
    assert!(matches!(budget.step(slot(1, None), at(60), 0.0), Some(Ask::Hold(..))));
    assert_eq!(budget.problem().unwrap(), problem);
}

#[test]
fn without_slots_nothing_begins_and_the_component_is_named() {
    for answer in [Answer::Missing, Answer::Forbidden("cannot get leases".into())] {
        let mut budget = node("a");
        assert_eq!(budget.step(wants(1), at(0), 0.0), None);
        assert_eq!(budget.step(wants(1), at(0), 0.0), Some(Ask::Look(0)));
        assert_eq!(budget.step(Event::Answer(answer), at(0), 0.5), None);
        let problem = budget.problem().unwrap();
        assert!(problem.contains("component cluster-wide-cap") && problem.contains("nothing is pulled"), "{problem}");
        assert_eq!(budget.sentence(), problem);
        assert_eq!(budget.admission(Some(1)), Admission::Closed);
        assert_eq!(budget.wake(), Some(at(90)), "looks again, calmly");
        assert_eq!(budget.step(wants(1), at(90), 0.0), Some(Ask::Look(0)));
        assert!(matches!(budget.step(slot(1, None), at(90), 0.0), Some(Ask::Hold(0, _))));
        assert_eq!(budget.step(slot(2, Some("a")), at(90), 0.0), None);
        assert_eq!(budget.problem(), None);
    }
}

#[test]
fn a_changed_cap_is_obeyed_at_once() {
    let mut budget = node("a");
    let first = looking(&mut budget, at(0));
    assert!(budget.step(slot(1, None), at(0), 0.0).is_some());
    assert_eq!(budget.step(slot(2, Some("a")), at(0), 0.0), None);
    // its slot is beyond a lower cap: the pull may end, and nothing begins
    let lower = Some(first);
    if first > 0 {
        assert_eq!(budget.admission(lower), Admission::Closed);
        let need = Need { cap: lower, wants: true, pulling: true };
        assert_eq!(budget.step(Event::Need(need), at(1), 0.0), None);
        let ask = budget.step(Event::Need(Need { pulling: false, ..need }), at(2), 0.0);
        assert_eq!(ask, Some(Ask::Free(first, "2".into())));
    } else {
        assert_eq!(budget.admission(None), Admission::Open);
        let ask = budget.step(Event::Need(Need { cap: None, wants: true, pulling: true }), at(2), 0.0);
        assert_eq!(ask, Some(Ask::Free(first, "2".into())));
    }
}

/// The API server: slots with versions, and requests under way.
#[derive(Default)]
struct World {
    slots: BTreeMap<u32, (u64, Option<String>)>,
    version: u64,
}

impl World {
    fn carry_out(&mut self, node: &str, ask: &Ask) -> Answer {
        let (slot, write) = match ask {
            Ask::Look(slot) => (slot, None),
            Ask::Hold(slot, version) => (slot, Some((version, Some(node.to_owned())))),
            Ask::Free(slot, version) => (slot, Some((version, None))),
        };
        let Some(there) = self.slots.get_mut(slot) else { return Answer::Missing };
        if let Some((version, holder)) = write {
            if *version != there.0.to_string() {
                return Answer::Conflict;
            }
            self.version += 1;
            *there = (self.version, holder);
        }
        Answer::Slot { version: there.0.to_string(), holder: there.1.clone() }
    }
}

/// What happens to a request, and when in milliseconds.
struct UnderWay {
    node: usize,
    ask: Ask,
    /// When it reaches the server; none: never.
    arrives: Option<u64>,
    answered: u64,
    answer: Answer,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// While any slot exists every node has its turn, whichever are missing.
    #[test]
    fn no_missing_slot_strands_a_node(exist in proptest::collection::vec(any::<bool>(), 1..12), any: prop::sample::Index, nodes in 1usize..5) {
        let cap = u32::try_from(exist.len()).unwrap();
        let mut world = World { version: 1, ..World::default() };
        let one = any.index(exist.len());
        let there = (0..cap).zip(exist.iter().enumerate()).filter(|(_, (n, there))| **there || *n == one);
        world.slots.extend(there.map(|(slot, _)| (slot, (1, None))));
        let names: Vec<String> = (0..nodes).map(|n| format!("node-{n}")).collect();
        let mut budgets: Vec<Budget> = names.iter().map(|name| Budget::new(name.as_str().into())).collect();
        let mut left = vec![5u32; nodes];
        for second in 0..7200 {
            let now = at(second);
            for (n, budget) in budgets.iter_mut().enumerate() {
                let pulls = left[n] > 0 && budget.admission(Some(cap)).admits(now);
                left[n] -= u32::from(pulls);
                let mut event = Event::Need(Need { cap: Some(cap), wants: left[n] > 0, pulling: pulls });
                while let Some(ask) = budget.step(event, now, 0.5) {
                    event = Event::Answer(world.carry_out(&names[n], &ask));
                }
            }
        }
        prop_assert!(left.iter().all(|left| *left == 0), "{left:?} of slots {:?}", world.slots.keys());
    }

    /// Answers are late or lost, writes come through unheard even long after they were given up, nodes are cut off and
    /// paused, and clocks play no part: of the nodes that may begin a pull there are never more than slots.
    #[test]
    fn no_more_nodes_than_slots_may_begin_a_pull(seed: u64, cap in 1u32..4, nodes in 2usize..9) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World { version: 1, ..World::default() };
        world.slots.extend((0..cap).map(|slot| (slot, (1, None))));
        let names: Vec<String> = (0..nodes).map(|n| format!("node-{n}")).collect();
        let mut budgets: Vec<Budget> = names.iter().map(|name| Budget::new(name.as_str().into())).collect();
        let mut needs = vec![Need { cap: Some(cap), wants: true, pulling: false }; nodes];
        let mut paused_until = vec![0u64; nodes];
        let mut under_way: Vec<UnderWay> = Vec::new();
        let (mut served, mut ends) = (0, vec![None; nodes]);
        // an hour in steps of a quarter second
        for now_ms in (0..3_600_000).step_by(250) {
            let now = Moment::after_start(Duration::from_millis(now_ms));
            for request in &mut under_way {
                if request.arrives.is_some_and(|arrives| arrives <= now_ms) {
                    request.arrives = None;
                    let answer = world.carry_out(&names[request.node], &request.ask);
                    if !matches!(request.answer, Answer::NoAnswer(_)) {
                        request.answer = answer;
                    }
                }
            }
            for n in 0..nodes {
                if random.f64() < 0.0005 {
                    paused_until[n] = now_ms + random.u64(0..200_000);
                }
                if now_ms < paused_until[n] {
                    continue;
                }
                let mut events = Vec::new();
                if let Some(found) = under_way.iter().position(|r| r.node == n && r.answered <= now_ms && r.arrives.is_none_or(|_| matches!(r.answer, Answer::NoAnswer(_)))) {
                    if under_way[found].arrives.is_some() {
                        // given up, and still on its way
                        let late = &mut under_way[found];
                        late.answered = u64::MAX;
                        events.push(Event::Answer(late.answer.clone()));
                    } else {
                        events.push(Event::Answer(under_way.swap_remove(found).answer));
                    }
                }
                // pulls last up to two minutes, and the next thing to pull comes a while later
                if ends[n].is_some_and(|end| end <= now_ms) {
                    (ends[n], needs[n].pulling, needs[n].wants) = (None, false, random.f64() < 0.5);
                } else if !needs[n].pulling && random.f64() < 0.005 {
                    needs[n].wants = true;
                }
                if needs[n].wants && budgets[n].admission(Some(cap)).admits(now) && ends[n].is_none() {
                    ends[n] = Some(now_ms + random.u64(1_000..120_000));
                    needs[n].pulling = true;
                    served += 1;
                }
                events.push(Event::Need(needs[n]));
                for event in events {
                    if let Some(ask) = budgets[n].step(event, now, random.f64()) {
                        let lost = random.f64() < 0.1;
                        let arrives = if lost && random.bool() { None } else { Some(now_ms + random.u64(0..3_000)) };
                        let late = if lost && arrives.is_some() { Some(now_ms + random.u64(0..40_000)) } else { arrives };
                        under_way.push(UnderWay {
                            node: n,
                            ask,
                            arrives: late,
                            answered: if lost { now_ms + 10_000 } else { arrives.unwrap_or(now_ms) + random.u64(0..3_000) },
                            answer: if lost { Answer::NoAnswer("lost".to_owned()) } else { Answer::Conflict },
                        });
                    }
                }
            }
            under_way.retain(|r| r.answered != u64::MAX || r.arrives.is_some());
            let may_begin = budgets.iter().filter(|b| b.admission(Some(cap)).admits(now)).count();
            prop_assert!(may_begin <= usize::try_from(cap).unwrap(), "{may_begin} nodes at {now_ms} ms");
        }
        prop_assert!(served > 20, "only {served} pulls began");
    }
}
