//! A node's own moment within the window in which a list's nodes begin: a hash of node and list revision, so that
//! thousands of nodes neither begin at once nor have to agree on anything. Pure.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::desired::Desired;

/// How long this node waits after an edit: from nothing up to `window`, for another revision another time.
pub fn moment(node: &str, revision: &str, window: Duration) -> Duration {
    let hash = Sha256::new().chain_update(node).chain_update([0]).chain_update(revision).finalize();
    let share = hash.iter().take(4).fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    window.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

/// Whether an edit is what made one state out of the other. A list or a label that this node had not heard of before
/// is news to this node alone.
pub fn is_edit(before: &Desired, after: &Desired) -> bool {
    before.revision != after.revision && (before.unknown.is_none() || before.unknown == after.unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_node_hears_late_is_no_edit() {
        let state = |revision: &str, unknown: Option<&str>| Desired {
            revision: revision.into(),
            unknown: unknown.map(str::to_owned),
            ..Desired::default()
        };
        assert!(is_edit(&state("1", None), &state("2", None)));
        assert!(is_edit(&state("1", None), &state("2", Some("labels not known"))), "the first that selects nodes");
        assert!(!is_edit(&state("1", None), &state("1", None)), "nothing changed");
        assert!(!is_edit(&state("1", Some("lists not read")), &state("2", None)), "the lists came");
        assert!(!is_edit(&state("1", Some("lists not read")), &state("2", Some("labels not known"))), "one of two");
        assert!(
            is_edit(&state("1", Some("a list is broken")), &state("2", Some("a list is broken"))),
            "of another list"
        );
    }

    #[test]
    fn nodes_are_spread_evenly_and_anew_for_each_revision() {
        let window = Duration::from_secs(100);
        let early = (0..1000).filter(|n| moment(&format!("node-{n}"), "r1", window) < window / 4).count();
        assert!((200..300).contains(&early), "{early} of 1000 nodes begin in the first quarter");
        assert_ne!(moment("node-1", "r1", window), moment("node-1", "r2", window));
        assert_eq!(moment("node-1", "r1", window), moment("node-1", "r1", window));
        assert_eq!(moment("node-1", "r1", Duration::ZERO), Duration::ZERO);
    }
}
