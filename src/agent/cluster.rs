//! The keeper's ends of the ways from and to the API server. Without a cluster they lead nowhere.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::{
    budget::Ask,
    kubernetes::messages::{Needs, News},
    pull_secrets::{NoCluster, PullSecrets},
};

/// News that may wait for the keeper's loop.
const QUEUE: usize = 16;

/// The keeper's ends.
pub struct Cluster {
    news: mpsc::Receiver<News>,
    needs: watch::Sender<Needs>,
    /// Requests about slots; none where no API server is.
    asks: Option<mpsc::Sender<Ask>>,
    pull_secrets: Arc<dyn PullSecrets>,
}

/// The ends of the tasks that talk to the API server.
#[derive(Debug)]
pub struct Ends {
    /// What it told.
    pub news: mpsc::Sender<News>,
    /// What the keeper wants to hear of.
    pub needs: watch::Receiver<Needs>,
    /// What the keeper asks about slots, one at a time.
    pub asks: mpsc::Receiver<Ask>,
}

impl Cluster {
    /// The ends, and those of the tasks that talk to the API server.
    pub fn new(pull_secrets: Arc<dyn PullSecrets>) -> (Self, Ends) {
        let (sender, news) = mpsc::channel(QUEUE);
        let (needs, receiver) = watch::channel(Needs::default());
        let (asks, asked) = mpsc::channel(1);
        (Self { news, needs, asks: Some(asks), pull_secrets }, Ends { news: sender, needs: receiver, asks: asked })
    }

    /// Nobody is there.
    pub fn none() -> Self {
        Self { asks: None, ..Self::new(Arc::new(NoCluster)).0 }
    }

    /// Where requests about slots go.
    pub(super) fn asks(&mut self) -> Option<mpsc::Sender<Ask>> {
        self.asks.take()
    }

    /// The next news; none where nobody is there.
    pub(super) async fn news(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Where the objects come from that entries name.
    pub(super) fn pull_secrets(&self) -> Arc<dyn PullSecrets> {
        self.pull_secrets.clone()
    }

    /// Says what is needed, where `change` changes it.
    pub(super) fn need(&self, change: impl FnOnce(&mut Needs) -> bool) {
        self.needs.send_if_modified(change);
    }
}

/// Replaces a value where the new one differs, and says whether it did.
pub(super) fn replace_if_new<T: PartialEq>(old: &mut T, new: T) -> bool {
    let differs = *old != new;
    *old = new;
    differs
}
