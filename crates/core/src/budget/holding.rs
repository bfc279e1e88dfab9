//! The holder's side: a slot is renewed, and given back when nothing is left to pull.

use super::{Answer, Ask, Budget, GOOD, Need, Phase, RENEWAL, RETRY};
use crate::clock::Moment;

/// A slot that this node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) slot: u32,
    pub(super) version: String,
    /// When the last renewal that came through was sent.
    pub(super) renewed: Moment,
    /// Whether it may have been given back, for nobody said that it was not: nothing begins before it is renewed.
    pub(super) doubtful: bool,
    pub(super) renew_at: Moment,
    /// Not given back before: an attempt failed.
    pub(super) free_at: Moment,
}

impl Held {
    pub(super) fn good_until(&self) -> Moment {
        self.renewed + GOOD
    }
}

impl Budget {
    /// Whether a slot stays with this node. One beyond a lowered cap does until the pulls that began with it have ended.
    pub(super) fn keeps(&self, held: &Held) -> bool {
        let Need { cap, wants, pulling } = self.need;
        cap.is_some_and(|cap| pulling || (wants && held.slot < cap))
    }

    pub(super) fn held(&mut self, slot: u32, version: String, sent: Moment) {
        self.trouble = None;
        self.holder = None;
        let renew_at = sent + RENEWAL;
        self.phase = Phase::Holding(Held { slot, version, renewed: sent, doubtful: false, renew_at, free_at: sent });
    }

    /// A renewal was answered.
    pub(super) fn renewed(
        &mut self,
        held: Held,
        sent: Moment,
        answer: Answer,
        now: Moment,
        random: f64,
    ) -> Option<Ask> {
        match answer {
            Answer::Slot { version, .. } => {
                self.held(held.slot, version, sent);
                None
            }
            // an earlier renewal came through unheard, another node took it, or it was made anew
            Answer::Conflict => Some(self.look_for_own(held.slot, now)),
            Answer::NoAnswer(why) => {
                self.unanswered(why, now);
                self.phase = Phase::Holding(Held { renew_at: now + RETRY, ..held });
                None
            }
            Answer::Missing | Answer::Forbidden(_) => self.missed(held.slot, answer, now, random),
        }
    }

    /// A slot was given back, or not.
    pub(super) fn freed(&mut self, held: Held, answer: &Answer, now: Moment) -> Option<Ask> {
        match answer {
            // who found a free one at once does not know whether all are there, and says so if not
            Answer::Slot { .. } => self.count_once(),
            // a renewal that was given up came through after all: it may still be this node's
            Answer::Conflict => Some(self.look_for_own(held.slot, now)),
            Answer::NoAnswer(_) if now < held.good_until() => {
                let again = now + RETRY;
                self.phase = Phase::Holding(Held { doubtful: true, renew_at: again, free_at: again, ..held });
                None
            }
            // one that nobody gave back is taken when it has expired
            Answer::NoAnswer(_) | Answer::Missing | Answer::Forbidden(_) => None,
        }
    }

    /// Looking tells whose a slot is.
    fn look_for_own(&mut self, slot: u32, now: Moment) -> Ask {
        self.phase = Phase::Looking { slot, sent: now, mine: true };
        Ask::Look(slot)
    }
}
