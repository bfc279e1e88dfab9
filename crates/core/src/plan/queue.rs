//! The order in which images that are due get their turn, so that images which fail again and again never keep the others waiting.
//!
//! - **First tries** go by priority, then in the order of the list.
//! - **Retries** (images that failed before, and refreshes) go by priority; within a priority the fewest failures first, and refreshes
//!   last. A retry that
//!   has been due for [`OVERDUE`] goes before the others, the longest due first.
//! - The two kinds **take turns**: after a retry the next pull to begin is a first try, if one can begin.
//!
//! So an image that was never tried waits for at most two starts for each first try before it, and a retry for [`OVERDUE`] and then two
//! starts for each retry that has been due for longer. However many images fail, and whatever their priority, every image gets its turn.

use std::{cmp::Reverse, collections::VecDeque, time::Duration};

use crate::{clock::Moment, desired::Target, image_state::ImageState};

/// A retry that has been due for so long goes before all others.
pub const OVERDUE: Duration = Duration::from_mins(10);

/// Returns whether a pull of an image in this state is a retry, not a first try.
pub fn is_retry(state: &ImageState) -> bool {
    !matches!(state, ImageState::Pending { failures: None, .. })
}

/// A retry that is due.
struct Retry {
    index: usize,
    priority: i64,
    failures: u32,
    /// Since when it is due, if that is [`OVERDUE`] or longer.
    overdue_since: Option<Moment>,
}

/// The images that are due.
pub(super) struct Queue {
    /// Targets by their index with their priority, in their order.
    first_tries: VecDeque<(usize, i64)>,
    retries: VecDeque<Retry>,
    first_try_is_next: bool,
}

impl Queue {
    /// Returns an empty queue. `first_try_is_next` tells that the last pull that began was a retry.
    pub(super) fn new(first_try_is_next: bool) -> Self {
        Self { first_tries: VecDeque::new(), retries: VecDeque::new(), first_try_is_next }
    }

    /// Adds a due target. Targets come in their order, which is by priority.
    pub(super) fn add(&mut self, index: usize, target: &Target, state: &ImageState, now: Moment) {
        if !is_retry(state) {
            self.first_tries.push_back((index, target.priority));
            return;
        }
        let (failures, due_since) = match state {
            ImageState::Pending { failures, since, .. } => {
                (failures.map_or(0, |f| f.count), failures.map_or(*since, |f| f.last + f.delay))
            }
            ImageState::BackOff { failures, until, .. } => (failures.count, *until),
            // what is missing goes before a refresh of what is there
            ImageState::Present { since, asked, .. } => (u32::MAX, asked.unwrap_or(*since) + target.refresh_interval),
            ImageState::Pulling { .. }
            | ImageState::Missing { .. }
            | ImageState::Invalid { .. }
            | ImageState::NotForThisNode => (0, now),
        };
        let overdue_since = (now.since(due_since) >= OVERDUE).then_some(due_since);
        self.retries.push_back(Retry { index, priority: target.priority, failures, overdue_since });
    }

    /// Puts the retries into their order, when all are added.
    pub(super) fn sort(&mut self) {
        let key = |retry: &Retry| {
            (retry.overdue_since.is_none(), retry.overdue_since, Reverse(retry.priority), retry.failures, retry.index)
        };
        self.retries.make_contiguous().sort_by_key(key);
    }

    /// Returns the next target to try, by its index.
    pub(super) fn pop(&mut self) -> Option<usize> {
        let takes_first_try = match (self.first_tries.front(), self.retries.front()) {
            (Some((_, priority)), Some(retry)) => self.first_try_is_next || *priority >= retry.priority,
            (first_try, _) => first_try.is_some(),
        };
        if takes_first_try {
            self.first_tries.pop_front().map(|(index, _)| index)
        } else {
            self.retries.pop_front().map(|retry| retry.index)
        }
    }

    /// A pull of an image in this state begins.
    pub(super) fn started(&mut self, state: &ImageState) {
        self.first_try_is_next = is_retry(state);
    }
}

#[cfg(test)]
mod tests;
