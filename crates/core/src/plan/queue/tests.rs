use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{
    backoff::{Failures, IMAGE},
    cooldown::Cooldowns,
    desired::{Desired, SourcedList},
    disk_guard::DiskGuard,
    error_class::{ErrorClass, PullError},
    image_state::{Event, Wait, step},
    list::{ImageList, affinity::NodeFacts},
    plan::{Action, Gates, plan},
};

/// Seconds that a pull from a registry takes that never answers: as long as `stallTimeout`.
const STALL_SECONDS: u64 = 4;
/// Seconds that a good pull takes.
const PULL_SECONDS: u64 = 1;

/// One image of a simulated node.
#[derive(Debug, Clone)]
struct Simulated {
    priority: i64,
    /// Its registry never answers.
    dead: bool,
}

/// A node whose pulls all come from different registries: only the order decides.
struct Node {
    desired: Desired,
    states: Vec<ImageState>,
    images: Vec<Simulated>,
    gates: Gates,
    /// When each running pull ends.
    ends: BTreeMap<usize, u64>,
    /// The starts of each image, in seconds.
    starts: Vec<Vec<u64>>,
}

impl Node {
    fn new(images: &[Simulated], places: usize) -> Self {
        let mut text = format!("limits: {{parallelPulls: {places}}}\nimages:\n");
        for (n, image) in images.iter().enumerate() {
            writeln!(text, "  - {{image: 'r{n}.io/x:1', priority: {}}}", image.priority).unwrap();
        }
        let list = Arc::new(ImageList::parse(&text).unwrap());
        let list = SourcedList { source: "test".into(), revision: "r".into(), namespace: None, selected: false, list };
        let desired = Desired::merge(&[list], &NodeFacts::default());
        // targets are in the order of priority: find each one's image again
        let number = |target: &Target| {
            let host = target.image.registry().as_str();
            host.trim_start_matches('r').trim_end_matches(".io").parse::<usize>().unwrap()
        };
        let images: Vec<_> = desired.targets.iter().map(|target| images[number(target)].clone()).collect();
        let queued = ImageState::Pending { why: Wait::Queue, since: Moment::default(), failures: None };
        Self {
            states: vec![queued; images.len()],
            starts: vec![Vec::new(); images.len()],
            desired,
            images,
            gates: Gates { runtime_ready: true, ..Gates::default() },
            ends: BTreeMap::new(),
        }
    }

    fn event(&mut self, index: usize, event: Event, now: Moment) {
        let state = std::mem::replace(&mut self.states[index], ImageState::NotForThisNode);
        self.states[index] = step(state, event, now);
    }

    /// Lets a second pass.
    fn second(&mut self, second: u64) {
        let now = Moment::after_start(Duration::from_secs(second));
        let ended: Vec<usize> = self.ends.iter().filter(|(_, end)| **end <= second).map(|(index, _)| *index).collect();
        for index in ended {
            self.ends.remove(&index);
            if self.images[index].dead {
                let before: Option<Failures> = match &self.states[index] {
                    ImageState::Pulling { failures, .. } => *failures,
                    _ => None,
                };
                let failures = IMAGE.failed(before, now);
                let until = IMAGE.until(failures, 0.0);
                let error = PullError::own(ErrorClass::Stalled, "no byte came");
                self.event(index, Event::Failed { error, failures, until }, now);
            } else {
                self.states[index] = ImageState::NotForThisNode;
            }
        }
        let planned = |gates| {
            let states: Vec<&ImageState> = self.states.iter().collect();
            plan(&self.desired, &states, &Cooldowns::default(), &DiskGuard::default(), gates, now)
        };
        let gates = Gates { measured: Some(now), ..self.gates };
        for action in planned(gates).actions {
            match action {
                Action::Start(index) => {
                    self.gates.first_try_is_next = is_retry(&self.states[index]);
                    self.event(index, Event::Started, now);
                    let takes = if self.images[index].dead { STALL_SECONDS } else { PULL_SECONDS };
                    self.ends.insert(index, second + takes);
                    self.starts[index].push(second);
                }
                Action::Hold(index, why) => self.event(index, Event::Held(why), now),
            }
        }
    }

    /// Returns how many pulls began before the first one of this image, the longest waiting one if it never began.
    fn starts_before(&self, index: usize) -> usize {
        let first = self.starts[index].first().copied().unwrap_or(u64::MAX);
        self.starts.iter().flatten().filter(|at| **at < first).count()
    }
}

#[test]
fn a_good_image_behind_sixty_dead_registries_is_pulled_within_two_turns() {
    for priority in [0, 100] {
        let mut images = vec![Simulated { priority, dead: true }; 60];
        images.push(Simulated { priority: 0, dead: false });
        let mut node = Node::new(&images, 1);
        (0..1_000).for_each(|second| node.second(second));
        let good = node.images.iter().position(|image| !image.dead).unwrap();
        assert_eq!(node.starts[good].len(), 1, "priority {priority}");
        assert!(node.starts_before(good) <= 2 * 60, "{} pulls began before it", node.starts_before(good));
    }
}

#[test]
fn three_dead_registries_delay_a_good_image_by_at_most_one_stall() {
    let mut images = vec![Simulated { priority: 9, dead: true }; 3];
    images.push(Simulated { priority: 0, dead: false });
    let mut node = Node::new(&images, 3);
    (0..100).for_each(|second| node.second(second));
    assert_eq!(node.starts[3], [STALL_SECONDS]);
}

#[test]
fn within_a_priority_the_fewest_failures_go_first() {
    let text = "limits: {parallelPulls: 1}\nimages: [a.io/x:1, b.io/x:1, {image: 'c.io/x:1', priority: 5}]";
    let list = Arc::new(ImageList::parse(text).unwrap());
    let list = SourcedList { source: "test".into(), revision: "r".into(), namespace: None, selected: false, list };
    let desired = Desired::merge(&[list], &NodeFacts::default());
    let at = |seconds| Moment::after_start(Duration::from_secs(seconds));
    let failed = |count, until| ImageState::BackOff {
        failures: Failures { count, delay: Duration::from_secs(10), last: at(0) },
        until: at(until),
        error: PullError::own(ErrorClass::NotFound, "no"),
    };
    let first = |states: [ImageState; 3], now| {
        let states: Vec<_> = states.iter().collect();
        let gates = Gates { runtime_ready: true, measured: Some(at(now)), ..Gates::default() };
        let plan = plan(&desired, &states, &Cooldowns::default(), &DiskGuard::default(), gates, at(now));
        plan.actions.iter().find_map(|a| if let Action::Start(index) = a { Some(*index) } else { None }).unwrap()
    };
    // targets: c (priority 5), a, b
    assert_eq!(first([failed(9, 100), failed(5, 10), failed(2, 10)], 20), 2, "fewer failures before list order");
    assert_eq!(first([failed(9, 10), failed(5, 10), failed(2, 10)], 20), 0, "priority before failures");
    assert_eq!(first([failed(9, 10), failed(5, 9), failed(2, 10)], 610), 1, "and whoever waited too long before both");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The bounds that the module states, for any mixture of images that fail for ever and images that do not.
    #[test]
    fn nothing_that_is_due_waits_beyond_its_bound(
        images in prop::collection::vec((-2_i64..3, any::<bool>()), 1..25),
        places in 1_usize..4,
    ) {
        let images: Vec<_> = images.into_iter().map(|(priority, dead)| Simulated { priority, dead }).collect();
        let all = images.len();
        let mut node = Node::new(&images, places);
        let turn = 2 * all as u64 * STALL_SECONDS;
        let end = 3 * OVERDUE.as_secs() + 4 * turn;
        (0..end).for_each(|second| node.second(second));
        for (index, starts) in node.starts.iter().enumerate() {
            prop_assert!(node.starts_before(index) <= 2 * all, "first try of {index}");
            if node.images[index].dead {
                let longest = IMAGE.max.as_secs() + STALL_SECONDS + OVERDUE.as_secs() + turn;
                let mut times = starts.clone();
                times.push(end);
                for pair in times.windows(2) {
                    prop_assert!(pair[1] - pair[0] <= longest, "retry of {index}: {pair:?}");
                }
            }
        }
    }
}
