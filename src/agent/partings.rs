//! Pulls that ended well: what they brought is asked beside those that run, so that the next ones need not wait for it.
//! While one answer is awaited others gather, and are asked together: layers that they share are asked once.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::progress::{Follow, farewell};
use crate::{progress::Sample, runtime::Runtime};

/// Most that are asked at once: an answer comes in a bounded time.
const MOST: usize = 16;

/// A pull that ended, and whose lease is still to be let go.
pub(super) struct Parting {
    pub(super) follow: Follow,
    pub(super) runtime: Runtime,
}

/// What some pulls brought together, by number; none where the runtime did not say.
pub(super) type Asked = Vec<(u64, Option<Arc<Sample>>)>;

/// All of them.
#[derive(Default)]
pub(super) struct Partings {
    waiting: Vec<Parting>,
    asking: JoinSet<Asked>,
}

impl Partings {
    /// Asks about one more, now or with others.
    pub(super) fn add(&mut self, parting: Parting) {
        self.waiting.push(parting);
        self.ask();
    }

    /// Whether nothing is left to ask.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.asking.is_empty()
    }

    /// The next answer; none while nothing is asked. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Asked> {
        // a task that was ended with its keeper has nothing to tell
        let asked = self.asking.join_next().await?.unwrap_or_default();
        self.ask();
        Some(asked)
    }

    fn ask(&mut self) {
        if !self.asking.is_empty() {
            return;
        }
        // all of them are on one connection: a new one comes when the pulls of the old one have ended
        let Some(runtime) = self.waiting.last().map(|parting| parting.runtime.clone()) else { return };
        let waiting: Vec<_> = self.waiting.drain(..self.waiting.len().min(MOST)).collect();
        self.asking.spawn(async move {
            let leased = waiting.iter().filter_map(|parting| {
                let (number, lease) = parting.follow.leased();
                Some((number, lease?.to_string()))
            });
            let leases: Vec<_> = leased.collect();
            let sample = farewell(&runtime, &leases).await.map(Arc::new);
            leases.into_iter().map(|(number, _)| (number, sample.clone())).collect()
        });
    }
}
