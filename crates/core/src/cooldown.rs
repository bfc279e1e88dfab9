//! Registries that are left alone for a while, by all images of the node.
//!
//! A registry that limits requests or does not answer gets no new pull until its cool-down ends; then one pull tries,
//! and the others follow when it succeeds: each success lets one more run at once. Where requests were limited that is
//! one more every few seconds, because what a registry limits is how many come in a time, and small images end many a
//! second. One download that broke off is held against the network alone, because a registry that sent bytes was there:
//! the registry is left alone when the next pull after it fails as well. Ten minutes after a cool-down nothing is held
//! against a registry any more. Pure: time and randomness are arguments.

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

/// Between one more pull at once and the next at a registry that limited requests: what is pulled in that time shows
/// whether it bears them.
const STEP: Duration = Duration::from_secs(5);

/// One registry's cool-down, and how it opens again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cooling {
    failures: Failures,
    until: Moment,
    /// Pulls that may run at once when it has ended.
    open: usize,
    /// When it was opened so far.
    opened: Moment,
    /// Whether it limited requests.
    limited: bool,
    /// Whether a pull has found it well since.
    answered: bool,
}

impl Cooling {
    /// Whether one download broke off and nothing else is known.
    fn is_noted(&self) -> bool {
        self.open == WELL
    }

    /// Whether it ended so long ago that it says nothing any more, as with images.
    fn is_forgotten(&self, now: Moment) -> bool {
        now.since(self.until) > REGISTRY.max * 2
    }
}

/// A pull that found the registry limiting or unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// When it began.
    pub began: Moment,
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
    /// nothing new of whether it is well.
    pub fn failed(&mut self, registry: &RegistryHost, refused: Refused, now: Moment, random: f64) {
        let before = self.registries.get(registry).copied().filter(|b| !b.is_forgotten(now));
        let tells_nothing = |b: &Cooling| refused.began < b.failures.last && !(refused.limited && b.is_noted());
        if before.as_ref().is_some_and(tells_nothing) {
            // but that it limits requests, where the first of them met something else
            if let Some(known) = self.registries.get_mut(registry) {
                known.limited |= refused.limited;
            }
            return;
        }
        // one that had begun to open again fails for the first time again
        let in_a_row = before.filter(|b| b.open == 1 && !b.answered).map(|b| b.failures);
        let failures = REGISTRY.failed(in_a_row, now);
        if before.is_none() && refused.moved && !refused.limited {
            // remembered until a pull that begins after it tells more
            let noted = Cooling { failures, until: now, open: WELL, opened: now, limited: false, answered: false };
            self.registries.insert(registry.clone(), noted);
            return;
        }
        let until = REGISTRY.until(failures, random);
        let limited = refused.limited || before.is_some_and(|b| b.limited);
        let cooling = Cooling { failures, until, open: 1, opened: until, limited, answered: false };
        self.registries.insert(registry.clone(), cooling);
    }

    /// The registry answered well, now, to a pull that began at `began`. One that was under way when the cool-down began
    /// tells nothing about it: what limits manifests lets layers through.
    pub fn succeeded(&mut self, registry: &RegistryHost, began: Moment, now: Moment) {
        let Some(cooling) = self.registries.get_mut(registry).filter(|c| began >= c.failures.last) else { return };
        cooling.answered = true;
        if cooling.is_forgotten(now) {
            cooling.open = WELL;
        }
        if !cooling.limited || now.since(cooling.opened) >= STEP {
            cooling.open += 1;
            cooling.opened = now;
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
            Some(cooling) if cooling.is_noted() || cooling.is_forgotten(now) => Admission::Open,
            Some(cooling) => Admission::AtMost(cooling.open),
        }
    }

    /// Seconds that each registry has left of its cool-down; those that no pull has found well since are told too.
    pub fn remaining(&self, now: Moment) -> impl Iterator<Item = (&RegistryHost, Duration)> {
        let left_alone = self
            .registries
            .iter()
            .filter(move |(_, cooling)| cooling.open == 1 && !cooling.answered && !cooling.is_forgotten(now));
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

    fn quay() -> RegistryHost {
        ImageRef::parse("q.io/a").unwrap().registry().clone()
    }

    fn refused(began: u64) -> Refused {
        Refused { began: at(began), limited: false, moved: false }
    }

    fn limiting(began: u64) -> Refused {
        Refused { limited: true, ..refused(began) }
    }

    #[test]
    fn closes_then_lets_one_try_then_opens() {
        let registry = quay();
        let mut all = Cooldowns::default();
        assert_eq!(all.admission(&registry, at(0)), Admission::Open);
        all.failed(&registry, refused(0), at(1), 0.0);
        all.failed(&registry, refused(0), at(2), 0.0);
        assert_eq!(all.admission(&registry, at(3)), Admission::Closed(at(11)), "pulls under way count once");
        assert_eq!(all.admission(&registry, at(11)), Admission::AtMost(1));
        all.failed(&registry, refused(11), at(12), 0.0);
        assert_eq!(all.admission(&registry, at(13)), Admission::Closed(at(32)), "the delay doubles");
        all.succeeded(&registry, at(11), at(13));
        assert_eq!(all.admission(&registry, at(13)), Admission::Closed(at(32)), "an older pull's end tells nothing");
        all.succeeded(&registry, at(32), at(33));
        assert_eq!(all.admission(&registry, at(33)), Admission::AtMost(2));
        assert_eq!(all.remaining(at(33)).count(), 0, "it is no longer left alone");
        all.failed(&registry, refused(33), at(34), 0.0);
        assert_eq!(all.admission(&registry, at(35)), Admission::Closed(at(44)), "the first failure since it was well");
    }

    #[test]
    fn one_download_that_broke_off_closes_nothing_and_the_next_failure_does() {
        let registry = quay();
        let broken = |began| Refused { limited: false, moved: true, ..refused(began) };
        let mut all = Cooldowns::default();
        all.failed(&registry, broken(0), at(5), 0.0);
        assert_eq!(all.admission(&registry, at(5)), Admission::Open, "as open as before");
        all.failed(&registry, broken(1), at(6), 0.0);
        assert_eq!(all.admission(&registry, at(6)), Admission::Open, "what broke with it counts once");
        assert_eq!(all.remaining(at(6)).count(), 0);
        let mut well = all.clone();
        well.succeeded(&registry, at(6), at(7));
        well.failed(&registry, broken(7), at(8), 0.0);
        assert_eq!(well.admission(&registry, at(8)), Admission::Open, "a success in between: the first again");
        all.failed(&registry, broken(6), at(9), 0.0);
        assert_eq!(all.admission(&registry, at(10)), Admission::Closed(at(19)), "two in a row are the registry's");
        let mut limiting = Cooldowns::default();
        limiting.failed(&registry, Refused { limited: true, ..broken(0) }, at(1), 0.0);
        assert_eq!(limiting.admission(&registry, at(2)), Admission::Closed(at(11)), "a limit is no broken network");
    }

    /// How a registry opens after a cool-down until second 11: pulls end well so often a second from then on.
    fn opens(refused: Refused, seconds: u64, a_second: u64) -> Vec<Admission> {
        let registry = quay();
        let mut all = Cooldowns::default();
        all.failed(&registry, refused, at(1), 0.0);
        let look = |second| {
            (0..a_second).for_each(|_| all.succeeded(&registry, at(11), at(second)));
            all.admission(&registry, at(second))
        };
        (12..12 + seconds).map(look).collect()
    }

    #[test]
    fn what_limits_requests_opens_by_one_more_every_few_seconds_however_many_succeed() {
        let slowly = [1, 1, 1, 1, 2, 2, 2, 2, 2, 3].map(Admission::AtMost);
        assert_eq!(opens(limiting(0), 10, 1), slowly);
        assert_eq!(opens(limiting(0), 10, 20), slowly);
        assert_eq!(opens(limiting(0), 75, 1)[74], Admission::Open, "nothing is held against it for ever");
        let quickly = [2, 3, 4].map(Admission::AtMost);
        assert_eq!(opens(refused(0), 3, 1), quickly, "one that was away is as well as before");
        assert_eq!(opens(refused(0), 1, 15), [Admission::Open]);
    }

    #[test]
    fn the_first_failure_of_several_does_not_hide_that_requests_were_limited() {
        let registry = quay();
        let slowly = |first: Refused| {
            let mut all = Cooldowns::default();
            all.failed(&registry, first, at(1), 0.0);
            all.failed(&registry, limiting(0), at(2), 0.0);
            let closed = all.admission(&registry, at(3));
            (20..23).for_each(|second| all.succeeded(&registry, at(20), at(second)));
            (closed, all.admission(&registry, at(23)))
        };
        assert_eq!(slowly(refused(0)), (Admission::Closed(at(11)), Admission::AtMost(2)));
        let broken = Refused { moved: true, ..refused(0) };
        assert_eq!(slowly(broken), (Admission::Closed(at(12)), Admission::AtMost(2)), "what was noted only is closed");
    }

    #[test]
    fn ten_quiet_minutes_are_enough() {
        let registry = quay();
        let mut all = Cooldowns::default();
        all.failed(&registry, limiting(0), at(1), 0.0);
        all.succeeded(&registry, at(11), at(12));
        assert_eq!(all.admission(&registry, at(611)), Admission::AtMost(1));
        assert_eq!(all.admission(&registry, at(612)), Admission::Open);
        let mut again = all.clone();
        again.failed(&registry, limiting(612), at(613), 0.0);
        assert_eq!(again.admission(&registry, at(614)), Admission::Closed(at(623)), "a first failure again");
        all.succeeded(&registry, at(612), at(613));
        assert!(all.registries.is_empty());
    }

    #[test]
    fn what_limits_again_while_it_opens_waits_no_longer_than_at_first() {
        let registry = quay();
        let mut all = Cooldowns::default();
        all.failed(&registry, limiting(0), at(1), 0.0);
        all.succeeded(&registry, at(11), at(12));
        assert_eq!(all.remaining(at(12)).count(), 0, "it is no longer left alone");
        all.failed(&registry, limiting(12), at(13), 0.0);
        assert_eq!(all.admission(&registry, at(14)), Admission::Closed(at(23)));
        all.failed(&registry, limiting(23), at(24), 0.0);
        assert_eq!(all.admission(&registry, at(25)), Admission::Closed(at(44)), "without a success it doubles");
    }
}
