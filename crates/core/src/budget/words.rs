//! What is wrong with the cap, in words for people.

use std::time::Duration;

use super::Budget;
use crate::{clock::Moment, error_text::one_line};

/// An API server that does not answer for so long is worth a word.
const SILENCE: Duration = Duration::from_mins(1);

/// Why the cap cannot be what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No slot can be used, and why.
    NoSlots(String),
    /// The API server does not answer, and since when.
    NoAnswer { why: String, since: Moment },
}

/// One slot that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) slot: u32,
    pub(super) why: String,
}

/// `prepull-slot-0 to prepull-slot-49`.
pub fn names(slots: u32) -> String {
    match slots {
        0 | 1 => "prepull-slot-0".to_owned(),
        _ => format!("prepull-slot-0 to prepull-slot-{}", slots - 1),
    }
}

/// Where so many slots come from.
pub fn remedy(slots: u32) -> String {
    format!(
        "component cluster-wide-cap has 50, `hack/slots {slots}` prints {slots}, and with Helm it is clusterWideCap.slots={slots}"
    )
}

impl Budget {
    /// Notes that the API server did not answer.
    pub(super) fn unanswered(&mut self, why: String, now: Moment) {
        let since = match self.trouble {
            Some(Trouble::NoAnswer { since, .. }) => since,
            Some(Trouble::NoSlots(_)) | None => now,
        };
        self.trouble = Some(Trouble::NoAnswer { why, since });
    }

    /// What is wrong with the slots, and what to do about it; nothing while the cap is kept as it is written. That the
    /// API server does not answer for a while is no mistake in a list.
    pub fn problem(&self) -> Option<String> {
        let cap = self.need.cap?;
        if let Some(Trouble::NoSlots(why)) = &self.trouble {
            return Some(format!(
                "limits.pullingNodes is {cap} and no slot can be used, so nothing is pulled: {why}; create the slots and the right to get and update them ({}), or take pullingNodes out",
                remedy(cap)
            ));
        }
        let count = self.count.filter(|count| count.cap == cap)?;
        if let Some(Hole { slot, why }) = &self.hole {
            return Some(format!(
                "limits.pullingNodes is {cap} and slot {slot} cannot be used, so fewer nodes pull at once: {why}; create it ({})",
                remedy(cap)
            ));
        }
        let exist = Some(count.exist).filter(|exist| *exist < cap)?;
        let (there, leases, pull) = match exist {
            1 => ("1 slot exists".to_owned(), "Lease", "1 node pulls".to_owned()),
            _ => (format!("{exist} slots exist"), "Leases", format!("{exist} nodes pull")),
        };
        Some(format!(
            "limits.pullingNodes is {cap} and {there} (the {leases} {}), so at most {pull} at once; create more ({}), or lower pullingNodes",
            names(exist),
            remedy(cap)
        ))
    }

    /// Why no slot can be asked for, where that lasts.
    pub fn silence(&self, now: Moment) -> Option<&str> {
        match &self.trouble {
            Some(Trouble::NoAnswer { why, since }) if now.since(*since) >= SILENCE => Some(why),
            Some(Trouble::NoAnswer { .. } | Trouble::NoSlots(_)) | None => None,
        }
    }

    /// What an image waits for that has no slot.
    pub fn sentence(&self) -> String {
        match &self.trouble {
            Some(Trouble::NoSlots(_)) => return self.problem().unwrap_or_default(),
            Some(Trouble::NoAnswer { why, .. }) => return format!("no slot can be asked for (pullingNodes): {why}"),
            None => {}
        }
        let slots = match self.need.cap.map_or(0, |cap| self.usable(cap)) {
            1 => "the one slot".to_owned(),
            slots => format!("one of the {slots} slots"),
        };
        let seen = self.holder.as_ref().map_or_else(String::new, |(slot, holder)| {
            format!("; slot {slot}, looked at last, is held by {}", one_line(holder))
        });
        format!("waiting for {slots} of all nodes (pullingNodes){seen}")
    }
}
