//! Counts bytes that came over the network, each once, whoever of several pulls they belong to.

use std::collections::HashMap;

use super::{Leased, Offsets, RuntimeTime, Sample};
use crate::image_ref::Digest;

/// What was counted of one blob.
#[derive(Debug, Clone, Copy)]
struct Counted {
    bytes: u64,
    /// When the blob was complete; none while it is not.
    complete: Option<RuntimeTime>,
}

/// What was counted while pulls ran.
#[derive(Debug, Default)]
pub(super) struct Ledger(HashMap<Digest, Counted>);

impl Ledger {
    /// Bytes of a pull that were not counted before. What was in the store before its lease was made did not come by it,
    /// and of an ingest that an earlier attempt began only what is added counts.
    pub(super) fn count(&mut self, leased: &Leased, sample: &Sample, leased_at: RuntimeTime) -> u64 {
        let mut new: u64 = 0;
        for digest in leased.ingests.difference(&sample.counted) {
            let Some(ingest) = sample.ingests.get(digest) else { continue };
            let resumed = ingest.started < leased_at;
            let first = Counted { bytes: if resumed { ingest.offset } else { 0 }, complete: None };
            let counted = self.0.entry(digest.clone()).or_insert(first);
            if ingest.offset < counted.bytes || counted.complete.is_some() {
                *counted = Counted { bytes: 0, complete: None };
            }
            new = new.saturating_add(ingest.offset - counted.bytes);
            counted.bytes = ingest.offset;
        }
        for digest in leased.blobs.difference(&sample.counted) {
            let Some(blob) = sample.catalogue.stored(digest).filter(|blob| blob.created >= leased_at) else { continue };
            let counted = self.0.entry(digest.clone()).or_insert(Counted { bytes: 0, complete: None });
            // one that was complete, was collected and came again is a new one
            if counted.complete.is_some_and(|before| before != blob.created) {
                counted.bytes = 0;
            }
            new = new.saturating_add(blob.size.saturating_sub(counted.bytes));
            *counted = Counted { bytes: blob.size, complete: Some(blob.created) };
        }
        new
    }

    /// So much came of these blobs by a pull that broke off, and was counted.
    pub(super) fn resume(&mut self, offsets: Offsets) {
        for (digest, bytes) in offsets {
            // another pull may have brought more of it meanwhile
            self.0.entry(digest).or_insert(Counted { bytes, complete: None });
        }
    }

    /// Forgets blobs that were complete before any running pull began: none of those can have brought them.
    pub(super) fn forget_before(&mut self, oldest: RuntimeTime) {
        self.0.retain(|_, counted| counted.complete.is_none_or(|created| created >= oldest));
    }
}
