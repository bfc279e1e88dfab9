//! The cap `pullingNodes`: a semaphore of Leases that exist before anybody wants one, `prepull-slot-0` and so on. Who
//! holds one may pull; nobody hands them out.
//!
//! A node that wants to pull looks at one slot every 10 to 30 seconds, another one each time, and takes one that is
//! free. It holds one slot for all its pulls, renews it, and gives it back when nothing is left to pull. Each write
//! carries the version that was read, so of two that take the same slot one is refused.
//!
//! Nothing compares clocks. A holder counts from the moment at which it *sent* a renewal, and begins nothing once
//! [`GOOD`] has passed; another node counts from the moment at which it *had read* a version, and takes the slot when
//! it finds the same version [`EXPIRY`] later. The first count begins before the write and the second one after it, so a
//! holder has stopped beginning pulls before its slot can be taken, whatever the clocks say.
//!
//! Pure: [`Budget::step`] gets what happened, the time and a random number, and says what to ask the API server.

mod holding;
mod observed;
mod slots;
mod waiting;
mod words;

use std::sync::Arc;
use std::time::Duration;

pub use slots::slot_of_try;
pub use words::{names, remedy};

use self::{
    holding::Held,
    observed::{Looked, Observed},
    waiting::Count,
    words::{Hole, Trouble},
};
use crate::clock::Moment;

/// From one renewal of a held slot to the next.
pub const RENEWAL: Duration = Duration::from_secs(15);
/// A holder begins no pull when its last renewal was sent so long ago.
pub const GOOD: Duration = Duration::from_secs(40);
/// A slot whose version was the same for so long may be taken.
pub const EXPIRY: Duration = Duration::from_mins(1);
/// A renewal or return that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// The first look comes at a random moment within this: an edit reaches all nodes at once.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// The next looks come after this and up to twice this more.
const LOOK: Duration = Duration::from_secs(10);
/// Where no slot can be used it is looked again after this and up to as long again.
const NO_SLOTS: Duration = Duration::from_mins(1);
/// Where slots are missing they are counted again after this.
const RECOUNT: Duration = Duration::from_mins(10);

/// What the node needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Need {
    /// `pullingNodes`; none: no cap.
    pub cap: Option<u32>,
    /// Something would begin if a slot were held.
    pub wants: bool,
    /// Pulls are under way.
    pub pulling: bool,
}

/// A request about one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Read it.
    Look(u32),
    /// Make this node its holder, or say that it still is, if the slot has this version.
    Hold(u32, String),
    /// Make it free, if it has this version.
    Free(u32, String),
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The slot as it was read or written.
    Slot {
        /// Its version, which every write changes.
        version: String,
        /// The node that holds it.
        holder: Option<String>,
    },
    /// It had another version, so nothing was written.
    Conflict,
    /// There is no such slot.
    Missing,
    /// The right to it is absent; what the API server says.
    Forbidden(String),
    /// Whether anything was done is not known.
    NoAnswer(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The node needs this now.
    Need(Need),
    /// The request that was made last was answered.
    Answer(Answer),
}

/// Whether a pull may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Admission {
    /// There is no cap.
    #[default]
    Open,
    /// A slot is held, good until this moment unless it is renewed.
    Until(Moment),
    /// No slot is held.
    Closed,
}

impl Admission {
    /// Whether a pull may begin now.
    pub fn admits(self, now: Moment) -> bool {
        match self {
            Self::Open => true,
            Self::Until(moment) => now < moment,
            Self::Closed => false,
        }
    }
}

/// Where the node stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Phase {
    /// No slot, and none wanted.
    #[default]
    Idle,
    /// No slot; the next look comes then.
    Waiting { until: Moment },
    /// Finds out how many of the cap's slots exist: at least `exist`, at most `most`.
    Counting { cap: u32, exist: u32, most: u32, asked: u32 },
    /// Looks at a slot.
    Looking {
        slot: u32,
        sent: Moment,
        /// Whether this node held it, and may still.
        mine: bool,
    },
    /// Takes a slot.
    Taking { slot: u32, sent: Moment },
    /// Has a slot.
    Holding(Held),
    /// Has a slot and renews it.
    Renewing { held: Held, sent: Moment },
    /// Gives it back.
    Freeing { held: Held },
}

/// One node's part in the cap.
#[derive(Debug, Clone)]
pub struct Budget {
    node: Arc<str>,
    need: Need,
    phase: Phase,
    /// Slots looked at so far, or passed over.
    tries: u64,
    count: Option<Count>,
    /// Whether the next look is the first one since there was something to pull.
    first: bool,
    /// Looks in a row that found no slot.
    misses: u32,
    /// A slot that was missed.
    hole: Option<Hole>,
    /// The slot that was seen last, while its version stays the same.
    looked: Option<Looked>,
    observed: Observed,
    /// Who held the slot that was looked at last.
    holder: Option<(u32, Arc<str>)>,
    trouble: Option<Trouble>,
}

impl Budget {
    /// Of a node that holds nothing yet.
    pub fn new(node: Arc<str>) -> Self {
        Self {
            node,
            need: Need::default(),
            phase: Phase::Idle,
            tries: 0,
            count: None,
            first: false,
            misses: 0,
            hole: None,
            looked: None,
            observed: Observed::default(),
            holder: None,
            trouble: None,
        }
    }

    /// Takes in what happened. The request that comes back is to be made, and its answer told; there is never another
    /// one before that. `random` is from 0 to 1.
    #[must_use]
    pub fn step(&mut self, event: Event, now: Moment, random: f64) -> Option<Ask> {
        match event {
            Event::Need(need) => self.need = need,
            Event::Answer(answer) => {
                if let Answer::Slot { version, .. } = &answer {
                    self.observed.saw(version, now);
                }
                if !matches!(answer, Answer::NoAnswer(_)) {
                    self.trouble.take_if(|trouble| matches!(trouble, Trouble::NoAnswer { .. }));
                }
                let ask = self.answered(answer, now, random);
                if ask.is_some() {
                    return ask;
                }
            }
        }
        self.settle(now, random)
    }

    /// Whether a pull may begin under this cap, which may be newer than the one that was told last.
    pub fn admission(&self, cap: Option<u32>) -> Admission {
        let Some(cap) = cap else { return Admission::Open };
        match &self.phase {
            Phase::Holding(held) | Phase::Renewing { held, .. } if held.slot < cap && !held.doubtful => {
                Admission::Until(held.good_until())
            }
            Phase::Holding(_)
            | Phase::Renewing { .. }
            | Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Counting { .. }
            | Phase::Looking { .. }
            | Phase::Taking { .. }
            | Phase::Freeing { .. } => Admission::Closed,
        }
    }

    /// When there is something to do without anything else happening.
    pub fn wake(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Holding(held) => Some(if self.keeps(held) { held.renew_at } else { held.free_at }),
            Phase::Idle
            | Phase::Counting { .. }
            | Phase::Looking { .. }
            | Phase::Taking { .. }
            | Phase::Renewing { .. }
            | Phase::Freeing { .. } => None,
        }
    }

    /// Whether a slot is held or may be: it is worth giving back.
    pub fn holds(&self) -> bool {
        match self.phase {
            Phase::Holding(_) | Phase::Renewing { .. } | Phase::Freeing { .. } | Phase::Taking { .. } => true,
            Phase::Looking { mine, .. } => mine,
            Phase::Idle | Phase::Waiting { .. } | Phase::Counting { .. } => false,
        }
    }

    /// Acts on what the node needs.
    fn settle(&mut self, now: Moment, random: f64) -> Option<Ask> {
        let wanted = self.need.cap.filter(|_| self.need.wants);
        match &self.phase {
            Phase::Idle => {
                if wanted.is_none() {
                    // what was wrong is wrong again when it matters again
                    (self.trouble, self.hole, self.misses) = (None, None, 0);
                    return None;
                }
                self.first = true;
                self.phase = Phase::Waiting { until: now + FIRST_LOOK.mul_f64(random) };
                None
            }
            Phase::Waiting { until } => match wanted {
                None => {
                    self.phase = Phase::Idle;
                    self.settle(now, random)
                }
                Some(_) if now < *until => None,
                Some(cap) => Some(self.look(cap, now)),
            },
            Phase::Holding(held) => {
                let (keeps, held) = (self.keeps(held), held.clone());
                if keeps && now >= held.renew_at {
                    let ask = Ask::Hold(held.slot, held.version.clone());
                    self.phase = Phase::Renewing { held, sent: now };
                    return Some(ask);
                }
                if !keeps && now >= held.free_at {
                    let ask = Ask::Free(held.slot, held.version.clone());
                    self.phase = Phase::Freeing { held };
                    return Some(ask);
                }
                None
            }
            Phase::Counting { .. }
            | Phase::Looking { .. }
            | Phase::Taking { .. }
            | Phase::Renewing { .. }
            | Phase::Freeing { .. } => None,
        }
    }

    fn answered(&mut self, answer: Answer, now: Moment, random: f64) -> Option<Ask> {
        match std::mem::take(&mut self.phase) {
            Phase::Counting { cap, exist, most, asked } => self.counted(cap, (exist, most), asked, answer, now, random),
            Phase::Looking { slot, sent, mine } => self.looked_at((slot, sent, mine), answer, now, random),
            Phase::Taking { slot, sent } => self.taken(slot, sent, answer, now, random),
            Phase::Renewing { held, sent } => self.renewed(held, sent, answer, now, random),
            Phase::Freeing { held } => self.freed(held, &answer, now),
            // nothing was asked
            other @ (Phase::Idle | Phase::Waiting { .. } | Phase::Holding(_)) => {
                self.phase = other;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
