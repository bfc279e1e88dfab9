//! When the image filesystem has no room for another image, and when it has again. Pure.
//!
//! The kubelet collects images where the disk passes its own threshold (85 % unless it is told otherwise). An agent that
//! brought them back at once would fight it for ever, so it stops below that threshold and goes on only below a lower mark;
//! it remembers how large a collected image was and waits until that fits; and where it cannot see the reason (an eviction
//! threshold of the kubelet's own), it takes the Node's word, or an image that is collected again at once, for it.

mod stop;

use std::{collections::HashMap, time::Duration};

pub use stop::Stop;

use crate::{clock::Moment, desired::TargetKey, list::Limits};

/// An image that is removed again within this time is taken for a sign that the kubelet makes room.
pub const AGAIN: Duration = Duration::from_mins(10);
/// How long pulls stop at most for such a sign; it doubles from [`AGAIN`] on while it goes on.
const LONGEST_HOLD: Duration = Duration::from_hours(1);
/// The runtime may have found no space elsewhere than on the disk that can be seen: after this time an image is tried again
/// though there is no more of it.
const REFUSAL_COUNTS: Duration = Duration::from_hours(1);
/// A disk that cannot be seen is taken for as full as it was seen last for so long: one look that fails says nothing.
pub const REMEMBERED: Duration = Duration::from_mins(5);
/// Below this share of free inodes, in percent, the kubelet begins to evict by itself.
const LEAST_INODES: u64 = 5;
/// Others write as well while an image is pulled: no image takes more than this many times what the runtime says.
const MOST_UNPACKED: u64 = 6;

/// How full a filesystem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in all (`f_blocks`).
    pub capacity: u64,
    /// Bytes that an ordinary process may still write (`f_bavail`).
    pub available: u64,
    /// Inodes in all; 0 where the filesystem makes them as they are needed.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

impl Usage {
    /// The used share from 0 to 1, as the kubelet counts it: what is not available is used.
    pub fn ratio(self) -> f64 {
        1.0 - self.available as f64 / self.capacity.max(1) as f64
    }

    /// Bytes that are not available.
    pub fn used(self) -> u64 {
        self.capacity.saturating_sub(self.available)
    }

    /// Whether more than so many percent are used when `more` bytes come on top.
    fn above(self, percent: u8, more: u64) -> bool {
        let used = u128::from(self.used()) + u128::from(more);
        used * 100 > u128::from(self.capacity) * u128::from(percent)
    }

    /// Whether less than so many percent are used.
    fn below(self, percent: u8) -> bool {
        u128::from(self.used()) * 100 < u128::from(self.capacity) * u128::from(percent)
    }

    fn lacks_inodes(self) -> bool {
        u128::from(self.inodes_free) * 100 < u128::from(self.inodes) * u128::from(LEAST_INODES)
    }
}

/// Where pulls stop and where they go on, in percent of the filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// No pull begins above it; 100 switches the guard off.
    pub max: u8,
    /// They go on below it.
    pub resume: u8,
}

impl Marks {
    /// The guard is off.
    pub const OFF: Self = Self { max: 100, resume: 100 };

    /// Those of lists.
    pub fn of(limits: &Limits) -> Self {
        Self { max: limits.max_disk_usage, resume: limits.resume_disk_usage }
    }

    /// For who pulls all the same: that the disk is above the upper mark.
    pub fn warning(self, usage: Usage) -> Option<String> {
        (self.max < 100 && usage.above(self.max, 0)).then(|| stop::warning(usage, self))
    }
}

impl Default for Marks {
    fn default() -> Self {
        Self::of(&Limits::default())
    }
}

/// What is remembered of one image.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Bytes by which the disk filled up when it was pulled alone.
    grew: u64,
    /// Bytes that it takes, while it is removed.
    size: u64,
    /// When it was last found to be removed.
    removed: Option<Moment>,
    /// How often in a row it was removed again at once, and until when pulls stop for it.
    again: u32,
    held_until: Option<Moment>,
    /// It found no room though so many bytes were available, and when.
    refused: Option<(u64, Moment)>,
}

/// A pull under way.
#[derive(Debug, Clone, Copy)]
struct Running {
    /// Bytes that were available when it began.
    available: Option<u64>,
    /// Most other pulls beside it.
    others: u64,
}

/// Lets pulls begin, or not.
#[derive(Debug, Default)]
pub struct DiskGuard {
    marks: Marks,
    usage: Option<Usage>,
    /// Since when looks fail.
    unseen_since: Option<Moment>,
    /// Pulls stopped at the upper mark, and the lower one is not reached yet.
    stopped: bool,
    node_pressure: bool,
    /// The image that was removed again at once, and until when nothing is pulled for it.
    contested: Option<(TargetKey, Moment)>,
    known: HashMap<TargetKey, Known>,
    running: HashMap<TargetKey, Running>,
    /// Pulls that ended well and ran alone, with what was available before them.
    grown: Vec<(TargetKey, u64)>,
}

impl DiskGuard {
    /// How full the disk was when it was last seen; none where that was never, or too long ago.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Whether anything that is decided here depends on how full the disk is.
    pub fn needs_usage(&self) -> bool {
        self.is_on() || self.known.values().any(|known| known.refused.is_some())
    }

    /// Sets the marks. Others than before are somebody's answer to what was removed.
    pub fn set_marks(&mut self, marks: Marks) {
        if self.marks != marks {
            self.contested = None;
        }
        self.marks = marks;
        self.settle();
    }

    /// The disk was looked at; none where it could not be seen.
    pub fn measured(&mut self, usage: Option<Usage>, now: Moment) {
        let grown = std::mem::take(&mut self.grown);
        if let Some(usage) = usage {
            for (key, before) in grown {
                self.known.entry(key).or_default().grew = before.saturating_sub(usage.available);
            }
            (self.usage, self.unseen_since) = (Some(usage), None);
        } else if now.since(*self.unseen_since.get_or_insert(now)) > REMEMBERED {
            self.usage = None;
        }
        self.settle();
    }

    /// The API server said whether the Node has the condition `DiskPressure`.
    pub fn set_node_pressure(&mut self, pressure: bool) {
        if self.node_pressure && !pressure {
            // the sign stood for what is known better now
            self.contested = None;
        }
        self.node_pressure = pressure;
    }

    /// An image that was in the store is not there any more; `size` as the runtime counted it.
    pub fn removed(&mut self, key: &TargetKey, size: u64, now: Moment) {
        let known = self.known.entry(key.clone()).or_default();
        known.size = size.max(known.grew.min(size.saturating_mul(MOST_UNPACKED)));
        // after a hold the image came back by this agent's will: what counts is how soon it went again
        let before = known.removed.max(known.held_until);
        known.removed = Some(now);
        if before.is_none_or(|before| now.since(before) > AGAIN) {
            known.again = 0;
            known.held_until = None;
            return;
        }
        let hold = AGAIN.saturating_mul(1 << known.again.min(8)).min(LONGEST_HOLD);
        known.again += 1;
        known.held_until = Some(now + hold);
        if self.contested.as_ref().is_none_or(|(_, until)| *until < now + hold) {
            self.contested = Some((key.clone(), now + hold));
        }
    }

    /// A pull begins.
    pub fn began(&mut self, key: &TargetKey) {
        let others = self.running.len() as u64;
        for running in self.running.values_mut() {
            running.others = running.others.max(others);
        }
        self.grown.clear();
        self.running.insert(key.clone(), Running { available: self.usage.map(|u| u.available), others });
    }

    /// It is in the store: what it takes is used already, and asking the registry again for it takes nothing.
    pub fn found(&mut self, key: &TargetKey) {
        if let Some(known) = self.known.get_mut(key) {
            known.size = 0;
            known.refused = None;
        }
    }

    /// A pull ended well.
    pub fn pulled(&mut self, key: &TargetKey) {
        self.found(key);
        if let Some(Running { available: Some(available), others: 0 }) = self.running.remove(key) {
            self.grown.push((key.clone(), available));
        }
    }

    /// A pull ended for another reason than a lack of space.
    pub fn ended(&mut self, key: &TargetKey) {
        self.running.remove(key);
    }

    /// A pull found no space.
    pub fn refused(&mut self, key: &TargetKey, now: Moment) {
        let running = self.running.remove(key);
        let Some(usage) = self.usage else { return };
        let known = self.known.entry(key.clone()).or_default();
        // what it shared with others it may have needed for itself alone; in vain once more, it needed more than that
        let share = running.map_or(usage.available, |r| r.available.unwrap_or(usage.available) / (r.others + 1));
        let before = known.refused.map_or(0, |(needs, _)| needs.saturating_mul(2));
        known.refused = Some((share.max(before), now));
        self.stopped = self.is_on();
    }

    /// Forgets images that are no longer wanted.
    pub fn retain(&mut self, wanted: impl Fn(&TargetKey) -> bool) {
        self.known.retain(|key, _| wanted(key));
        self.contested = self.contested.take().filter(|(key, _)| wanted(key));
        self.running.retain(|key, _| wanted(key));
        self.grown.retain(|(key, _)| wanted(key));
    }

    /// Why nothing at all is pulled now.
    pub fn node_stop(&self, now: Moment) -> Option<Stop> {
        if !self.is_on() {
            return None;
        }
        if let Some(usage) = self.usage {
            if self.stopped {
                return Some(Stop::Full { usage, marks: self.marks });
            }
            if usage.lacks_inodes() {
                return Some(Stop::Inodes { usage });
            }
        }
        if self.node_pressure {
            return Some(Stop::NodePressure);
        }
        match &self.contested {
            Some((key, until)) if now < *until => Some(Stop::Contested { image: key.canonical.clone(), until: *until }),
            _ => None,
        }
    }

    /// Why this image is not pulled now, where `reserved` bytes are about to be written already.
    pub fn image_stop(&self, key: &TargetKey, reserved: u64, now: Moment) -> Option<Stop> {
        let (known, usage) = (self.known.get(key)?, self.usage?);
        if let Some((needs, at)) = known.refused.filter(|(_, at)| now.since(*at) < REFUSAL_COUNTS) {
            if usage.lacks_inodes() {
                return Some(Stop::Inodes { usage });
            }
            // without a margin an image would be tried again for every byte that comes free
            let needs = needs.saturating_add(usage.capacity / 100).min(usage.capacity);
            if usage.available.saturating_sub(reserved) < needs {
                return Some(Stop::Refused { usage, needs, reserved, until: at + REFUSAL_COUNTS });
            }
        }
        let size = known.size;
        let no_room = self.is_on() && size > 0 && usage.above(self.marks.max, reserved.saturating_add(size));
        no_room.then_some(Stop::NoRoom { usage, marks: self.marks, size, reserved })
    }

    /// Bytes that an image takes at least, as far as is known: 0 for one that was neither removed nor found no space.
    pub fn size(&self, key: &TargetKey) -> u64 {
        self.known.get(key).map_or(0, |known| known.size.max(known.refused.map_or(0, |(needs, _)| needs)))
    }

    /// Whether it is known that an image cannot fit, whatever else goes: then nobody makes room for it by waiting.
    pub fn can_never_fit(&self, key: &TargetKey, now: Moment) -> bool {
        let (Some(known), Some(usage)) = (self.known.get(key), self.usage) else { return false };
        let needs = known.refused.filter(|(_, at)| now.since(*at) < REFUSAL_COUNTS).map_or(0, |(needs, _)| needs);
        let alone = u128::from(known.size) * 100;
        needs.saturating_add(usage.capacity / 100) >= usage.capacity
            || (self.is_on() && alone > u128::from(usage.capacity) * u128::from(self.marks.max))
    }

    /// How full the disk is, where it is so near the upper mark that what a pull takes is to be seen before the next one.
    pub fn near(&self) -> Option<Stop> {
        let usage = self.usage.filter(|usage| self.is_on() && !usage.below(self.marks.resume))?;
        Some(Stop::OneAtATime { usage, marks: self.marks })
    }

    /// Whether there is so little space that what is required comes first.
    pub fn is_short(&self, now: Moment) -> bool {
        self.is_on()
            && (self.usage.is_some_and(|usage| !usage.below(self.marks.resume)) || self.node_stop(now).is_some())
    }

    fn is_on(&self) -> bool {
        self.marks.max < 100
    }

    /// Moves between the marks.
    fn settle(&mut self) {
        let Some(usage) = self.usage else { return };
        if usage.above(self.marks.max, 0) {
            self.stopped = true;
        } else if usage.below(self.marks.resume) {
            self.stopped = false;
        }
    }
}

#[cfg(test)]
mod tests;
