//! Registries that are left alone for a while, by all images of the node.
//!
//! A registry that limits requests or does not answer gets no new pull until its cool-down ends; then one pull tries,
//! and the others follow when it succeeds: each success lets one more run at once. What limited requests is asked by
//! half as many at once as before for a while. One download that broke off is held against the network alone, because a
//! registry that sent bytes was there: the registry is left alone when the next pull after it fails as well. Pure: time and
//! randomness are arguments.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    backoff::{Backoff, Failures},
    clock::Moment,
    image_ref::RegistryHost,
};

/// Delays of a registry: as long as those of an image, so that the first image that is due again can try it.
const REGISTRY: Backoff = Backoff { initial: Duration::from_secs(10), max: Duration::from_mins(5), jitter: 0.2 };

/// A registry that lets so many pulls run at once is as well as any other.
const WELL: usize = 16;

/// One registry's cool-down, and how it opens again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cooling {
    failures: Failures,
    until: Moment,
    /// Pulls that may run at once when it has ended.
    open: usize,
    /// Above so many, one success is not enough for one more, but as many as run at once.
    careful_from: usize,
    /// Successes since `open` rose last.
    successes: usize,
}

/// A pull that found the registry limiting or unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When it began.
    pub began: Moment,
    /// Pulls from the registry that were under way when it failed, itself included.
    pub at_once: usize,
    /// Whether the registry limits requests.
    pub limited: bool,
    /// Whether bytes had come.
    pub moved: bool,
}

/// What a registry's state lets begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Anything that its limit allows.
    Open,
    /// So many at once: first one pull, to see whether it is well again, then more.
    AtMost(usize),
    /// Nothing before this moment.
    Closed(Moment),
}

/// All registries that are or were left alone. Well ones take no memory.
#[derive(Debug, Clone, Default)]
pub struct Cooldowns {
    registries: BTreeMap<RegistryHost, Cooling>,
}

impl Cooldowns {
    /// A pull found the registry limiting or unavailable. Pulls that were under way when the cool-down began tell
    /// nothing new.
    pub fn failed(&mut self, registry: &RegistryHost, refused: Refused, now: Moment, random: f64) {
        let before = self.registries.get(registry).copied();
        if before.is_some_and(|b| refused.began < b.failures.last) {
            return;
        }
        // one that had begun to open again fails for the first time again
        let in_a_row = before.filter(|b| b.open == 1).map(|b| b.failures);
        let failures = REGISTRY.failed(in_a_row, now);
        if before.is_none() && refused.moved && !refused.limited {
            // remembered until a pull that begins after it tells more
            let noted = Cooling { failures, until: now, open: WELL, careful_from: WELL, successes: 0 };
            self.registries.insert(registry.clone(), noted);
            return;
        }
        let until = REGISTRY.until(failures, random);
        let careful_from = match before {
            _ if refused.limited => (refused.at_once / 2).max(1),
            Some(before) => before.careful_from,
            None => WELL,
        };
        let cooling = Cooling { failures, until, open: 1, careful_from, successes: 0 };
        self.registries.insert(registry.clone(), cooling);
    }

    /// The registry answered well, to a pull that began at `began`. One that was under way when the cool-down began
    /// tells nothing about it: what limits manifests lets layers through.
    pub fn succeeded(&mut self, registry: &RegistryHost, began: Moment) {
        let Some(cooling) = self.registries.get_mut(registry).filter(|c| began >= c.failures.last) else { return };
        cooling.successes += 1;
        if cooling.open < cooling.careful_from || cooling.successes >= cooling.open {
            cooling.open += 1;
            cooling.successes = 0;
        }
        if cooling.open >= WELL {
            self.registries.remove(registry);
        }
    }

    /// What may begin now.
    pub fn admission(&self, registry: &RegistryHost, now: Moment) -> Admission {
        match self.registries.get(registry) {
            None => Admission::Open,
            Some(cooling) if now < cooling.until => Admission::Closed(cooling.until),
            Some(cooling) if cooling.open >= WELL => Admission::Open,
            Some(cooling) => Admission::AtMost(cooling.open),
        }
    }

    /// Seconds that each registry has left of its cool-down; those that no pull has found well since are told too.
    pub fn remaining(&self, now: Moment) -> impl Iterator<Item = (&RegistryHost, Duration)> {
        let left_alone = self.registries.iter().filter(|(_, cooling)| cooling.open == 1);
        left_alone.map(move |(registry, cooling)| (registry, cooling.until.since(now)))
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

    fn refused(began: u64, at_once: usize) -> Refused {
        Refused { began: at(began), at_once, limited: true, moved: false }
    }

    #[test]
    fn closes_then_lets_one_try_then_opens() {
        let registry = ImageRef::parse("q.io/a").unwrap().registry().clone();
        let mut all = Cooldowns::default();
        assert_eq!(all.admission(&registry, at(0)), Admission::Open);
        all.failed(&registry, refused(0, 2), at(1), 0.0);
        all.failed(&registry, refused(0, 1), at(2), 0.0);
        assert_eq!(all.admission(&registry, at(3)), Admission::Closed(at(11)), "pulls under way count once");
        assert_eq!(all.admission(&registry, at(11)), Admission::AtMost(1));
        all.failed(&registry, refused(11, 1), at(12), 0.0);
        assert_eq!(all.admission(&registry, at(13)), Admission::Closed(at(32)), "the delay doubles");
        all.succeeded(&registry, at(11));
        assert_eq!(all.admission(&registry, at(13)), Admission::Closed(at(32)), "an older pull's end tells nothing");
        all.succeeded(&registry, at(32));
        assert_eq!(all.admission(&registry, at(33)), Admission::AtMost(2));
        assert_eq!(all.remaining(at(33)).count(), 0, "it is no longer left alone");
        all.failed(&registry, refused(33, 2), at(34), 0.0);
        assert_eq!(all.admission(&registry, at(35)), Admission::Closed(at(44)), "the first failure since it was well");
    }

    #[test]
    fn one_download_that_broke_off_closes_nothing_and_the_next_failure_does() {
        let registry = ImageRef::parse("q.io/a").unwrap().registry().clone();
        let broken = |began| Refused { limited: false, moved: true, ..refused(began, 8) };
        let mut all = Cooldowns::default();
        all.failed(&registry, broken(0), at(5), 0.0);
        assert_eq!(all.admission(&registry, at(5)), Admission::Open, "as open as before");
        all.failed(&registry, broken(1), at(6), 0.0);
        assert_eq!(all.admission(&registry, at(6)), Admission::Open, "what broke with it counts once");
        assert_eq!(all.remaining(at(6)).count(), 0);
        let mut well = all.clone();
        well.succeeded(&registry, at(6));
        well.failed(&registry, broken(7), at(8), 0.0);
        assert_eq!(well.admission(&registry, at(8)), Admission::Open, "a success in between: the first again");
        all.failed(&registry, broken(6), at(9), 0.0);
        assert_eq!(all.admission(&registry, at(10)), Admission::Closed(at(19)), "two in a row are the registry's");
        let mut limiting = Cooldowns::default();
        limiting.failed(&registry, Refused { limited: true, ..broken(0) }, at(1), 0.0);
        assert_eq!(limiting.admission(&registry, at(2)), Admission::Closed(at(11)), "a limit is no broken network");
    }

    fn open_after(at_once: usize, limited: bool, successes: usize) -> Admission {
        let registry = ImageRef::parse("q.io/a").unwrap().registry().clone();
        let mut all = Cooldowns::default();
        all.failed(&registry, Refused { limited, ..refused(0, at_once) }, at(1), 0.0);
        (0..successes).for_each(|_| all.succeeded(&registry, at(11)));
        all.admission(&registry, at(12))
    }

    #[test]
    fn what_limits_requests_is_asked_by_half_as_many_for_a_while() {
        let limited: Vec<_> = (1..=8).map(|n| open_after(8, true, n)).collect();
        let at_most = [2, 3, 4, 4, 4, 4, 5, 5].map(Admission::AtMost);
        assert_eq!(limited, at_most, "quickly to half of what was too many, then one for each round");
        assert_eq!(open_after(8, false, 8), Admission::AtMost(9), "one that was away is as well as before");
        assert_eq!(open_after(8, false, 15), Admission::Open);
        assert_eq!(open_after(8, true, 1000), Admission::Open, "nothing is held against it for ever");
    }
}
