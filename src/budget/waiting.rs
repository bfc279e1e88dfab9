//! The waiter's side: slots are counted, looked at in turn, and a free one is taken.

use std::time::Duration;

use super::{
    Answer, Ask, Budget, LOOK, NO_SLOTS, Need, Phase, RECOUNT, RENEWAL, holding::Held, observed::Looked, slot_of_try,
    words::Trouble,
};
use crate::clock::Moment;

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
    /// How many slots there are to look at.
    pub(super) fn usable(&self, cap: u32) -> u32 {
        self.count.filter(|count| count.cap == cap).map_or(cap, |count| count.exist)
    }

    /// Looks at the slot whose turn it is, or first counts them.
    pub(super) fn look(&mut self, cap: u32, now: Moment) -> Ask {
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

    /// Taking a slot was answered.
    pub(super) fn taken(&mut self, slot: u32, sent: Moment, answer: Answer, now: Moment, random: f64) {
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

    pub(super) fn looked_at(
        &mut self,
        slot: u32,
        sent: Moment,
        answer: Answer,
        now: Moment,
        random: f64,
    ) -> Option<Ask> {
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

    pub(super) fn take(&mut self, slot: u32, version: String, now: Moment) -> Ask {
        self.phase = Phase::Taking { slot, sent: now };
        Ask::Hold(slot, version)
    }

    /// A request about a slot went wrong.
    pub(super) fn no_slot(&mut self, slot: u32, answer: Answer, now: Moment, random: f64) {
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

    pub(super) fn wait(&mut self, least: Duration, now: Moment, random: f64) {
        self.phase = Phase::Waiting { until: now + least + least.mul_f64(2.0 * random) };
    }
}
