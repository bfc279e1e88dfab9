//! The waiter's side: slots are looked at in turn, a free one is taken, and what is missing is found out.

use std::time::Duration;

use super::{
    Answer, Ask, Budget, LOOK, NO_SLOTS, Need, Phase, RECOUNT, RENEWAL,
    holding::Held,
    observed::Looked,
    slot_of_try,
    words::{Hole, Trouble},
};
use crate::clock::Moment;

/// So many slots in a row that are not there make it doubtful that the others are.
const DOUBTFUL: u32 = 2;

/// How many slots exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    /// The cap for which it was counted.
    pub(super) cap: u32,
    /// How many of those.
    pub(super) exist: u32,
    at: Moment,
}

impl Budget {
    fn count_of(&self, cap: u32) -> Option<Count> {
        self.count.filter(|count| count.cap == cap)
    }

    /// How many slots there are to look at.
    pub(super) fn usable(&self, cap: u32) -> u32 {
        self.count_of(cap).map_or(cap, |count| count.exist)
    }

    /// Looks at the slot whose turn it is, or first counts them. The first look counts nothing: an edit brings it to
    /// all nodes at once, and most of them find all slots there.
    pub(super) fn look(&mut self, cap: u32, now: Moment) -> Ask {
        let first = std::mem::take(&mut self.first);
        let known = self.count_of(cap).is_some_and(|c| c.exist == cap || now.since(c.at) < RECOUNT);
        if !known && !first {
            return self.begin_count(cap);
        }
        let exist = self.usable(cap);
        let slot = match &self.looked {
            // it seems to be nobody's any more: stays with it
            Some(looked) if looked.stays && looked.slot < exist => looked.slot,
            Some(_) | None => slot_of_try(&self.node, self.tries, exist),
        };
        self.phase = Phase::Looking { slot, sent: now, mine: false };
        Ask::Look(slot)
    }

    /// Counts the slots, if that was not done for this cap.
    pub(super) fn count_once(&mut self) -> Option<Ask> {
        let cap = self.need.cap.filter(|cap| self.count_of(*cap).is_none())?;
        Some(self.begin_count(cap))
    }

    fn begin_count(&mut self, cap: u32) -> Ask {
        // the last one tells at once whether all are there
        let asked = cap.saturating_sub(1);
        self.phase = Phase::Counting { cap, exist: 0, most: cap, asked };
        Ask::Look(asked)
    }

    /// Halves what is not known of how many slots exist.
    pub(super) fn counted(
        &mut self,
        cap: u32,
        (exist, most): (u32, u32),
        asked: u32,
        answer: Answer,
        now: Moment,
        random: f64,
    ) -> Option<Ask> {
        let (exist, most) = match answer {
            Answer::Slot { .. } => {
                self.exists(asked);
                (asked + 1, most)
            }
            Answer::Missing | Answer::Forbidden(_) if asked > 0 => (exist, asked),
            Answer::Missing | Answer::Forbidden(_) => {
                self.no_slots(why(asked, &answer), now, random);
                return None;
            }
            nothing @ (Answer::NoAnswer(_) | Answer::Conflict) => {
                self.told_nothing(nothing, now, random);
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
        self.misses = 0;
        // one beyond those that exist is told by their number
        self.hole.take_if(|hole| hole.slot >= exist);
        // the look that this was for comes at once
        self.phase = Phase::Waiting { until: now };
        None
    }

    /// A look was answered.
    pub(super) fn looked_at(
        &mut self,
        (slot, sent, mine): (u32, Moment, bool),
        answer: Answer,
        now: Moment,
        random: f64,
    ) -> Option<Ask> {
        let (version, holder) = match answer {
            Answer::Slot { version, holder } => (version, holder),
            Answer::Missing | Answer::Forbidden(_) => return self.missed(slot, answer, now, random),
            nothing @ (Answer::NoAnswer(_) | Answer::Conflict) => {
                self.told_nothing(nothing, now, random);
                return None;
            }
        };
        self.exists(slot);
        self.misses = 0;
        let Need { cap, wants, pulling } = self.need;
        if let Some(cap) = cap.filter(|cap| slot + 1 == *cap) {
            // the last one is there, as a count would have found
            self.count = Some(Count { cap, exist: cap, at: now });
        }
        let below = cap.is_some_and(|cap| slot < cap);
        let wanted = below && wants;
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
            // one that was deleted while it was held, and made again, is free: pulls that began with it take it back
            None if wanted || (below && mine && pulling) => return Some(self.take(slot, version, now)),
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
        // not before a slot that is to be taken is: the right to write may be absent
        self.trouble = None;
        self.wait(LOOK, now, random);
        None
    }

    fn take(&mut self, slot: u32, version: String, now: Moment) -> Ask {
        self.phase = Phase::Taking { slot, sent: now };
        Ask::Hold(slot, version)
    }

    /// Taking a slot was answered.
    pub(super) fn taken(&mut self, slot: u32, sent: Moment, answer: Answer, now: Moment, random: f64) -> Option<Ask> {
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
            Answer::NoAnswer(_) => self.told_nothing(answer, now, random),
            Answer::Missing => return self.missed(slot, answer, now, random),
            // it was read: counting would find all there, and none can be taken
            Answer::Forbidden(_) => {
                self.tries += 1;
                self.no_slots(why(slot, &answer), now, random);
            }
        }
        None
    }

    /// One slot cannot be used. That says nothing about the others, unless it is not the only one, or nothing is known
    /// of how many there are: then they are counted.
    pub(super) fn missed(&mut self, slot: u32, answer: Answer, now: Moment, random: f64) -> Option<Ask> {
        self.looked = None;
        self.tries += 1;
        self.misses += 1;
        self.hole = Some(Hole { slot, why: why(slot, &answer) });
        self.wait(LOOK, now, random);
        let cap = self.need.cap.filter(|cap| self.misses >= DOUBTFUL || self.count_of(*cap).is_none())?;
        let ask = self.begin_count(cap);
        if ask == Ask::Look(slot) {
            return self.counted(cap, (0, cap), slot, answer, now, random);
        }
        Some(ask)
    }

    /// A slot was seen that may have been missed before.
    fn exists(&mut self, slot: u32) {
        self.hole.take_if(|hole| hole.slot == slot);
    }

    /// An answer that says nothing of a slot: it is asked about again later.
    fn told_nothing(&mut self, answer: Answer, now: Moment, random: f64) {
        if let Answer::NoAnswer(why) = answer {
            self.unanswered(why, now);
        }
        self.wait(LOOK, now, random);
    }

    /// None can be used.
    fn no_slots(&mut self, why: String, now: Moment, random: f64) {
        // how many there are is to be found out anew
        (self.count, self.looked, self.hole) = (None, None, None);
        // a count by halves may have missed those between gaps, so looks go on in turn
        (self.first, self.misses) = (true, 0);
        self.trouble = Some(Trouble::NoSlots(why));
        self.phase = Phase::Waiting { until: now + NO_SLOTS.mul_f64(1.0 + random) };
    }

    fn wait(&mut self, least: Duration, now: Moment, random: f64) {
        self.phase = Phase::Waiting { until: now + least + least.mul_f64(2.0 * random) };
    }
}

/// Why a slot cannot be used.
fn why(slot: u32, answer: &Answer) -> String {
    match answer {
        Answer::Forbidden(why) => format!("a right is absent: {why}"),
        Answer::Missing | Answer::Slot { .. } | Answer::Conflict | Answer::NoAnswer(_) => {
            format!("the Lease prepull-slot-{slot} does not exist")
        }
    }
}
