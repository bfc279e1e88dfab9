//! How far pulls are, in bytes. Pure: computed from what the runtime's content store says about the blobs of each pull.
//!
//! Each pull runs under a lease of its own, to which containerd adds every blob and every ingest that the pull touches.
//! So what belongs to which pull is known, also where two tags of one repository are pulled at once.

pub mod catalogue;
pub mod document;
mod ledger;
mod pace;
mod stall;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use catalogue::Catalogue;
use ledger::Ledger;
use pace::Pace;
use stall::StallWatch;

use crate::{
    clock::Moment,
    desired::TargetKey,
    image_ref::{Digest, RegistryHost},
};

/// Wall-clock time of the runtime, since 1970. It is only compared with other times of the same runtime.
pub type RuntimeTime = Duration;

/// Something that is being written to the content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingest {
    /// Bytes that are there. containerd writes a MiB at a time.
    pub offset: u64,
    /// Bytes that there will be; 0 where that is not known.
    pub total: u64,
    /// When it was begun, which may be in an earlier attempt.
    pub started: RuntimeTime,
}

/// What a pull's lease holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leased {
    /// Blobs that are complete.
    pub blobs: HashSet<Digest>,
    /// Blobs that are being written, or that wait for their turn in the runtime.
    pub ingests: HashSet<Digest>,
}

/// What the content store said at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Everything that is being written, by whomever.
    pub ingests: HashMap<Digest, Ingest>,
    /// By the number of the pull.
    pub leases: BTreeMap<u64, Leased>,
    /// What is known of their blobs.
    pub catalogue: Catalogue,
    /// Blobs of which something newer was counted while this sample was taken: it counts none of their bytes.
    pub counted: HashSet<Digest>,
}

/// Bytes of blobs that are not complete.
pub type Offsets = HashMap<Digest, u64>;

impl Sample {
    /// How far the blobs are that the lease of a pull holds and that are not complete.
    pub fn offsets(&self, number: u64) -> Offsets {
        let ingests = self.leases.get(&number).into_iter().flat_map(|leased| &leased.ingests);
        ingests.filter_map(|digest| Some((digest.clone(), self.ingests.get(digest)?.offset))).collect()
    }
}

/// Least bytes for which a download that broke off goes on at once: one of the pieces that containerd writes.
const WORTH: u64 = 1 << 20;
/// And this part of what there is of the blobs that are not complete, because containerd reads that again first.
const WORTH_PART: u64 = 16;

/// Whether a download that broke off goes on at once from where it was, instead of waiting for its back-off as a kubelet
/// lets it: when it came on by enough in the pull that broke.
pub fn goes_on(gained: u64, offsets: &Offsets) -> bool {
    let incomplete = offsets.values().fold(0, |all: u64, offset| all.saturating_add(*offset));
    gained >= WORTH.max(incomplete / WORTH_PART)
}

/// What a pull does at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of the image is known yet.
    Resolving,
    /// Blobs are missing.
    Downloading,
    /// All blobs are there.
    Unpacking,
}

impl Phase {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolving => "resolving",
            Self::Downloading => "downloading",
            Self::Unpacking => "unpacking",
        }
    }
}

/// How far one image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageProgress {
    /// What happens.
    pub phase: Phase,
    /// Bytes that are there, those of layers that were there before included.
    pub downloaded: Option<u64>,
    /// Bytes of all blobs of the image, as its manifest has them.
    pub total: Option<u64>,
    /// Bytes a second over the last seconds, while it downloads.
    pub bytes_per_second: Option<u64>,
    /// Estimate of the rest of the download.
    pub seconds_left: Option<u64>,
}

/// How far all pulls of the node are together; a blob that several images share counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeProgress {
    /// Bytes that are there.
    pub downloaded: u64,
    /// Bytes of all blobs.
    pub total: u64,
    /// Bytes a second over the last seconds.
    pub bytes_per_second: u64,
}

/// Why a pull is to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// The pull.
    pub number: u64,
    /// Whether anything had come at all.
    pub begun: bool,
    /// How long nothing came.
    pub silent: Duration,
}

/// A pull that is followed.
#[derive(Debug)]
struct Pull {
    key: TargetKey,
    registry: RegistryHost,
    leased_at: RuntimeTime,
    /// Parts that the last sample showed as neither there nor coming, though a later one is.
    absent: HashSet<Digest>,
    /// Those that the sample before it showed as such too: they will not come.
    passed_over: HashSet<Digest>,
    progress: Option<ImageProgress>,
    pace: Pace,
    watch: StallWatch,
    /// Bytes that came by it.
    gained: u64,
}

/// Follows the pulls of a node.
#[derive(Debug, Default)]
pub struct Tracker {
    pulls: BTreeMap<u64, Pull>,
    ledger: Ledger,
    node: NodeProgress,
    node_pace: Pace,
    /// When any byte last moved in the runtime, or a place in its queue became free.
    moved_at: Moment,
    offsets: Offsets,
    /// Whether a lease was ever seen to hold anything: then an empty one means that nothing came, whatever else moves.
    leases_hold: bool,
}

impl Tracker {
    /// A pull goes on from where another one broke off: so much was counted of its blobs.
    pub fn go_on(&mut self, offsets: Offsets) {
        self.ledger.resume(offsets);
    }

    /// A pull's lease was made, at that time of the runtime's clock.
    pub fn begin(&mut self, number: u64, key: TargetKey, registry: RegistryHost, leased_at: RuntimeTime, now: Moment) {
        if self.pulls.is_empty() {
            self.moved_at = now;
        }
        let pull = Pull {
            key,
            registry,
            leased_at,
            absent: HashSet::new(),
            passed_over: HashSet::new(),
            progress: None,
            pace: Pace::default(),
            watch: StallWatch::new(now),
            gained: 0,
        };
        self.pulls.insert(number, pull);
    }

    /// A pull ended. Its last sample is to be given before.
    pub fn end(&mut self, number: u64) {
        self.pulls.remove(&number);
        if let Some(oldest) = self.pulls.values().map(|pull| pull.leased_at).min() {
            self.ledger.forget_before(oldest);
        } else {
            *self = Self { leases_hold: self.leases_hold, ..Self::default() };
        }
    }

    /// Bytes that came by a pull so far; those of a layer that several share count for one of them.
    pub fn gained(&self, number: u64) -> u64 {
        self.pulls.get(&number).map_or(0, |pull| pull.gained)
    }

    /// Whether nothing is followed.
    pub fn is_idle(&self) -> bool {
        self.pulls.is_empty()
    }

    /// Takes what the content store said. Returns bytes that were downloaded since the last sample, by registry, each
    /// counted once.
    pub fn saw(&mut self, sample: &Sample, now: Moment) -> Vec<(RegistryHost, u64)> {
        let moved = self.note_movement(sample, now);
        let mut counted: Vec<(RegistryHost, u64)> = Vec::new();
        for (number, leased) in &sample.leases {
            let Some(pull) = self.pulls.get_mut(number) else { continue };
            self.leases_hold |= !leased.blobs.is_empty() || !leased.ingests.is_empty();
            let bytes = self.ledger.count(leased, sample, pull.leased_at);
            pull.gained = pull.gained.saturating_add(bytes);
            if bytes > 0 {
                counted.push((pull.registry.clone(), bytes));
            }
            pull.saw(leased, sample, moved, now);
        }
        let moved = counted.iter().fold(0_u64, |all, (_, bytes)| all.saturating_add(*bytes));
        self.node_pace.grew(moved, now);
        self.node =
            NodeProgress { bytes_per_second: self.node_pace.bytes_per_second(now).unwrap_or(0), ..self.totals(sample) };
        counted
    }

    /// Takes the last sample of a pull that ended, which tells about no other. Returns bytes as [`Tracker::saw`] does.
    pub fn settle(&mut self, number: u64, sample: &Sample, now: Moment) -> Option<(RegistryHost, u64)> {
        let (pull, leased) = (self.pulls.get_mut(&number)?, sample.leases.get(&number)?);
        self.leases_hold |= !leased.blobs.is_empty() || !leased.ingests.is_empty();
        let bytes = self.ledger.count(leased, sample, pull.leased_at);
        pull.gained = pull.gained.saturating_add(bytes);
        self.node_pace.grew(bytes, now);
        (bytes > 0).then(|| (pull.registry.clone(), bytes))
    }

    /// Pulls that moved nothing for so long. The caller ends them and tells so with [`Tracker::gave_up`].
    pub fn stalled(&self, limit: Duration, now: Moment) -> Vec<Stall> {
        let of = |certain: bool| -> Vec<Stall> {
            let stalled = self.pulls.iter().filter_map(|(number, pull)| {
                let silent = pull.watch.silent(limit, certain, self.leases_hold, now)?;
                Some(Stall { number: *number, begun: !pull.watch.nothing_came(), silent })
            });
            stalled.collect()
        };
        let certain = of(true);
        if !certain.is_empty() || now.since(self.moved_at) < limit {
            return certain;
        }
        // nothing moves in the whole runtime: then nobody waits for his turn behind somebody else
        of(false)
    }

    /// Stalled pulls are ended: what waited behind them has its turn now.
    pub fn gave_up(&mut self, now: Moment) {
        self.moved_at = now;
    }

    /// How far an image is; none where that is not known.
    pub fn of(&self, key: &TargetKey) -> Option<&ImageProgress> {
        self.pulls.values().rev().find(|pull| pull.key == *key)?.progress.as_ref()
    }

    /// How far all are together.
    pub fn node(&self) -> NodeProgress {
        self.node
    }

    /// Whether any download of the runtime went on, began or ended since the last sample.
    fn note_movement(&mut self, sample: &Sample, now: Moment) -> bool {
        let offsets: Offsets = sample.ingests.iter().map(|(d, i)| (d.clone(), i.offset)).collect();
        let moved = offsets != self.offsets;
        if moved {
            self.moved_at = now;
            self.offsets = offsets;
        }
        moved
    }

    fn totals(&self, sample: &Sample) -> NodeProgress {
        let mut all = NodeProgress::default();
        let mut seen = HashSet::new();
        for (number, leased) in &sample.leases {
            let Some(pull) = self.pulls.get(number) else { continue };
            for part in sample.catalogue.parts(leased) {
                if seen.insert(part.digest.clone()) {
                    all.total = all.total.saturating_add(part.size);
                    all.downloaded = all.downloaded.saturating_add(pull.done(&part, sample));
                }
            }
        }
        all
    }
}

impl Pull {
    /// `moved` says whether any download of the whole runtime did.
    fn saw(&mut self, leased: &Leased, sample: &Sample, moved: bool, now: Moment) {
        let parts = sample.catalogue.parts(leased);
        self.pass_over(&parts, leased, sample);
        let total: u64 = parts.iter().fold(0, |all, part| all.saturating_add(part.size));
        let done: u64 = parts.iter().fold(0, |all, part| all.saturating_add(self.done(part, sample)));
        let skipped: u64 = parts
            .iter()
            .filter(|part| self.passed_over.contains(&part.digest) && !sample.has(&part.digest))
            .fold(0, |all, part| all.saturating_add(part.size));
        let fetched = done.saturating_sub(skipped);
        self.watch.saw(leased, sample, fetched, moved, now);
        if parts.is_empty() {
            // an index alone, or what no manifest was found in
            self.progress = Some(ImageProgress {
                phase: if leased.ingests.is_empty() { Phase::Resolving } else { Phase::Downloading },
                downloaded: None,
                total: None,
                bytes_per_second: None,
                seconds_left: None,
            });
            return;
        }
        self.pace.reached(fetched, now);
        let phase = if done >= total { Phase::Unpacking } else { Phase::Downloading };
        let speed = self.pace.bytes_per_second(now).filter(|_| phase == Phase::Downloading);
        // what was there once is not taken back by a sample that crossed a commit
        let before = self.progress.as_ref().filter(|p| p.total == Some(total)).and_then(|p| p.downloaded);
        self.progress = Some(ImageProgress {
            phase,
            downloaded: Some(done.max(before.unwrap_or(0))),
            total: Some(total),
            bytes_per_second: speed,
            seconds_left: speed.filter(|s| *s > 0).map(|s| (total - done).div_ceil(s)),
        });
    }

    /// Layers that are unpacked already are not downloaded though their blobs are gone. containerd takes layers in
    /// order; so one that is neither there nor coming while a later one is, will not come. Two samples in a row must say so,
    /// because the parts of a sample are taken one after the other: an ingest that was opened in between is in the lease and not yet among
    /// the ingests.
    fn pass_over(&mut self, parts: &[Part], leased: &Leased, sample: &Sample) {
        let touched = |part: &Part| leased.blobs.contains(&part.digest) || leased.ingests.contains(&part.digest);
        let last = parts.iter().rposition(|part| part.is_layer && touched(part)).unwrap_or(0);
        let absent: HashSet<_> = parts[..last.min(parts.len())]
            .iter()
            .filter(|part| part.is_layer && !sample.has(&part.digest))
            .filter(|part| !sample.ingests.contains_key(&part.digest) && !leased.ingests.contains(&part.digest))
            .map(|part| part.digest.clone())
            .collect();
        self.passed_over = absent.intersection(&self.absent).cloned().collect();
        self.absent = absent;
    }

    fn done(&self, part: &Part, sample: &Sample) -> u64 {
        if sample.has(&part.digest) || self.passed_over.contains(&part.digest) {
            return part.size;
        }
        sample.ingests.get(&part.digest).map_or(0, |ingest| ingest.offset.min(part.size))
    }
}

impl Sample {
    /// Whether a blob is in the store.
    fn has(&self, digest: &Digest) -> bool {
        self.catalogue.stored(digest).is_some()
    }
}

/// A blob of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes, as the manifest has them; as the store has them where it stands in no manifest.
    pub size: u64,
    /// Whether it is a layer, and not a manifest or a config.
    pub is_layer: bool,
}

/// The pull's lease in the runtime: what it is called, from the start on.
pub type LeaseId = Arc<str>;

#[cfg(test)]
mod tests;
