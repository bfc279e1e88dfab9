//! What a node has seen of the slots, by its own monotonic clock.

use std::{collections::VecDeque, time::Duration};

use super::EXPIRY;
use crate::clock::Moment;

/// One slot that another node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Looked {
    /// Which one.
    pub(super) slot: u32,
    version: String,
    /// Since when this version is known.
    since: Moment,
    /// Whether the next look is at the same slot.
    pub(super) stays: bool,
}

impl Looked {
    /// Looks at a slot, maybe the one that was looked at before. `seems_left` says of a version that is new here
    /// whether nobody renews it any more.
    pub(super) fn again(
        before: Option<Self>,
        slot: u32,
        version: String,
        now: Moment,
        seems_left: impl Fn(&str) -> bool,
    ) -> Self {
        match before.filter(|before| before.slot == slot) {
            Some(before) if before.version == version => Self { stays: true, ..before },
            // renewed since: somebody is there
            Some(_) => Self { slot, version, since: now, stays: false },
            None => Self { stays: seems_left(&version), slot, version, since: now },
        }
    }

    /// Whether it still had the same version when this look at it was sent, long enough after the first one.
    pub(super) fn expired(&self, version: &str, sent: Moment) -> bool {
        self.version == version && sent.since(self.since) >= EXPIRY
    }
}

/// The newest version of any slot that was known when. The API server numbers all writes in one row, so a slot whose
/// version is lower than one that was known a while ago was not written since. That only hints at where to look again:
/// a slot is taken by [`Looked::expired`] alone, which asks nothing of versions but that each write makes a new one.
#[derive(Debug, Clone, Default)]
pub(super) struct Observed {
    newest: VecDeque<(Moment, u64)>,
}

impl Observed {
    /// A slot had this version.
    pub(super) fn saw(&mut self, version: &str, now: Moment) {
        let Ok(version) = version.parse::<u64>() else { return };
        if self.newest.back().is_none_or(|(_, newest)| version > *newest) {
            self.newest.push_back((now, version));
        }
        // what is older than one that is old enough tells nothing more
        while self.newest.get(1).is_some_and(|(at, _)| now.since(*at) >= EXPIRY) {
            self.newest.pop_front();
        }
    }

    /// For how long, at least, a slot was not written that had this version when a look at it was sent.
    pub(super) fn unchanged_for(&self, version: &str, sent: Moment) -> Duration {
        let Ok(version) = version.parse::<u64>() else { return EXPIRY };
        let known = self.newest.iter().find(|(_, newest)| *newest >= version);
        known.map_or(Duration::ZERO, |(at, _)| sent.since(*at))
    }
}
