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

fn node(name: &str) -> Budget {
    Budget::new(name.into())
}

/// A node that has counted two slots and looks at one of them, which is returned.
fn looking(budget: &mut Budget, now: Moment) -> u32 {
    assert_eq!(budget.step(wants(2), now, 0.0), None, "the first look has its moment");
    assert_eq!(budget.wake(), Some(now));
    assert_eq!(budget.step(wants(2), now, 0.0), Some(Ask::Look(1)), "the last slot tells whether all exist");
    match budget.step(slot(1, None), now, 0.0) {
        Some(Ask::Look(slot)) => slot,
        other => panic!("{other:?}"),
    }
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
    assert_eq!(budget.step(slot(4, None), at(121), 0.0), None);
    assert_eq!(budget.wake(), None);
}

#[test]
fn a_slot_is_taken_over_only_after_it_was_seen_unchanged_for_long_enough() {
    let mut budget = node("a");
    assert_eq!(budget.step(wants(1), at(0), 0.0), None);
    assert_eq!(budget.step(wants(1), at(0), 0.0), Some(Ask::Look(0)));
    assert_eq!(budget.step(slot(7, Some("b")), at(0), 0.0), Some(Ask::Look(0)));
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
    let other = budget.step(wants(2), at(21), 0.0);
    assert_eq!(other, Some(Ask::Look(1 - first)), "the next slot");
    // a write of this node whose answer was lost
    assert!(matches!(budget.step(slot(5, Some("a")), at(22), 0.0), Some(Ask::Hold(_, version)) if version == "5"));
    assert_eq!(budget.step(slot(6, Some("a")), at(22), 0.0), None);
    assert_eq!(budget.admission(Some(2)), Admission::Until(at(62)));
    // a renewal that came through unheard
    assert!(matches!(budget.step(wants(2), at(37), 0.0), Some(Ask::Hold(..))));
    assert_eq!(budget.step(Event::Answer(Answer::NoAnswer("cut".into())), at(47), 0.0), None);
    assert_eq!(budget.problem().unwrap(), "no slot can be asked for (pullingNodes): cut");
    assert!(matches!(budget.step(wants(2), at(52), 0.0), Some(Ask::Hold(_, version)) if version == "6"));
    assert!(matches!(budget.step(Event::Answer(Answer::Conflict), at(52), 0.0), Some(Ask::Look(_))));
    assert!(matches!(budget.step(slot(7, Some("a")), at(52), 0.0), Some(Ask::Hold(..))));
    assert_eq!(budget.step(slot(8, Some("a")), at(52), 0.0), None);
    assert_eq!((budget.admission(Some(2)), budget.problem()), (Admission::Until(at(92)), None));
}

#[test]
fn missing_slots_are_counted_and_told() {
    for (exist, cap) in [(50, 60), (1, 100_000), (99_999, 100_000), (3, 4), (64, 65)] {
        let mut budget = node("a");
        assert_eq!(budget.step(wants(cap), at(0), 0.0), None);
        let mut ask = budget.step(wants(cap), at(0), 0.0);
        for round in 0.. {
            assert!(round < 20, "{exist} of {cap}");
            let Some(Ask::Look(asked)) = ask else { panic!("{ask:?}") };
            if budget.problem().is_some() {
                assert!(asked < exist, "slots that do not exist are not looked at");
                break;
            }
            let answer = if asked < exist { slot(1, Some("b")) } else { Event::Answer(Answer::Missing) };
            ask = budget.step(answer, at(0), 0.0);
        }
        let problem = budget.problem().unwrap();
        assert!(problem.contains(&format!("is {cap} and {exist} slots exist")), "{problem}");
    }
    let mut budget = node("a");
    let first = looking(&mut budget, at(0));
    assert!(first < 2 && budget.problem().is_none());
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
        assert!(matches!(budget.step(slot(1, None), at(90), 0.0), Some(Ask::Look(0))));
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
