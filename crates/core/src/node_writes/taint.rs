//! When the start-up taint is removed though the node is not warm.
//!
//! The deadline must not move when the agent restarts, or an agent that keeps dying would never remove the taint. So it
//! counts from what a restart does not change: the Node's creation, or the node's last boot if that is later. A taint
//! that comes back while the agent watches counts from then, and one with `timeAdded` from that time.

use std::time::Duration;

use crate::{
    clock::Moment,
    node_view::{NodeView, TaintView},
};

/// Knows how long the start-up taint has been on the node.
#[derive(Debug)]
pub(super) struct TaintDeadline {
    timeout: Duration,
    /// The process' start, and how long the node had been up then.
    start: (Moment, Option<Duration>),
    /// The API server's time at a moment, as time since the Unix epoch.
    server: Option<(Moment, Duration)>,
    /// Whether this process has seen the node without the taint.
    seen_without: bool,
    /// When the taint appeared on a node that this process had seen without it.
    appeared: Option<Moment>,
}

impl TaintDeadline {
    /// Removes the taint after `timeout`. `uptime` is how long the node had been up at `start`, if that is known.
    pub(super) fn new(timeout: Duration, start: Moment, uptime: Option<Duration>) -> Self {
        Self { timeout, start: (start, uptime), server: None, seen_without: false, appeared: None }
    }

    /// Sets the API server's time.
    pub(super) fn set_server_time(&mut self, now: Moment, time: Duration) {
        self.server = Some((now, time));
    }

    /// Forgets what was seen of a Node that was deleted and created again.
    pub(super) fn forget(&mut self) {
        (self.seen_without, self.appeared) = (false, None);
    }

    /// Notes whether the node has the taint now.
    pub(super) fn observe(&mut self, is_tainted: bool, now: Moment) {
        if !is_tainted {
            (self.seen_without, self.appeared) = (true, None);
        } else if self.seen_without && self.appeared.is_none() {
            self.appeared = Some(now);
        }
    }

    /// When the taint is due for removal; `None` if the API server's time must be asked for first.
    pub(super) fn due<'a>(
        &self,
        node: &NodeView,
        taints: impl Iterator<Item = &'a TaintView>,
        now: Moment,
    ) -> Option<Moment> {
        let (asked, time) = self.server?;
        let server_now = time + now.since(asked);
        let (start, uptime) = self.start;
        // a time that lies ahead is a wrong clock's, and would move the deadline for ever
        let ages =
            taints.filter_map(|taint| taint.added).chain(node.created).filter_map(|at| server_now.checked_sub(at));
        let age = ages
            .chain(uptime.map(|uptime| uptime + now.since(start)))
            .chain(self.appeared.map(|at| now.since(at)))
            .min()
            .unwrap_or_else(|| now.since(start));
        Some(now + self.timeout.saturating_sub(age))
    }
}
