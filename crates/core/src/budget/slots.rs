//! Which slot a node looks at when.

use sha2::{Digest as _, Sha256};

/// The slot of a node's `number`th try among so many slots: within as many tries each of them comes once, in an order
/// of the node's own that is another one each round. There must be one at least.
pub fn slot_of_try(node: &str, number: u64, slots: u32) -> u32 {
    let slots = u64::from(slots.max(1));
    let (round, place) = (number / slots, number % slots);
    let hash = Sha256::new().chain_update(node).chain_update([0]).chain_update(round.to_be_bytes()).finalize();
    let part = |from: usize| hash.iter().skip(from).take(4).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let (first, mut stride) = (part(0) % slots, 1 + part(4) % slots);
    // only a stride that has no divisor in common with the number of slots comes by all of them
    while common_divisor(stride, slots) != 1 {
        stride += 1;
    }
    u32::try_from((first + place * stride) % slots).unwrap_or(0)
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_round_comes_by_every_slot_and_nodes_differ() {
        for slots in [1, 2, 7, 50, 64] {
            for round in 0..3 {
                let seen: BTreeSet<u32> =
                    (0..u64::from(slots)).map(|i| slot_of_try("node-1", round * u64::from(slots) + i, slots)).collect();
                assert_eq!(seen, (0..slots).collect(), "{slots} slots, round {round}");
            }
        }
        let first: BTreeSet<u32> = (0..200).map(|n| slot_of_try(&format!("node-{n}"), 0, 50)).collect();
        assert!(first.len() > 40, "200 nodes begin at {} of 50 slots", first.len());
        assert_ne!(
            (0..50).map(|i| slot_of_try("node-1", i, 50)).collect::<Vec<_>>(),
            (50..100).map(|i| slot_of_try("node-1", i, 50)).collect::<Vec<_>>()
        );
    }
}
