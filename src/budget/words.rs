//! What is wrong with the cap, in words for people.

use super::Budget;
use crate::error_text::one_line;

/// Why the cap cannot be what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// No slot can be used, and why.
    NoSlots(String),
    /// The API server does not answer.
    NoAnswer(String),
}

impl Budget {
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
}
