//! What is worth an Event, how often, and what is only counted. Pure.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::clock::Moment;

/// Something that people should find by `kubectl describe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is bad news.
    pub warning: bool,
    /// One word, the kubelet's where it has one.
    pub reason: &'static str,
    /// What it is about: an image or a list.
    pub subject: Arc<str>,
    /// For people.
    pub note: String,
}

/// What to do about a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Telling {
    /// Make an Event.
    New,
    /// Say that the Event with this name happened once more, this often in all.
    Again {
        /// Name of the Event.
        name: String,
        /// How often in all.
        count: i32,
    },
    /// Too many: leave it.
    Drop,
}

/// How many Events may come at once.
const BURST: u32 = 20;
/// And then one in this time.
const ONE_IN: Duration = Duration::from_secs(20);
/// The same within this time is the same Event, as Kubernetes counts series.
const SERIES: Duration = Duration::from_mins(6);
/// How many Events are remembered.
const REMEMBERED: usize = 128;

#[derive(Debug)]
struct Told {
    name: String,
    count: i32,
    last: Moment,
}

/// What was told.
#[derive(Debug)]
pub struct Ledger {
    told: HashMap<(&'static str, Arc<str>), Told>,
    tokens: u32,
    refilled: Moment,
}

impl Ledger {
    /// With all of the burst still there.
    pub fn new(now: Moment) -> Self {
        Self { told: HashMap::new(), tokens: BURST, refilled: now }
    }

    /// What to do about a notice.
    pub fn weigh(&mut self, notice: &Notice, now: Moment) -> Telling {
        while self.tokens < BURST && now.since(self.refilled) >= ONE_IN {
            self.tokens += 1;
            self.refilled = self.refilled + ONE_IN;
        }
        if self.tokens == BURST {
            self.refilled = now;
        }
        if self.tokens == 0 {
            return Telling::Drop;
        }
        self.tokens -= 1;
        self.told.retain(|_, told| now.since(told.last) < SERIES);
        match self.told.get(&(notice.reason, notice.subject.clone())) {
            Some(told) => Telling::Again { name: told.name.clone(), count: told.count.saturating_add(1) },
            None => Telling::New,
        }
    }

    /// It was told, by the Event with this name.
    pub fn told(&mut self, notice: &Notice, name: String, count: i32, now: Moment) {
        if self.told.len() < REMEMBERED {
            self.told.insert((notice.reason, notice.subject.clone()), Told { name, count, last: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    fn notice(subject: &str) -> Notice {
        Notice { warning: true, reason: "ErrImagePull", subject: subject.into(), note: String::new() }
    }

    #[test]
    fn the_same_within_minutes_is_one_event_that_counts() {
        let mut ledger = Ledger::new(at(0));
        assert_eq!(ledger.weigh(&notice("a"), at(0)), Telling::New);
        ledger.told(&notice("a"), "x".to_owned(), 1, at(0));
        assert_eq!(ledger.weigh(&notice("b"), at(1)), Telling::New);
        assert_eq!(ledger.weigh(&notice("a"), at(359)), Telling::Again { name: "x".to_owned(), count: 2 });
        ledger.told(&notice("a"), "x".to_owned(), 2, at(359));
        assert_eq!(ledger.weigh(&notice("a"), at(719)), Telling::New);
    }

    #[test]
    fn a_flood_is_cut_to_a_burst_and_a_trickle() {
        let mut ledger = Ledger::new(at(0));
        let told = |ledger: &mut Ledger, from: u64, to: u64| {
            (from..to).filter(|n| ledger.weigh(&notice(&n.to_string()), at(n / 10)) != Telling::Drop).count()
        };
        assert_eq!(told(&mut ledger, 0, 100), 20, "ten seconds of ten notices each");
        assert_eq!(told(&mut ledger, 100, 2100), 10, "two hundred seconds more");
        assert_eq!(told(&mut ledger, 100_000, 100_100), 20, "rest brings the burst back");
    }
}
