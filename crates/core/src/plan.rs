//! What begins now, what waits and for what, and when to look again. Pure and linear in the number of images.

pub mod queue;

use std::{collections::HashMap, time::Duration};

use crate::{
    budget,
    clock::Moment,
    cooldown::{Admission, Cooldowns},
    desired::{Desired, Target},
    disk_guard::DiskGuard,
    error_class::ErrorClass,
    image_ref::{PullPolicy, RegistryHost},
    image_state::{ImageState, Wait},
    parallelism,
};
use queue::Queue;

/// Older than this, nothing begins by what is known of the disk and its load: a look takes no longer.
const FRESH: Duration = Duration::from_millis(100);
/// A required image that is still not there after so long does not keep the others out for longer.
const COMES_FIRST: Duration = Duration::from_hours(1);
/// How often they are looked at while something waits for them.
pub const LOOK_AGAIN: Duration = Duration::from_secs(10);

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
    /// Whether the disk and its load are to be looked at first: something that could begin was neither started nor held.
    pub measure: bool,
    /// What the disk has room for.
    pub room: Room,
}

/// What the disk has room for, apart from what stops all pulls or one image alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// What is required alone, because there is little space and this target, by its index, is not there yet.
    pub required_first: Option<usize>,
    /// Nothing beside the pull that is under way.
    pub one_at_a_time: bool,
    /// Bytes that pulls take which are under way or begin now, as far as is known.
    pub reserved: u64,
}

/// What holds up the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Gates {
    /// Whether the runtime answers and its store was looked at.
    pub runtime_ready: bool,
    /// Nothing begins before this moment, for the list's spread.
    pub spread_until: Option<Moment>,
    /// Whether `pullingNodes` lets this node pull.
    pub slot: budget::Admission,
    /// No pull begins while the disks are busier than this, in percent.
    pub max_io_pressure: Option<f64>,
    /// How busy they are, where that can be seen.
    pub io_pressure: Option<f64>,
    /// Nothing waits for the disk or its load; it is looked at once before anything begins, for a warning.
    pub unguarded: bool,
    /// When the disk and its load were last looked at.
    pub measured: Option<Moment>,
    /// Pulls that may run at once where the list leaves it to the agent.
    pub auto: Auto,
    /// The last pull that began was a retry, so the next one is a first try, if one is due; see [`queue::is_retry`].
    pub first_try_is_next: bool,
}

impl Gates {
    /// How busy the disks are, where that is too much.
    pub fn too_busy(self) -> Option<f64> {
        self.io_pressure.zip(self.max_io_pressure).filter(|(is, most)| is > most).map(|(is, _)| is)
    }

    /// Whether the disk and its load were looked at so recently.
    fn measured_within(self, time: Duration, now: Moment) -> bool {
        self.measured.is_some_and(|at| now.since(at) <= time)
    }
}

/// What `parallelPulls: auto` means at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auto(pub usize);

impl Default for Auto {
    fn default() -> Self {
        Self(parallelism::FIRST)
    }
}

/// Plans. `states` stand in the order of `desired.targets`.
pub fn plan(
    desired: &Desired,
    states: &[&ImageState],
    cooldowns: &Cooldowns,
    guard: &DiskGuard,
    gates: Gates,
    now: Moment,
) -> Plan {
    let mut plan = Plan::default();
    let mut busy = Busy::count(desired, states);
    let mut disk = Disk::of(desired, states, guard, now);
    let most = desired.limits.parallel_pulls.get(gates.auto.0);
    let most_each = desired.limits.parallel_pulls_per_registry.unwrap_or(most);
    let first = gates.unguarded && gates.measured.is_none();
    let measured = first || gates.max_io_pressure.is_some() || guard.needs_usage();
    let fresh = !measured || gates.measured_within(FRESH, now);
    let mut queue = Queue::new(gates.first_try_is_next);
    for (index, (target, state)) in desired.targets.iter().zip(states).enumerate() {
        match due(target, state, now) {
            Due::No => {}
            Due::At(moment) => plan.wake_at(moment),
            Due::Now => queue.add(index, target, state, now),
        }
    }
    queue.sort();
    while let Some(index) = queue.pop() {
        let (target, state) = (&desired.targets[index], states[index]);
        match admit(target, cooldowns, &disk, gates, &busy, (most, most_each), now) {
            Ok(()) if !fresh => {
                plan.wants_slot = true;
                plan.measure = true;
            }
            Ok(()) => {
                plan.wants_slot = true;
                busy.add(target.image.registry());
                disk.add(target);
                queue.started(state);
                plan.actions.push(Action::Start(index));
            }
            Err((why, until)) => {
                plan.wants_slot |= why == Wait::Budget;
                if matches!(why, Wait::Disk | Wait::IoPressure) {
                    plan.measure_again(gates, now);
                }
                if let Some(until) = until {
                    plan.wake_at(until);
                }
                if !matches!(state, ImageState::Pending { why: already, .. } if *already == why) {
                    plan.actions.push(Action::Hold(index, why));
                }
            }
        }
    }
    plan.room = disk.room;
    plan
}

impl Plan {
    fn wake_at(&mut self, moment: Moment) {
        self.wake = Some(self.wake.map_or(moment, |w| w.min(moment)));
    }

    /// Something waits for the disk: it is looked at now, or when it is time.
    fn measure_again(&mut self, gates: Gates, now: Moment) {
        match gates.measured.filter(|at| now.since(*at) < LOOK_AGAIN) {
            Some(at) => self.wake_at(at + LOOK_AGAIN),
            None => self.measure = true,
        }
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
    disk: &Disk<'_>,
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
    if !disk.has_room(target) {
        return Err((Wait::Disk, None));
    }
    if gates.too_busy().is_some() {
        return Err((Wait::IoPressure, None));
    }
    let registry = target.image.registry();
    let here = busy.at(registry);
    match cooldowns.admission(registry, now) {
        Admission::Closed(until) => return Err((Wait::Cooldown, Some(until))),
        Admission::AtMost(most) if here >= most => return Err((Wait::Cooldown, None)),
        Admission::AtMost(_) | Admission::Open => {}
    }
    if busy.total >= most || busy.total + busy.answered >= 2 * most || here >= most_each {
        return Err((Wait::Queue, None));
    }
    // last: a slot is wanted only for what could begin with it
    if !gates.slot.admits(now) {
        return Err((Wait::Budget, None));
    }
    Ok(())
}

/// What the disk has room for.
struct Disk<'a> {
    guard: &'a DiskGuard,
    /// Nothing at all.
    closed: bool,
    /// So near the mark that one pull is to end before the next begins.
    near: bool,
    room: Room,
    now: Moment,
}

impl<'a> Disk<'a> {
    fn of(desired: &'a Desired, states: &[&ImageState], guard: &'a DiskGuard, now: Moment) -> Self {
        let pulling = |state: &ImageState| matches!(state, ImageState::Pulling { .. });
        let required_first = required_first(desired, states, guard, now);
        let mut disk = Self {
            guard,
            closed: guard.node_stop(now).is_some(),
            near: guard.near().is_some(),
            room: Room { required_first, ..Room::default() },
            now,
        };
        for (target, _) in desired.targets.iter().zip(states).filter(|(_, state)| pulling(state)) {
            disk.add(target);
        }
        disk
    }

    fn has_room(&self, target: &Target) -> bool {
        !self.closed
            && !self.room.one_at_a_time
            && (target.required || self.room.required_first.is_none())
            && self.guard.image_stop(&target.key, self.room.reserved, self.now).is_none()
    }

    fn add(&mut self, target: &Target) {
        self.room.reserved = self.room.reserved.saturating_add(self.guard.size(&target.key));
        // of an image that was never here nobody knows what it takes
        self.room.one_at_a_time = self.near;
    }
}

/// Where there is little space, or an image lacks some, what is required that is still to be pulled: then nothing else
/// begins. What failed for a reason of its own holds nobody up, and neither does what can never fit, or waits for very long.
fn required_first(desired: &Desired, states: &[&ImageState], guard: &DiskGuard, now: Moment) -> Option<usize> {
    let short = guard.is_short(now);
    desired.targets.iter().zip(states).position(|(target, state)| {
        target.required
            && !guard.can_never_fit(&target.key, now)
            && match state {
                ImageState::Pending { since, .. } => {
                    // what waits for its turn, or for the whole disk, comes first however long that takes
                    let lacks_room = guard.image_stop(&target.key, 0, now).is_some();
                    let comes_first = if lacks_room { now.since(*since) < COMES_FIRST } else { short };
                    target.policy != PullPolicy::Never && comes_first
                }
                ImageState::BackOff { error, .. } => error.class == ErrorClass::NoSpace && guard.needs_usage(),
                ImageState::Pulling { .. } => short,
                ImageState::Present { .. }
                | ImageState::Missing { .. }
                | ImageState::Invalid { .. }
                | ImageState::NotForThisNode => false,
            }
    })
}

/// Pulls under way, in all and for each registry.
struct Busy<'a> {
    total: usize,
    /// Those that are only asked about any more: with what is under way never more than twice what may be, or a slow runtime would
    /// gather them.
    answered: usize,
    each: HashMap<&'a RegistryHost, usize>,
}

impl<'a> Busy<'a> {
    fn count(desired: &'a Desired, states: &[&ImageState]) -> Self {
        let mut busy = Self { total: 0, answered: 0, each: HashMap::new() };
        for (target, state) in desired.targets.iter().zip(states) {
            if state.is_under_way() {
                busy.add(target.image.registry());
            } else if matches!(state, ImageState::Pulling { .. }) {
                busy.answered += 1;
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
