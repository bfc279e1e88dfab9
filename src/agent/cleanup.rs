//! `prepull agent --cleanup`: takes away what the agent wrote to its Node and to its runtime, then is ready and does
//! nothing.

use std::time::Duration;

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tonic::Code;

use super::link;
use crate::{
    error_text::one_line,
    http::Query,
    metrics::Metrics,
    retries::Retries,
    runtime::{Endpoint, Observer, code_name},
    status::Status,
    stock::Warmth,
};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// Takes this agent's pins away, tells by `left` why something is left, and ends when nothing is.
pub(super) async fn unpin(endpoint: Option<Endpoint>, observer: Observer, left: watch::Sender<Option<String>>) {
    let mut retries = Retries::new(FIRST_RETRY, LONGEST_RETRY);
    loop {
        let why = match link::connect(endpoint.as_ref(), &observer).await {
            Ok(runtime) => match runtime.unpin_all().await {
                Ok(records) => {
                    tracing::info!(records, "no image is pinned by prepull any more");
                    left.send_replace(None);
                    return;
                }
                // what is not containerd was never written to
                Err(status) if status.code() == Code::Unimplemented => {
                    left.send_replace(None);
                    return;
                }
                Err(status) => {
                    let (name, code) = (runtime.name_and_version(), code_name(&status));
                    format!("images cannot be unpinned: {name} answers {code}: {}", one_line(status.message()))
                }
            },
            Err(reason) => format!("images cannot be unpinned: {reason}"),
        };
        let new = left.send_if_modified(|told| {
            let new = told.as_ref() != Some(&why);
            *told = Some(why.clone());
            new
        });
        if new {
            tracing::warn!(%why, "images may still be pinned; trying again");
        }
        sleep(retries.delay()).await;
    }
}

/// Answers until told to stop: ready when nothing is left anywhere.
pub(super) async fn answer(
    node: String,
    mut metrics: Metrics,
    left: Vec<watch::Receiver<Option<String>>>,
    mut queries: mpsc::Receiver<Query>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let query = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            Some(query) = queries.recv() => query,
            else => return,
        };
        let reasons: Vec<String> = left.iter().filter_map(|left| left.borrow().clone()).collect();
        let reason = reasons.join("; ");
        let clean = reasons.is_empty();
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
