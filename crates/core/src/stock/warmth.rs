//! Whether the node is warm, and in one sentence why not.

use crate::{
    desired::{Desired, RowKind},
    error_text::one_line,
};

/// How far the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmth {
    /// Whether a list was read and every required entry for this node is in the store.
    pub warm: bool,
    /// Required images that are in the store.
    pub present: usize,
    /// Required images.
    pub required: usize,
    /// Why the node is not warm; empty when it is.
    pub reason: String,
}

/// How many names a reason gives.
const NAMES_IN_REASON: usize = 3;

impl Warmth {
    pub(super) fn of(desired: &Desired, list_read: bool, looked: bool, stored: impl Fn(usize) -> bool) -> Self {
        let (mut present, mut required) = (0, 0);
        let mut missing: Vec<&str> = Vec::new();
        let mut counted = vec![false; desired.targets.len()];
        for row in &desired.rows {
            let there = match &row.kind {
                RowKind::NotForThisNode
                | RowKind::Invalid { required: false, .. }
                | RowKind::Undecided { required: false } => continue,
                RowKind::Invalid { required: true, .. } | RowKind::Undecided { required: true } => false,
                RowKind::Target(index) => {
                    let first = !std::mem::replace(&mut counted[*index], true);
                    if !first || !desired.targets[*index].required {
                        continue;
                    }
                    stored(*index)
                }
            };
            required += 1;
            if there {
                present += 1;
            } else {
                missing.push(&row.image);
            }
        }
        let reason = if !list_read {
            "no list was read yet".to_owned()
        } else if let Some(unknown) = &desired.unknown {
            unknown.clone()
        } else if !looked && !desired.targets.is_empty() {
            "the runtime's store was not looked at yet".to_owned()
        } else if missing.is_empty() {
            String::new()
        } else {
            let names: Vec<_> = missing.iter().take(NAMES_IN_REASON).map(|n| one_line(n)).collect();
            let more = missing.len() - names.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("{present} of {required} required images are present; missing: {}{more}", names.join(", "))
        };
        Self { warm: reason.is_empty(), present, required, reason }
    }
}
