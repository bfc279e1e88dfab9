//! The keeper's ends of the ways from and to the API server. Without a cluster they lead nowhere.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::{mpsc, watch};

use crate::{
    node_view::NodeView,
    pull_secrets::{Fingerprint, NoCluster, ObjectKey, PullSecrets},
};

/// News that may wait for the keeper's loop.
const QUEUE: usize = 16;

/// What the API server told.
#[derive(Debug)]
pub enum News {
    /// This node changed, or how much is known about it.
    Node(NodeView),
    /// How a watched Secret or service account looks.
    Object(ObjectKey, Fingerprint),
}

/// What the keeper wants to hear of. Nothing else is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// An entry selects nodes.
    pub node: bool,
    /// Secrets and service accounts that an image in back-off names.
    pub secrets: BTreeSet<ObjectKey>,
}

/// The keeper's ends.
pub struct Cluster {
    news: mpsc::Receiver<News>,
    needs: watch::Sender<Needs>,
    pull_secrets: Arc<dyn PullSecrets>,
}

impl Cluster {
    /// The ends, and those of the tasks that talk to the API server.
    pub fn new(pull_secrets: Arc<dyn PullSecrets>) -> (Self, mpsc::Sender<News>, watch::Receiver<Needs>) {
        let (sender, news) = mpsc::channel(QUEUE);
        let (needs, receiver) = watch::channel(Needs::default());
        (Self { news, needs, pull_secrets }, sender, receiver)
    }

    /// Nobody is there.
    pub fn none() -> Self {
        Self::new(Arc::new(NoCluster)).0
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
