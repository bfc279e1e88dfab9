//! Whether a download stands still, as opposed to one that waits for its turn, and to an unpack.
//!
//! containerd 2.1 opens all ingests of an image at once and lets them wait for a place, three in the whole runtime. One
//! without a byte may so wait behind others. It certainly has its place when it has moved, or when one that was opened
//! after it has: places are given in the order of asking.

use std::{collections::HashMap, time::Duration};

use super::{Leased, RuntimeTime, Sample};
use crate::{clock::Moment, image_ref::Digest};

/// How much later another one must have been opened: what opens at once may ask for its place in any order.
const CERTAINLY_LATER: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Open {
    offset: u64,
    /// Since when it certainly has a place.
    active: Option<Moment>,
}

/// What a pull moved, and when.
#[derive(Debug)]
pub(super) struct StallWatch {
    began: Moment,
    moved_at: Moment,
    fetched: u64,
    blobs: usize,
    /// Ingests of the pull that lack bytes.
    open: HashMap<Digest, Open>,
    empty: bool,
    /// Whether anything moved in the runtime since the first sample, which shows what earlier pulls left behind.
    others_moved: bool,
    seen: bool,
}

impl StallWatch {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            began: now,
            moved_at: now,
            fetched: 0,
            blobs: 0,
            open: HashMap::new(),
            empty: true,
            others_moved: false,
            seen: false,
        }
    }

    /// Takes a sample; `fetched` are the bytes of the image that are there, `others` whether any download of the runtime moved.
    pub(super) fn saw(&mut self, leased: &Leased, sample: &Sample, fetched: u64, others: bool, now: Moment) {
        self.others_moved |= others && self.seen;
        self.seen = true;
        let newest_that_moved: Option<RuntimeTime> =
            sample.ingests.values().filter(|ingest| ingest.offset > 0).map(|ingest| ingest.started).max();
        let mut moved = fetched != self.fetched || leased.blobs.len() != self.blobs;
        let before = std::mem::take(&mut self.open);
        for digest in &leased.ingests {
            let Some(ingest) = sample.ingests.get(digest) else { continue };
            if ingest.total > 0 && ingest.offset >= ingest.total {
                // it is complete, and being checked and committed: that is no download
                continue;
            }
            let known = before.get(digest);
            let went_on = known.is_some_and(|known| known.offset != ingest.offset);
            moved |= known.is_none() || went_on;
            let overtaken = newest_that_moved.is_some_and(|newest| newest > ingest.started + CERTAINLY_LATER);
            let active = known.and_then(|known| known.active).or_else(|| (went_on || overtaken).then_some(now));
            self.open.insert(digest.clone(), Open { offset: ingest.offset, active });
        }
        moved |= before.len() != self.open.len();
        if moved {
            self.moved_at = now;
        }
        (self.fetched, self.blobs) = (fetched, leased.blobs.len());
        self.empty = leased.blobs.is_empty() && leased.ingests.is_empty();
    }

    /// Whether nothing at all of the image has come.
    pub(super) fn nothing_came(&self) -> bool {
        self.empty
    }

    /// How long nothing moved, where that is at least `limit` and a download is open. `certain` asks for those only that
    /// cannot be waiting for their turn. An empty lease says that nothing came where leases are known to hold things. Before
    /// any was seen to, as on a new node, it says so if nothing moved in the runtime either: whatever came would have.
    pub(super) fn silent(&self, limit: Duration, certain: bool, leases_hold: bool, now: Moment) -> Option<Duration> {
        let since = if self.empty {
            (leases_hold || !self.others_moved).then_some(self.began)?
        } else if certain {
            self.open.values().filter_map(|open| open.active).min()?.max(self.moved_at)
        } else if self.open.is_empty() {
            return None;
        } else {
            self.moved_at
        };
        Some(now.since(since)).filter(|silent| *silent >= limit)
    }
}
