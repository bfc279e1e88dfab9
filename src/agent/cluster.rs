//! The keeper's ends of the ways from and to the API server. Without a cluster they lead nowhere.

use tokio::sync::{mpsc, watch};

use crate::node_view::NodeView;

/// News that may wait for the keeper's loop.
const QUEUE: usize = 16;

/// What the API server told.
#[derive(Debug)]
pub enum News {
    /// This node changed, or how much is known about it.
    Node(NodeView),
}

/// What the keeper wants to hear of. Nothing else is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// An entry selects nodes.
    pub node: bool,
}

/// The keeper's ends.
#[derive(Debug)]
pub struct Cluster {
    news: mpsc::Receiver<News>,
    needs: watch::Sender<Needs>,
}

impl Cluster {
    /// The ends, and those of the tasks that talk to the API server.
    pub fn new() -> (Self, mpsc::Sender<News>, watch::Receiver<Needs>) {
        let (sender, news) = mpsc::channel(QUEUE);
        let (needs, receiver) = watch::channel(Needs::default());
        (Self { news, needs }, sender, receiver)
    }

    /// Nobody is there.
    pub fn none() -> Self {
        Self::new().0
    }

    /// The next news; none where nobody is there.
    pub(super) async fn news(&mut self) -> Option<News> {
        self.news.recv().await
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
