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

mod observed;
mod slots;

use std::sync::Arc;
use std::time::Duration;

pub use slots::slot_of_try;

use self::observed::{Looked, Observed};
use crate::{clock::Moment, error_text::one_line};

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

/// A slot that this node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    slot: u32,
    version: String,
    /// When the last renewal that came through was sent.
    renewed: Moment,
    /// Whether it may have been given back, for nobody said that it was not: nothing begins before it is renewed.
    doubtful: bool,
    renew_at: Moment,
    /// Not given back before: an attempt failed.
    free_at: Moment,
}

impl Held {
    fn good_until(&self) -> Moment {
        self.renewed + GOOD
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
    Looking { slot: u32, sent: Moment },
    /// Takes a slot.
    Taking { slot: u32, sent: Moment },
    /// Has a slot.
    Holding(Held),
    /// Has a slot and renews it.
    Renewing { held: Held, sent: Moment },
    /// Gives it back.
    Freeing { held: Held },
}

/// How many slots exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    /// The cap for which it was counted.
    cap: u32,
    /// How many of those.
    exist: u32,
    at: Moment,
}

/// Why the cap cannot be what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// No slot can be used, and why.
    NoSlots(String),
    /// The API server does not answer.
    NoAnswer(String),
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
        matches!(self.phase, Phase::Holding(_) | Phase::Renewing { .. } | Phase::Freeing { .. } | Phase::Taking { .. })
    }

    /// What is wrong with the cap, and what to do about it; nothing while it is kept as it is written.
    pub fn problem(&self) -> Option<String> {
        let cap = self.need.cap?;
        match &self.trouble {
            Some(Trouble::NoSlots(why)) => {
                return Some(format!(
                    "limits.pullingNodes is {cap} and no slot can be used, so nothing is pulled: {why}; component cluster-wide-cap creates the slots and grants get and update on them; install it, or take pullingNodes out"
                ));
            }
            Some(Trouble::NoAnswer(why)) => return Some(format!("no slot can be asked for (pullingNodes): {why}")),
            None => {}
        }
        let exist = self.count.filter(|count| count.cap == cap && count.exist < cap)?.exist;
        Some(format!(
            "limits.pullingNodes is {cap} and {exist} slots exist (the Leases prepull-slot-0 to prepull-slot-{}), so at most {exist} nodes pull at once; add Leases and their names to the Role of component cluster-wide-cap, or lower pullingNodes",
            exist.saturating_sub(1)
        ))
    }

    /// What an image waits for that has no slot.
    pub fn sentence(&self) -> String {
        if let Some(Trouble::NoSlots(_) | Trouble::NoAnswer(_)) = &self.trouble {
            return self.problem().unwrap_or_default();
        }
        let slots = self.need.cap.map_or(0, |cap| self.usable(cap));
        let seen = self.holder.as_ref().map_or_else(String::new, |(slot, holder)| {
            format!("; slot {slot}, looked at last, is held by {}", one_line(holder))
        });
        format!("waiting for one of the {slots} slots of all nodes (pullingNodes){seen}")
    }

    /// Acts on what the node needs.
    fn settle(&mut self, now: Moment, random: f64) -> Option<Ask> {
        let wanted = self.need.cap.filter(|_| self.need.wants);
        match &self.phase {
            Phase::Idle => {
                wanted?;
                self.phase = Phase::Waiting { until: now + FIRST_LOOK.mul_f64(random) };
                None
            }
            Phase::Waiting { until } => match wanted {
                None => {
                    self.phase = Phase::Idle;
                    // what was wrong is wrong again when it matters again
                    self.trouble = None;
                    None
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

    /// Whether a slot stays with this node. One beyond a lowered cap does until the pulls that began with it have ended.
    fn keeps(&self, held: &Held) -> bool {
        let Need { cap, wants, pulling } = self.need;
        cap.is_some_and(|cap| pulling || (wants && held.slot < cap))
    }

    /// How many slots there are to look at.
    fn usable(&self, cap: u32) -> u32 {
        self.count.filter(|count| count.cap == cap).map_or(cap, |count| count.exist)
    }

    /// Looks at the slot whose turn it is, or first counts them.
    fn look(&mut self, cap: u32, now: Moment) -> Ask {
        let known = self.count.filter(|c| c.cap == cap && (c.exist == cap || now.since(c.at) < RECOUNT));
        let Some(count) = known else {
            // the last one tells at once whether all are there
            let asked = cap.saturating_sub(1);
            self.phase = Phase::Counting { cap, exist: 0, most: cap, asked };
            return Ask::Look(asked);
        };
        let slot = match &self.looked {
            // it seems to be nobody's any more: stays with it
            Some(looked) if looked.stays && looked.slot < count.exist => looked.slot,
            Some(_) | None => slot_of_try(&self.node, self.tries, count.exist),
        };
        self.phase = Phase::Looking { slot, sent: now };
        Ask::Look(slot)
    }

    fn answered(&mut self, answer: Answer, now: Moment, random: f64) -> Option<Ask> {
        match std::mem::take(&mut self.phase) {
            Phase::Counting { cap, exist, most, asked } => self.counted(cap, (exist, most), asked, answer, now, random),
            Phase::Looking { slot, sent } => self.looked_at(slot, sent, answer, now, random),
            Phase::Taking { slot, sent } => {
                match answer {
                    Answer::Slot { version, .. } => {
                        self.held(slot, version, sent);
                        self.looked = None;
                        self.tries += 1;
                    }
                    Answer::Conflict => {
                        self.looked = None;
                        self.tries += 1;
                        self.wait(LOOK, now, random);
                    }
                    // if it was written after all, the next look at the same slot finds this node there
                    Answer::NoAnswer(_) | Answer::Missing | Answer::Forbidden(_) => {
                        self.no_slot(slot, answer, now, random);
                    }
                }
                None
            }
            Phase::Renewing { held, sent } => match answer {
                Answer::Slot { version, .. } => {
                    self.held(held.slot, version, sent);
                    None
                }
                // an earlier renewal came through unheard, or another node took it: looking tells
                Answer::Conflict => {
                    self.phase = Phase::Looking { slot: held.slot, sent: now };
                    Some(Ask::Look(held.slot))
                }
                Answer::NoAnswer(why) => {
                    self.trouble = Some(Trouble::NoAnswer(why));
                    self.phase = Phase::Holding(Held { renew_at: now + RETRY, ..held });
                    None
                }
                Answer::Missing | Answer::Forbidden(_) => {
                    self.no_slot(held.slot, answer, now, random);
                    None
                }
            },
            Phase::Freeing { held } => {
                // one that nobody gave back is taken when it has expired
                if matches!(answer, Answer::NoAnswer(_)) && now < held.good_until() {
                    let again = now + RETRY;
                    self.phase = Phase::Holding(Held { doubtful: true, renew_at: again, free_at: again, ..held });
                }
                None
            }
            // nothing was asked
            other @ (Phase::Idle | Phase::Waiting { .. } | Phase::Holding(_)) => {
                self.phase = other;
                None
            }
        }
    }

    fn held(&mut self, slot: u32, version: String, sent: Moment) {
        self.trouble = None;
        self.holder = None;
        let renew_at = sent + RENEWAL;
        self.phase = Phase::Holding(Held { slot, version, renewed: sent, doubtful: false, renew_at, free_at: sent });
    }

    /// Halves what is not known of how many slots exist.
    fn counted(
        &mut self,
        cap: u32,
        (exist, most): (u32, u32),
        asked: u32,
        answer: Answer,
        now: Moment,
        random: f64,
    ) -> Option<Ask> {
        let (exist, most) = match answer {
            Answer::Slot { .. } => (asked + 1, most),
            Answer::Missing | Answer::Forbidden(_) if asked > 0 => (exist, asked),
            Answer::Missing | Answer::Forbidden(_) | Answer::Conflict | Answer::NoAnswer(_) => {
                self.no_slot(asked, answer, now, random);
                return None;
            }
        };
        if exist < most {
            let asked = exist + (most - exist) / 2;
            self.phase = Phase::Counting { cap, exist, most, asked };
            return Some(Ask::Look(asked));
        }
        self.count = Some(Count { cap, exist, at: now });
        self.trouble = None;
        // the look that this was for comes at once
        self.phase = Phase::Waiting { until: now };
        None
    }

    fn looked_at(&mut self, slot: u32, sent: Moment, answer: Answer, now: Moment, random: f64) -> Option<Ask> {
        let Answer::Slot { version, holder } = answer else {
            self.no_slot(slot, answer, now, random);
            return None;
        };
        self.trouble = None;
        let Need { cap, wants, pulling } = self.need;
        let wanted = wants && cap.is_some_and(|cap| slot < cap);
        let expired = self.looked.as_ref().is_some_and(|l| l.slot == slot && l.expired(&version, sent));
        match holder {
            // its own, from a write whose answer was lost or from before a restart
            Some(holder) if *holder == *self.node => {
                if wanted || (pulling && cap.is_some()) {
                    return Some(self.take(slot, version, now));
                }
                let ask = Ask::Free(slot, version.clone());
                let held = Held { slot, version, renewed: sent, doubtful: true, renew_at: now, free_at: now };
                self.phase = Phase::Freeing { held };
                return Some(ask);
            }
            None if wanted => return Some(self.take(slot, version, now)),
            Some(_) if expired && wanted => return Some(self.take(slot, version, now)),
            None => self.tries += 1,
            Some(holder) => {
                self.holder = Some((slot, holder.into()));
                let looked = Looked::again(self.looked.take(), slot, version, now, |version| {
                    self.observed.unchanged_for(version, sent) >= RENEWAL * 2
                });
                if !looked.stays {
                    self.tries += 1;
                }
                self.looked = Some(looked);
            }
        }
        self.wait(LOOK, now, random);
        None
    }

    fn take(&mut self, slot: u32, version: String, now: Moment) -> Ask {
        self.phase = Phase::Taking { slot, sent: now };
        Ask::Hold(slot, version)
    }

    /// A request about a slot went wrong.
    fn no_slot(&mut self, slot: u32, answer: Answer, now: Moment, random: f64) {
        let why = match answer {
            Answer::NoAnswer(why) => {
                self.trouble = Some(Trouble::NoAnswer(why));
                return self.wait(LOOK, now, random);
            }
            // another node was faster
            Answer::Slot { .. } | Answer::Conflict => return self.wait(LOOK, now, random),
            Answer::Missing => format!("the Lease prepull-slot-{slot} does not exist"),
            Answer::Forbidden(why) => format!("a right is absent: {why}"),
        };
        // how many there are is to be found out anew
        self.count = None;
        self.looked = None;
        self.trouble = Some(Trouble::NoSlots(why));
        self.phase = Phase::Waiting { until: now + NO_SLOTS.mul_f64(1.0 + random) };
    }

    fn wait(&mut self, least: Duration, now: Moment, random: f64) {
        self.phase = Phase::Waiting { until: now + least + least.mul_f64(2.0 * random) };
    }
}

#[cfg(test)]
mod tests;
