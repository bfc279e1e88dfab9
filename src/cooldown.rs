//! Registries that are left alone for a while, by all images of the node.
//!
//! A registry that limits requests or does not answer gets no new pull until its cool-down ends; then one pull tries,
//! and the others follow when it succeeds. Pure: time and randomness are arguments.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    backoff::{Backoff, Failures},
    clock::Moment,
    image_ref::RegistryHost,
};

/// Delays of a registry: as long as those of an image, so that the first image that is due again can try it.
const REGISTRY: Backoff = Backoff { initial: Duration::from_secs(10), max: Duration::from_mins(5), jitter: 0.2 };

/// One registry's cool-down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cooling {
    failures: Failures,
    until: Moment,
}

/// What a registry's state lets begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Anything that its limit allows.
    Open,
    /// One pull, to see whether it is well again.
    OneAtATime,
    /// Nothing before this moment.
    Closed(Moment),
}

/// All registries that are or were left alone. Well ones take no memory.
#[derive(Debug, Clone, Default)]
pub struct Cooldowns {
    registries: BTreeMap<RegistryHost, Cooling>,
}

impl Cooldowns {
    /// A pull that began at `began` found the registry limiting or unavailable. Pulls that were under way when the
    /// cool-down began tell nothing new.
    pub fn failed(&mut self, registry: &RegistryHost, began: Moment, now: Moment, random: f64) {
        let before = self.registries.get(registry).copied();
        if before.is_some_and(|b| began < b.failures.last) {
            return;
        }
        let failures = REGISTRY.failed(before.map(|b| b.failures), now);
        let until = REGISTRY.until(failures, random);
        self.registries.insert(registry.clone(), Cooling { failures, until });
    }

    /// The registry answered well, to a pull that began at `began`. One that was under way when the cool-down began
    /// tells nothing about it: what limits manifests lets layers through.
    pub fn succeeded(&mut self, registry: &RegistryHost, began: Moment) {
        if self.registries.get(registry).is_some_and(|cooling| began >= cooling.failures.last) {
            self.registries.remove(registry);
        }
    }

    /// What may begin now.
    pub fn admission(&self, registry: &RegistryHost, now: Moment) -> Admission {
        match self.registries.get(registry) {
            None => Admission::Open,
            Some(cooling) if now < cooling.until => Admission::Closed(cooling.until),
            Some(_) => Admission::OneAtATime,
        }
    }

    /// Seconds that each cooling registry has left.
    pub fn remaining(&self, now: Moment) -> impl Iterator<Item = (&RegistryHost, Duration)> {
        self.registries.iter().map(move |(registry, cooling)| (registry, cooling.until.since(now)))
    }

    /// Forgets registries that the list no longer names.
    pub fn retain(&mut self, named: impl Fn(&RegistryHost) -> bool) {
        self.registries.retain(|registry, _| named(registry));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_ref::ImageRef;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn closes_then_lets_one_try_then_opens() {
        let registry = ImageRef::parse("q.io/a").unwrap().registry().clone();
        let mut all = Cooldowns::default();
        assert_eq!(all.admission(&registry, at(0)), Admission::Open);
        all.failed(&registry, at(0), at(1), 0.0);
        all.failed(&registry, at(0), at(2), 0.0);
        assert_eq!(all.admission(&registry, at(3)), Admission::Closed(at(11)), "pulls under way count once");
        assert_eq!(all.admission(&registry, at(11)), Admission::OneAtATime);
        all.failed(&registry, at(11), at(12), 0.0);
        assert_eq!(all.admission(&registry, at(13)), Admission::Closed(at(32)), "the delay doubles");
        all.succeeded(&registry, at(11));
        assert_eq!(all.admission(&registry, at(13)), Admission::Closed(at(32)), "an older pull's end tells nothing");
        all.succeeded(&registry, at(32));
        assert_eq!(all.admission(&registry, at(33)), Admission::Open);
    }
}
