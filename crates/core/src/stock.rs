//! The node's stock: what is wanted, what is there, and the state of each image. Pure; [`crate::agent`] and
//! `prepull pull` feed it with what happened and carry out what it plans.

mod disk;
mod observation;
mod warmth;

use std::{collections::HashMap, sync::Arc};

pub use observation::{ListedImage, Observation, stored_of};
pub use warmth::Warmth;

use crate::{
    backoff,
    budget::Admission,
    clock::Moment,
    cooldown::{Cooldowns, Refused},
    desired::{Desired, RowKind, Target, TargetKey},
    disk_guard::DiskGuard,
    error_class::{ErrorClass, PullError},
    image_state::{Event, ImageState, Stored, UsedCredential, Wait, step},
    list::Parallel,
    plan::{self, Action, Auto, Gates, Plan, Room},
};

/// From so many interrupted pulls in a row on, an image waits before the next one.
const MOST_INTERRUPTIONS: u32 = 2;

/// What is known about one target.
#[derive(Debug, Clone)]
struct Tracked {
    state: ImageState,
    /// What the runtime last said, whatever the state.
    stored: Option<Stored>,
    /// When it said so.
    stored_at: Moment,
    /// An edit or a new secret came during the pull: a failure of the old attempt does not count.
    forgiven: bool,
    /// Pulls in a row under which the runtime ended.
    interrupted: u32,
}

/// A change of an image's state, to be told to people.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The image as first written.
    pub image: Arc<str>,
    /// The variant before.
    pub from: &'static str,
    /// The state now.
    pub to: ImageState,
    /// Whether this is only what the first look at the store found, and no change on the node.
    pub first_look: bool,
    /// What a download broke off by that goes on.
    pub broke_off: Option<PullError>,
}

/// A finished attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The image is in the store.
    Pulled {
        /// What the runtime says about it.
        stored: Stored,
        /// What it succeeded with.
        credential: Option<UsedCredential>,
    },
    /// It is not.
    Failed(PullError),
    /// The connection to the runtime ended.
    Interrupted,
    /// Its download broke off when enough had come to go on from there.
    BrokeOff(PullError),
}

/// The stock of a node.
#[derive(Debug, Default)]
pub struct Stock {
    desired: Desired,
    tracked: Vec<Tracked>,
    index: HashMap<TargetKey, usize>,
    cooldowns: Cooldowns,
    gates: Gates,
    guard: DiskGuard,
    /// As of the last plan.
    room: Room,
    no_cool_down: bool,
    list_read: bool,
    looked: bool,
    transitions: Vec<Transition>,
}

impl Stock {
    /// Empty. Without `cool_down` no registry is ever left alone for a while.
    pub fn new(cool_down: bool) -> Self {
        Self { no_cool_down: !cool_down, ..Self::default() }
    }

    /// What is wanted.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Cool-downs of registries.
    pub fn cooldowns(&self) -> &Cooldowns {
        &self.cooldowns
    }

    /// Whether a list was ever read.
    pub fn list_read(&self) -> bool {
        self.list_read
    }

    /// Whether the store was ever looked at.
    pub fn looked(&self) -> bool {
        self.looked
    }

    /// A target, its state, and what the store has of it.
    pub fn target(&self, index: usize) -> (&Target, &ImageState, Option<&Stored>) {
        let tracked = &self.tracked[index];
        (&self.desired.targets[index], &tracked.state, tracked.stored.as_ref())
    }

    /// The state behind a row.
    pub fn row_state(&self, row: &RowKind) -> ImageState {
        match row {
            RowKind::Target(index) => self.tracked[*index].state.clone(),
            RowKind::Invalid { why, .. } => ImageState::Invalid { why: why.clone() },
            RowKind::NotForThisNode => ImageState::NotForThisNode,
            RowKind::Undecided { .. } => {
                ImageState::Pending { why: Wait::Labels, since: Moment::default(), failures: None }
            }
        }
    }

    /// Where a target stands now.
    pub fn find(&self, key: &TargetKey) -> Option<usize> {
        self.index.get(key).copied()
    }

    /// Whether any target has this name.
    pub fn is_listed(&self, name: &str) -> bool {
        self.desired.targets.iter().any(|target| *target.key.canonical == *name)
    }

    /// Whether a target with this name is neither there nor being pulled.
    pub fn waits_for(&self, name: &str) -> bool {
        let absent = |state: &ImageState| match state {
            ImageState::Pending { .. } | ImageState::BackOff { .. } | ImageState::Missing { .. } => true,
            ImageState::Pulling { .. }
            | ImageState::Present { .. }
            | ImageState::Invalid { .. }
            | ImageState::NotForThisNode => false,
        };
        let named = |(target, tracked): (&Target, &Tracked)| *target.key.canonical == *name && absent(&tracked.state);
        self.desired.targets.iter().zip(&self.tracked).any(named)
    }

    /// Whether somebody else may have moved the name of an image that is to stay pinned.
    pub fn may_have_moved(&self, name: &str) -> bool {
        self.desired.targets.iter().zip(&self.tracked).any(|(target, tracked)| {
            target.pin && *target.key.canonical == *name && !matches!(tracked.state, ImageState::Pulling { .. })
        })
    }

    /// Changes of state since the last call.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    /// Puts a new list in force. Returns the targets that are no longer wanted and are being pulled: their pulls are
    /// to be ended. Entries that are new or were edited begin anew, without back-off; the others keep their state.
    pub fn apply(&mut self, desired: Desired, now: Moment) -> Vec<TargetKey> {
        let mut before: HashMap<TargetKey, (Target, Tracked)> = std::mem::take(&mut self.desired.targets)
            .into_iter()
            .zip(std::mem::take(&mut self.tracked))
            .map(|(target, tracked)| (target.key.clone(), (target, tracked)))
            .collect();
        let mut edited = Vec::new();
        for (index, target) in desired.targets.iter().enumerate() {
            let tracked = match before.remove(&target.key) {
                Some((old, tracked)) => {
                    let waits = matches!(tracked.state, ImageState::BackOff { .. });
                    if old.asks_otherwise(target) || (waits && old != *target) {
                        edited.push(index);
                    }
                    tracked
                }
                None => Tracked {
                    state: ImageState::new(now),
                    stored: None,
                    stored_at: Moment::default(),
                    forgiven: false,
                    interrupted: 0,
                },
            };
            self.tracked.push(tracked);
        }
        self.index = desired.targets.iter().enumerate().map(|(i, t)| (t.key.clone(), i)).collect();
        self.desired = desired;
        self.list_read = true;
        self.guard_by_limits();
        let targets = &self.desired.targets;
        self.cooldowns.retain(|registry| targets.iter().any(|t| t.image.registry() == registry));
        for index in edited {
            self.forgive(index, now);
        }
        let pulling = |(key, (_, tracked)): (TargetKey, (Target, Tracked))| {
            matches!(tracked.state, ImageState::Pulling { .. }).then_some(key)
        };
        before.into_iter().filter_map(pulling).collect()
    }

    /// Lets nothing begin before a moment, for the spread of an edit.
    pub fn spread(&mut self, until: Moment) {
        self.gates.spread_until = Some(until);
    }

    /// Lets pulls begin, or not, for `pullingNodes`.
    pub fn slot(&mut self, admission: Admission) {
        self.gates.slot = admission;
    }

    /// The runtime answered. What an earlier pull ended with since the look began is newer than the look.
    pub fn looked_at(&mut self, observation: &Observation, now: Moment) {
        self.gates.runtime_ready = true;
        self.looked = true;
        for index in 0..self.tracked.len() {
            let target = &self.desired.targets[index];
            let Some(found) = observation.find(target) else { continue };
            if self.tracked[index].stored_at > observation.began {
                continue;
            }
            let policy = target.policy;
            match (self.tracked[index].stored.as_ref().map(|s| (s.size, &s.digest)), &found) {
                (Some((size, _)), None) => self.gone(index, size, now),
                // the same as before says nothing about what its tag stands for now
                (Some((_, digest)), Some(found)) if *digest == found.digest => {}
                (_, Some(_)) => self.guard.found(&self.desired.targets[index].key),
                (None, None) => {}
            }
            self.tracked[index].stored.clone_from(&found);
            self.tracked[index].stored_at = now;
            self.event(index, Event::Looked { found, policy }, now);
        }
    }

    /// The runtime no longer answers: nothing begins until it was looked at again.
    pub fn runtime_gone(&mut self) {
        self.gates.runtime_ready = false;
    }

    /// The runtime is back after an absence: failures that it or its absence caused are forgotten, but not those of
    /// images under whose pulls it ended again and again.
    pub fn runtime_back(&mut self, now: Moment) {
        for index in 0..self.tracked.len() {
            let tracked = &self.tracked[index];
            let its_fault =
                matches!(&tracked.state, ImageState::BackOff { error, .. } if error.class.is_runtimes_fault());
            if its_fault && tracked.interrupted < MOST_INTERRUPTIONS {
                self.forgive(index, now);
            }
        }
    }

    /// Clears the back-off of one target, for its entry or its secret changed.
    pub fn forgive(&mut self, index: usize, now: Moment) {
        let policy = self.desired.targets[index].policy;
        self.tracked[index].forgiven = true;
        let found = self.tracked[index].stored.clone();
        self.event(index, Event::Forgiven { policy, found }, now);
        if !self.gates.runtime_ready {
            self.event(index, Event::Held(Wait::Runtime), now);
        }
    }

    /// A pull begins.
    pub fn started(&mut self, index: usize, now: Moment) {
        self.tracked[index].forgiven = false;
        self.gates.first_try_is_next = plan::queue::is_retry(&self.tracked[index].state);
        self.guard.began(&self.desired.targets[index].key);
        self.event(index, Event::Started, now);
    }

    /// The runtime said that a pull ended well: the next one need not wait until it is known what came.
    pub fn answered(&mut self, key: &TargetKey, now: Moment) {
        if let Some(index) = self.find(key) {
            self.event(index, Event::Answered, now);
        }
    }

    /// Pulls that the runtime is at work on.
    pub fn under_way(&self) -> usize {
        self.tracked.iter().filter(|tracked| tracked.state.is_under_way()).count()
    }

    /// A pull ended. `random` is from 0 to 1.
    pub fn finished(&mut self, key: &TargetKey, outcome: Outcome, began: Moment, now: Moment, random: f64) {
        let Some(index) = self.find(key) else { return };
        let registry = self.desired.targets[index].image.registry().clone();
        let outcome = self.once_too_often(index, outcome);
        match &outcome {
            Outcome::Pulled { .. } => self.guard.pulled(key),
            Outcome::Failed(error) if error.class == ErrorClass::NoSpace => self.guard.refused(key, now),
            Outcome::Failed(_) | Outcome::Interrupted | Outcome::BrokeOff(_) => self.guard.ended(key),
        }
        match outcome {
            Outcome::Pulled { stored, credential } => {
                self.cooldowns.succeeded(&registry, began, now);
                self.tracked[index].interrupted = 0;
                self.tracked[index].stored = Some(stored.clone());
                self.tracked[index].stored_at = now;
                self.event(index, Event::Pulled { stored, credential }, now);
            }
            Outcome::Failed(error) => {
                if error.class.cools_registry_down() && !self.no_cool_down {
                    let refused =
                        Refused { began, limited: error.class == ErrorClass::RateLimited, moved: error.broke_off };
                    self.cooldowns.failed(&registry, refused, now, random);
                } else if error.class.is_registrys_answer() {
                    self.cooldowns.succeeded(&registry, began, now);
                }
                let before = match &self.tracked[index].state {
                    ImageState::Pulling { failures, .. } => *failures,
                    _ => None,
                };
                let failures = backoff::IMAGE.failed(before, now);
                let until = backoff::IMAGE.until(failures, random);
                self.event(index, Event::Failed { error, failures, until }, now);
                if self.tracked[index].forgiven {
                    self.forgive(index, now);
                }
            }
            Outcome::Interrupted => self.event(index, Event::Interrupted, now),
            Outcome::BrokeOff(error) => {
                // a registry that sent so much was there
                self.cooldowns.succeeded(&registry, began, now);
                self.event(index, Event::BrokeOff { error }, now);
                if self.tracked[index].forgiven {
                    self.forgive(index, now);
                }
            }
        }
    }

    /// An interruption is nobody's failure, once. A runtime that ends under the same image again and again may be ended
    /// by it: then the image waits like after any failure.
    fn once_too_often(&mut self, index: usize, outcome: Outcome) -> Outcome {
        let tracked = &mut self.tracked[index];
        match outcome {
            Outcome::Interrupted => tracked.interrupted = tracked.interrupted.saturating_add(1),
            Outcome::Pulled { .. } | Outcome::Failed(_) | Outcome::BrokeOff(_) => tracked.interrupted = 0,
        }
        if outcome == Outcome::Interrupted && tracked.interrupted >= MOST_INTERRUPTIONS {
            let text = format!(
                "the connection to the container runtime ended during {} pulls of this image in a row",
                tracked.interrupted
            );
            return Outcome::Failed(PullError::own(ErrorClass::RuntimeUnavailable, &text));
        }
        outcome
    }

    /// So many pulls may run at once where the list leaves it to the agent.
    pub fn allow(&mut self, auto: usize) {
        self.gates.auto = Auto(auto);
    }

    /// Whether images wait for their turn because of [`Stock::allow`]'s number.
    pub fn waits_for_auto(&self) -> bool {
        self.desired.limits.parallel_pulls == Parallel::Auto
            && self.tracked.iter().any(|t| matches!(t.state, ImageState::Pending { why: Wait::Queue, .. }))
    }

    /// Plans, and notes what waits. The caller starts what is returned and calls [`Stock::started`] for each.
    pub fn plan(&mut self, now: Moment) -> Plan {
        let states: Vec<&ImageState> = self.tracked.iter().map(|t| &t.state).collect();
        let mut plan = plan::plan(&self.desired, &states, &self.cooldowns, &self.guard, self.gates, now);
        self.room = plan.room;
        plan.actions.retain(|action| match *action {
            Action::Start(_) => true,
            Action::Hold(index, why) => {
                let state = std::mem::replace(&mut self.tracked[index].state, ImageState::NotForThisNode);
                self.tracked[index].state = step(state, Event::Held(why), now);
                false
            }
        });
        plan
    }

    /// How far the node is.
    pub fn warmth(&self) -> Warmth {
        let stored = |index: usize| self.tracked[index].stored.is_some();
        Warmth::of(&self.desired, self.list_read, self.looked, stored)
    }

    /// Whether nothing is left to do: every target is there, or is never pulled, or has failed, where failures are not
    /// tried again.
    pub fn at_rest(&self, failures_are_tried_again: bool) -> bool {
        self.tracked.iter().all(|t| match &t.state {
            ImageState::Present { .. }
            | ImageState::Missing { .. }
            | ImageState::Invalid { .. }
            | ImageState::NotForThisNode => true,
            ImageState::BackOff { .. } => !failures_are_tried_again,
            ImageState::Pending { .. } | ImageState::Pulling { .. } => false,
        })
    }

    fn event(&mut self, index: usize, event: Event, now: Moment) {
        let broke_off = if let Event::BrokeOff { error } = &event { Some(error.clone()) } else { None };
        let tracked = &mut self.tracked[index];
        let before = std::mem::replace(&mut tracked.state, ImageState::NotForThisNode);
        let (from, first_look) =
            (before.name(), matches!(before, ImageState::Pending { why: Wait::Runtime, failures: None, .. }));
        tracked.state = step(before, event, now);
        let to = &tracked.state;
        if to.name() != from {
            self.transitions.push(Transition {
                image: self.desired.targets[index].image.written().into(),
                from,
                to: to.clone(),
                first_look: first_look && !matches!(to, ImageState::Pulling { .. }),
                broke_off,
            });
        }
    }
}

#[cfg(test)]
mod tests;
