//! A random life of a node, with every promise checked after each event.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{
    desired::SourcedList,
    disk_guard::Usage,
    image_ref::PullPolicy,
    list::{ImageList, affinity::NodeFacts},
};

/// What can happen.
#[derive(Debug, Clone)]
enum Happening {
    /// The list has these images now, by number, each with a policy.
    Edit(Vec<(u8, u8)>),
    /// The store is looked at.
    Look,
    /// An image leaves the store behind the agent's back.
    Collect(u8),
    /// One of the pulls under way ends well, or badly with a class.
    Finish(u8, Option<u8>),
    /// The download of one of them breaks off and goes on.
    Break(u8),
    /// The runtime says of one of them that its image is there.
    Answer(u8),
    /// Time passes.
    Pass(u16),
    /// So many percent of the disk are used.
    Disk(u8),
    /// The Node has, or no longer has, the condition DiskPressure.
    Pressure(bool),
    RuntimeGone,
    RuntimeBack,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        1 => proptest::collection::vec((0u8..12, 0u8..3), 0..10).prop_map(Happening::Edit),
        4 => Just(Happening::Look),
        1 => (0u8..12).prop_map(Happening::Collect),
        6 => (any::<u8>(), proptest::option::of(any::<u8>())).prop_map(|(which, class)| Happening::Finish(which, class)),
        1 => any::<u8>().prop_map(Happening::Break),
        3 => any::<u8>().prop_map(Happening::Answer),
        3 => (0u16..400).prop_map(Happening::Pass),
        1 => (0u8..=100).prop_map(Happening::Disk),
        1 => any::<bool>().prop_map(Happening::Pressure),
        1 => Just(Happening::RuntimeGone),
        1 => Just(Happening::RuntimeBack),
    ]
}

const POLICIES: [PullPolicy; 3] = [PullPolicy::IfNotPresent, PullPolicy::Always, PullPolicy::Never];

fn broken() -> PullError {
    PullError::own(ErrorClass::RegistryUnavailable, "unexpected EOF").after_bytes()
}

/// Twelve images in three registries.
fn name(number: u8) -> String {
    format!("r{}.example.com/app-{number}:1", number % 3)
}

/// The world around a stock.
struct World {
    stock: Stock,
    now: Moment,
    linked: bool,
    /// Used percent of the disk.
    disk: u8,
    pressure: bool,
    store: BTreeSet<String>,
    pulls: BTreeMap<String, (TargetKey, Moment)>,
    /// Those of which the runtime has said that they are there.
    answered: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        Self {
            stock: Stock::new(true),
            now: Moment::default(),
            linked: true,
            disk: 10,
            pressure: false,
            store: BTreeSet::new(),
            pulls: BTreeMap::new(),
            answered: BTreeSet::new(),
        }
    }

    fn look(&mut self) {
        if !self.linked {
            return;
        }
        let image =
            |name: &String| ListedImage { id: "sha256:1".into(), repo_tags: vec![name.clone()], ..Default::default() };
        let listed = self.store.iter().map(image).collect();
        self.now = self.now + Duration::from_millis(1);
        self.stock.looked_at(&Observation::new(self.now, Some(listed), HashMap::new()), self.now);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Edit(images) => {
                let entries: Vec<String> = images
                    .iter()
                    .map(|(n, p)| {
                        format!("  - {{image: '{}', imagePullPolicy: {}}}\n", name(*n), POLICIES[usize::from(*p)])
                    })
                    .collect();
                let text =
                    format!("limits: {{parallelPulls: 3, parallelPullsPerRegistry: 2}}\nimages:\n{}", entries.concat());
                let list = Arc::new(ImageList::parse(&text).unwrap());
                let list =
                    SourcedList { source: "test".into(), revision: "r".into(), namespace: None, selected: false, list };
                let desired = Desired::merge(&[list], &NodeFacts::default());
                for unwanted in self.stock.apply(desired, self.now) {
                    self.pulls.remove(&*unwanted.canonical).expect("only what is pulled is ended");
                    self.answered.remove(&*unwanted.canonical);
                }
                self.look();
            }
            Happening::Look => self.look(),
            Happening::Collect(n) => drop(self.store.remove(&name(n))),
            Happening::Finish(which, class) => {
                let Some(image) = self.pulls.keys().nth(usize::from(which) % self.pulls.len().max(1)).cloned() else {
                    return;
                };
                self.finish(&image, class.map(|c| ErrorClass::ALL[usize::from(c) % ErrorClass::ALL.len()]));
            }
            Happening::Break(which) => {
                if let Some(image) = self.pulls.keys().nth(usize::from(which) % self.pulls.len().max(1)).cloned() {
                    self.break_off(&image);
                }
            }
            Happening::Answer(which) => {
                let Some((image, (key, _))) = self.pulls.iter().nth(usize::from(which) % self.pulls.len().max(1))
                else {
                    return;
                };
                self.answered.insert(image.clone());
                self.stock.answered(key, self.now);
            }
            Happening::Pass(seconds) => self.now = self.now + Duration::from_secs(u64::from(seconds)),
            Happening::Disk(percent) => self.disk = percent,
            Happening::Pressure(pressure) => {
                self.pressure = pressure;
                self.stock.node_pressure(pressure);
            }
            Happening::RuntimeGone => {
                self.linked = false;
                self.stock.runtime_gone();
                self.answered.clear();
                for (key, began) in std::mem::take(&mut self.pulls).into_values() {
                    self.stock.finished(&key, Outcome::Interrupted, began, self.now, 0.5);
                }
            }
            Happening::RuntimeBack => {
                self.linked = true;
                self.stock.runtime_back(self.now);
                self.look();
            }
        }
    }

    fn break_off(&mut self, image: &str) {
        let (key, began) = self.pulls.remove(image).unwrap();
        self.answered.remove(image);
        self.stock.finished(&key, Outcome::BrokeOff(broken()), began, self.now, 0.5);
    }

    fn finish(&mut self, image: &str, class: Option<ErrorClass>) {
        let (key, began) = self.pulls.remove(image).unwrap();
        self.answered.remove(image);
        let outcome = match class {
            None => {
                self.store.insert(image.to_owned());
                Outcome::Pulled {
                    stored: Stored { digest: "sha256:1".into(), size: 1, pinned: false },
                    credential: None,
                }
            }
            Some(class) => Outcome::Failed(PullError::own(class, "no")),
        };
        self.now = self.now + Duration::from_millis(1);
        self.stock.finished(&key, outcome, began, self.now, 0.5);
    }

    /// Does what the plan says, and checks that it may be done.
    fn turn(&mut self) -> Result<(), TestCaseError> {
        let open: Vec<bool> = (0..self.stock.desired().targets.len())
            .map(|i| {
                let registry = self.stock.target(i).0.image.registry();
                !matches!(self.stock.cooldowns().admission(registry, self.now), crate::cooldown::Admission::Closed(_))
            })
            .collect();
        let mut plan = self.stock.plan(self.now);
        if plan.measure {
            let available = 100 - u64::from(self.disk);
            let usage = Usage { capacity: 100, available, inodes: 0, inodes_free: 0 };
            self.stock.measured(Some(usage), None, self.now);
            let started = plan.actions.iter().filter(|a| matches!(a, Action::Start(_))).count();
            prop_assert_eq!(started, 0, "pulls begin before the disk is looked at");
            plan = self.stock.plan(self.now);
            prop_assert!(!plan.measure, "the disk is looked at again and again");
        }
        for action in plan.actions {
            let Action::Start(index) = action else { continue };
            let (target, state, stored) = self.stock.target(index);
            let image = target.key.canonical.to_string();
            prop_assert!(self.linked, "{image} begins without a runtime");
            let used = self.stock.image_fs().map_or(0, |usage| 100 - usage.available);
            prop_assert!(used <= 80 && !self.pressure, "{image} begins at {used} % of the disk");
            prop_assert!(open[index], "{image} begins while its registry is left alone");
            prop_assert!(target.policy != PullPolicy::Never, "{image} begins though its policy is Never");
            prop_assert!(
                target.policy == PullPolicy::Always || stored.is_none(),
                "{image} begins though it is in the store: {state:?}"
            );
            let key = target.key.clone();
            self.stock.started(index, self.now);
            prop_assert!(
                self.pulls.insert(image.clone(), (key, self.now)).is_none(),
                "{image} is pulled twice at once"
            );
        }
        let under_way: Vec<_> = self.pulls.keys().filter(|image| !self.answered.contains(*image)).collect();
        prop_assert_eq!(self.stock.under_way(), under_way.len());
        prop_assert!(under_way.len() <= 3, "{} pulls at once", under_way.len());
        prop_assert!(self.pulls.len() <= 6, "{} are under way or asked about", self.pulls.len());
        for registry in 0..3 {
            let here = under_way.iter().filter(|i| i.starts_with(&format!("r{registry}."))).count();
            prop_assert!(here <= 2, "{here} pulls at once from registry {registry}");
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn no_promise_is_ever_broken_and_in_the_end_all_is_there(life in proptest::collection::vec(happening(), 0..120)) {
        let mut world = World::new();
        for happening in life {
            world.happen(happening);
            world.turn()?;
        }
        // from any state: with a runtime and registries that answer, and room, everything wanted gets there
        world.happen(Happening::RuntimeBack);
        world.happen(Happening::Disk(10));
        world.happen(Happening::Pressure(false));
        for _ in 0..100 {
            world.turn()?;
            for image in world.pulls.keys().cloned().collect::<Vec<_>>() {
                world.finish(&image, None);
            }
            world.happen(Happening::Pass(60));
            world.look();
        }
        for index in 0..world.stock.desired().targets.len() {
            let (target, state, stored) = world.stock.target(index);
            let wanted = if target.policy == PullPolicy::Never && stored.is_none() { "Missing" } else { "Present" };
            if target.policy == PullPolicy::Always {
                prop_assert!(stored.is_some(), "{} is not there: {:?}", target.key.canonical, state);
            } else {
                prop_assert_eq!(state.name(), wanted, "{}", target.key.canonical);
            }
        }
    }
}

#[test]
fn an_edit_during_a_pull_makes_its_failure_count_for_nothing() {
    let mut world = World::new();
    world.happen(Happening::Edit(vec![(0, 0)]));
    world.turn().unwrap();
    world.happen(Happening::Edit(vec![(0, 1)]));
    world.finish(&name(0), Some(ErrorClass::Unauthorized));
    assert_eq!(world.stock.target(0).1.name(), "Pending", "the edited entry is tried at once");
}

#[test]
fn a_removed_entry_ends_its_pull() {
    let mut world = World::new();
    world.happen(Happening::Edit(vec![(0, 0), (1, 0)]));
    world.turn().unwrap();
    assert_eq!(world.pulls.len(), 2);
    world.happen(Happening::Edit(vec![(1, 0)]));
    assert_eq!(world.pulls.keys().collect::<Vec<_>>(), [&name(1)]);
}

#[test]
fn warm_means_stored_whatever_the_state_says() {
    let mut world = World::new();
    assert!(!world.stock.warmth().warm, "no list was read");
    world.store.insert(name(0));
    world.happen(Happening::Edit(vec![(0, 1)]));
    world.turn().unwrap();
    assert_eq!(world.stock.target(0).1.name(), "Pulling");
    assert!(world.stock.warmth().warm, "an Always entry that is being refreshed stays warm");
    world.finish(&name(0), Some(ErrorClass::NotFound));
    assert!(world.stock.warmth().warm, "and so does one whose refresh failed");
    world.happen(Happening::Edit(vec![(0, 1), (1, 0)]));
    let warmth = world.stock.warmth();
    assert!(!warmth.warm);
    assert_eq!(warmth.reason, format!("1 of 2 required images are present; missing: {}", name(1)));
    world.happen(Happening::Edit(vec![]));
    assert!(world.stock.warmth().warm, "an empty list is warm");
}

#[test]
fn a_look_that_finds_the_older_image_does_not_forget_that_its_refresh_found_no_space() {
    let mut world = World::new();
    world.store.insert(name(0));
    world.happen(Happening::Edit(vec![(0, 1)]));
    world.turn().unwrap();
    assert_eq!(world.stock.target(0).1.name(), "Pulling");
    world.finish(&name(0), Some(ErrorClass::NoSpace));
    let key = world.stock.target(0).0.key.clone();
    let stopped = |world: &World| world.stock.guard.image_stop(&key, 0, world.now).is_some();
    assert!(stopped(&world));
    world.look();
    assert!(stopped(&world), "the store has what it had before");
}

#[test]
fn a_look_that_began_before_a_pull_ended_does_not_undo_it() {
    let mut world = World::new();
    world.happen(Happening::Edit(vec![(0, 0)]));
    world.turn().unwrap();
    let began = world.now;
    world.finish(&name(0), None);
    world.stock.looked_at(&Observation::new(began, Some(vec![]), HashMap::new()), world.now);
    assert_eq!(world.stock.target(0).1.name(), "Present");
}

#[test]
fn an_image_under_which_the_runtime_ends_again_waits() {
    let mut world = World::new();
    world.happen(Happening::Edit(vec![(0, 0)]));
    world.turn().unwrap();
    world.happen(Happening::RuntimeGone);
    world.happen(Happening::RuntimeBack);
    world.turn().unwrap();
    assert_eq!(world.stock.target(0).1.name(), "Pulling", "once is nobody's failure");
    world.happen(Happening::RuntimeGone);
    world.happen(Happening::RuntimeBack);
    world.turn().unwrap();
    let state = world.stock.target(0).1.clone();
    let ImageState::BackOff { error, .. } = state else { panic!("{state:?}") };
    assert_eq!(error.class, ErrorClass::RuntimeUnavailable);
}

#[test]
fn a_download_that_broke_off_starts_again_at_once_and_closes_no_registry() {
    let mut world = World::new();
    world.happen(Happening::Edit(vec![(0, 0)]));
    world.turn().unwrap();
    for _ in 0..3 {
        world.break_off(&name(0));
        let told = world.stock.take_transitions();
        assert!(told.iter().any(|t| t.broke_off.as_ref() == Some(&broken())), "{told:?}");
        world.turn().unwrap();
        let (_, state, _) = world.stock.target(0);
        assert!(matches!(state, ImageState::Pulling { attempt: 1, .. }), "{state:?}");
    }
    assert_eq!(world.stock.cooldowns().remaining(world.now).count(), 0);
}

#[test]
fn only_what_the_registry_is_asked_counts_as_an_edit_of_what_is_there() {
    let always = |more: &str| {
        let text = format!("images: [{{image: '{}', imagePullPolicy: Always{more}}}]", name(0));
        let list = Arc::new(ImageList::parse(&text).unwrap());
        let list = SourcedList { source: "test".into(), revision: "r".into(), namespace: None, selected: false, list };
        Desired::merge(&[list], &NodeFacts::default())
    };
    let mut world = World::new();
    world.stock.apply(always(""), world.now);
    world.look();
    world.turn().unwrap();
    world.finish(&name(0), None);
    for unimportant in [", priority: 7", ", required: false", ", pullTimeout: 5m"] {
        world.stock.apply(always(unimportant), world.now);
        assert_eq!(world.stock.target(0).1.name(), "Present", "{unimportant}");
    }
    world.stock.apply(always(", imagePullSecrets: [{name: new}]"), world.now);
    assert_eq!(world.stock.target(0).1.name(), "Pending", "another credential is tried at once");
}
