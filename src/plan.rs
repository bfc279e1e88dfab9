//! What begins now, what waits and for what, and when to look again. Pure and linear in the number of images.

use std::collections::HashMap;

use crate::{
    budget,
    clock::Moment,
    cooldown::{Admission, Cooldowns},
    desired::{Desired, Target},
    image_ref::{PullPolicy, RegistryHost},
    image_state::{ImageState, Wait},
};

/// One thing to do, about the target with this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin to pull it.
    Start(usize),
    /// Let it wait.
    Hold(usize, Wait),
}

/// What to do now, and when there will be something to do without anything else happening.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In order.
    pub actions: Vec<Action>,
    /// The next moment at which waiting ends by itself.
    pub wake: Option<Moment>,
    /// Something begins, or would if the node held a slot of `pullingNodes`.
    pub wants_slot: bool,
}

/// What holds up the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gates {
    /// Whether the runtime answers and its store was looked at.
    pub runtime_ready: bool,
    /// Nothing begins before this moment, for the list's spread.
    pub spread_until: Option<Moment>,
    /// Whether `pullingNodes` lets this node pull.
    pub slot: budget::Admission,
}

/// Plans. `states` stand in the order of `desired.targets`.
pub fn plan(desired: &Desired, states: &[&ImageState], cooldowns: &Cooldowns, gates: Gates, now: Moment) -> Plan {
    let mut plan = Plan::default();
    let mut busy = Busy::count(desired, states);
    let most = desired.limits.parallel_pulls.get();
    let most_each = desired.limits.parallel_pulls_per_registry.unwrap_or(most);
    for (index, (target, state)) in desired.targets.iter().zip(states).enumerate() {
        match due(target, state, now) {
            Due::No => {}
            Due::At(moment) => plan.wake_at(moment),
            Due::Now => match admit(target, cooldowns, gates, &busy, (most, most_each), now) {
                Ok(()) => {
                    plan.wants_slot = true;
                    busy.add(target.image.registry());
                    plan.actions.push(Action::Start(index));
                }
                Err((why, until)) => {
                    plan.wants_slot |= why == Wait::Budget;
                    if let Some(until) = until {
                        plan.wake_at(until);
                    }
                    if !matches!(state, ImageState::Pending { why: already, .. } if *already == why) {
                        plan.actions.push(Action::Hold(index, why));
                    }
                }
            },
        }
    }
    plan
}

impl Plan {
    fn wake_at(&mut self, moment: Moment) {
        self.wake = Some(self.wake.map_or(moment, |w| w.min(moment)));
    }
}

/// Whether an image is to be pulled.
enum Due {
    No,
    Now,
    At(Moment),
}

fn due(target: &Target, state: &ImageState, now: Moment) -> Due {
    let at = |moment| if moment <= now { Due::Now } else { Due::At(moment) };
    match state {
        ImageState::Pending { why, .. } if *why != Wait::Runtime => match target.policy {
            PullPolicy::Never => Due::No,
            PullPolicy::Always | PullPolicy::IfNotPresent => Due::Now,
        },
        ImageState::BackOff { until, .. } => at(*until),
        ImageState::Present { since, asked, .. } => match target.policy {
            PullPolicy::Always => at(asked.unwrap_or(*since) + target.refresh_interval),
            PullPolicy::IfNotPresent | PullPolicy::Never => Due::No,
        },
        // a pending one that waits for the runtime: what the store has of it is not known yet
        ImageState::Pending { .. }
        | ImageState::Pulling { .. }
        | ImageState::Missing { .. }
        | ImageState::Invalid { .. }
        | ImageState::NotForThisNode => Due::No,
    }
}

/// Whether a pull may begin; else what it waits for, and until when if that is known.
fn admit(
    target: &Target,
    cooldowns: &Cooldowns,
    gates: Gates,
    busy: &Busy<'_>,
    (most, most_each): (usize, usize),
    now: Moment,
) -> Result<(), (Wait, Option<Moment>)> {
    if !gates.runtime_ready {
        return Err((Wait::Runtime, None));
    }
    if let Some(until) = gates.spread_until.filter(|until| now < *until) {
        return Err((Wait::Spread, Some(until)));
    }
    let registry = target.image.registry();
    let here = busy.at(registry);
    match cooldowns.admission(registry, now) {
        Admission::Closed(until) => return Err((Wait::Cooldown, Some(until))),
        Admission::OneAtATime if here > 0 => return Err((Wait::Cooldown, None)),
        Admission::OneAtATime | Admission::Open => {}
    }
    if busy.total >= most || here >= most_each {
        return Err((Wait::Queue, None));
    }
    // last: a slot is wanted only for what could begin with it
    if !gates.slot.admits(now) {
        return Err((Wait::Budget, None));
    }
    Ok(())
}

/// Pulls under way, in all and for each registry.
struct Busy<'a> {
    total: usize,
    each: HashMap<&'a RegistryHost, usize>,
}

impl<'a> Busy<'a> {
    fn count(desired: &'a Desired, states: &[&ImageState]) -> Self {
        let mut busy = Self { total: 0, each: HashMap::new() };
        for (target, state) in desired.targets.iter().zip(states) {
            if matches!(state, ImageState::Pulling { .. }) {
                busy.add(target.image.registry());
            }
        }
        busy
    }

    fn add(&mut self, registry: &'a RegistryHost) {
        self.total += 1;
        *self.each.entry(registry).or_default() += 1;
    }

    fn at(&self, registry: &RegistryHost) -> usize {
        self.each.get(registry).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
