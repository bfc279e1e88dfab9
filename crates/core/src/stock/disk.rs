//! What the stock knows of the disk, and what of its images that stops.

use super::Stock;
use crate::{
    clock::Moment,
    desired::TargetKey,
    disk_guard::{Marks, Stop, Usage},
    error_class::ErrorClass,
    image_ref::PullPolicy,
    image_state::{ImageState, Wait},
};

impl Stock {
    /// Lets neither a full disk nor a busy one keep anything from being pulled.
    #[must_use]
    pub fn unguarded(mut self) -> Self {
        self.gates.unguarded = true;
        self
    }

    /// That the disk would stop pulls, where nothing is guarded.
    pub fn disk_warning(&self) -> Option<String> {
        let usage = self.guard.usage().filter(|_| self.gates.unguarded)?;
        Marks::of(&self.desired.limits).warning(usage)
    }

    /// The disk and its load were looked at; none for what cannot be seen.
    pub fn measured(&mut self, usage: Option<Usage>, io_pressure: Option<f64>, now: Moment) {
        self.guard.measured(usage, now);
        self.gates.io_pressure = io_pressure;
        self.gates.measured = Some(now);
    }

    /// The API server said whether the Node lacks disk space.
    pub fn node_pressure(&mut self, pressure: bool) {
        self.guard.set_node_pressure(pressure);
    }

    /// How full the image filesystem was when it was last looked at.
    pub fn image_fs(&self) -> Option<Usage> {
        self.guard.usage()
    }

    /// Whether anything depends on how busy the disks are.
    pub fn needs_io_pressure(&self) -> bool {
        self.gates.max_io_pressure.is_some()
    }

    /// Why the disk stops all pulls.
    pub fn disk_stop(&self, now: Moment) -> Option<Stop> {
        self.guard.node_stop(now)
    }

    /// For what of the disk a target waits that is to be pulled, why, and what to do about it.
    pub fn waits_for_disk(&self, index: usize, now: Moment) -> Option<(Wait, String, &'static str)> {
        let target = &self.desired.targets[index];
        match &self.tracked[index].state {
            ImageState::Pending { why: Wait::IoPressure, .. } => {
                let (is, most) = (self.gates.io_pressure?, self.gates.max_io_pressure?);
                let why = format!(
                    "waiting because the node's disks are busy: tasks waited for them in {is} % of the last ten seconds, and above {most} % (maxIOPressure) no pull begins"
                );
                let remedy =
                    "It begins by itself when the disks are less busy; raise maxIOPressure if they always are.";
                return Some((Wait::IoPressure, why, remedy));
            }
            ImageState::Pending { why: Wait::Disk, .. } => {}
            ImageState::BackOff { error, until, .. } if error.class == ErrorClass::NoSpace && *until <= now => {}
            ImageState::Pending { .. }
            | ImageState::BackOff { .. }
            | ImageState::Pulling { .. }
            | ImageState::Present { .. }
            | ImageState::Missing { .. }
            | ImageState::Invalid { .. }
            | ImageState::NotForThisNode => return None,
        }
        let required_first = || {
            let first = self.desired.targets.get(self.room.required_first.filter(|_| !target.required)?)?;
            Some(Stop::RequiredFirst { image: first.key.canonical.clone() })
        };
        let stop = self
            .guard
            .node_stop(now)
            .or_else(|| self.guard.image_stop(&target.key, self.room.reserved, now))
            .or_else(required_first)
            .or_else(|| self.guard.near().filter(|_| self.room.one_at_a_time))?;
        Some((Wait::Disk, stop.why(now), stop.remedy()))
    }

    /// An image that was in the store is not found there any more.
    pub(super) fn gone(&mut self, index: usize, size: u64, now: Moment) {
        let target = &self.desired.targets[index];
        if target.policy != PullPolicy::Never {
            self.guard.removed(&target.key, size, now);
        }
    }

    /// A new list is in force.
    pub(super) fn guard_by_limits(&mut self) {
        let limits = &self.desired.limits;
        self.guard.set_marks(if self.gates.unguarded { Marks::OFF } else { Marks::of(limits) });
        self.gates.max_io_pressure = limits.max_io_pressure.filter(|_| !self.gates.unguarded);
        let index = &self.index;
        self.guard.retain(|key: &TargetKey| index.contains_key(key));
    }
}
