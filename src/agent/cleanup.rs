//! `prepull agent --cleanup`: takes away what the agent wrote to its Node, then is ready and does nothing.

use tokio::sync::{mpsc, watch};

use crate::{http::Query, metrics::Metrics, status::Status, stock::Warmth};

/// Answers until told to stop: ready when nothing is left.
pub(super) async fn answer(
    node: String,
    mut metrics: Metrics,
    mut left: watch::Receiver<Option<String>>,
    mut queries: mpsc::Receiver<Query>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let query = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(query) = queries.recv() => query,
            else => return,
        };
        let reason = left.borrow_and_update().clone().unwrap_or_default();
        let clean = reason.is_empty();
        let status =
            Status { node: node.as_str().into(), warm: clean, not_warm_reason: reason.clone(), ..Status::default() };
        // whoever asked may have gone away: then nobody misses the answer
        match query {
            Query::Health(reply) => drop(reply.send(())),
            Query::Warmth(reply) => drop(reply.send(Warmth { warm: clean, present: 0, required: 0, reason })),
            Query::Status(reply) => drop(reply.send(status)),
            Query::Metrics(reply) => match metrics.page(&status) {
                Ok(page) => drop(reply.send(page)),
                Err(e) => tracing::error!(error = %e, "metrics cannot be shown"),
            },
        }
    }
}
