//! What flows between the agent's loop and the tasks that talk to the API server.

use std::collections::BTreeSet;

use prepull_core::{budget::Answer, node_view::NodeView};
use prepull_credentials::pull_secrets::{Fingerprint, ObjectKey};

/// What the API server told.
#[derive(Debug)]
pub enum News {
    /// This node changed, or how much is known about it.
    Node(NodeView),
    /// How a watched Secret or service account looks.
    Object(ObjectKey, Fingerprint),
    /// What came of a request about a slot of `pullingNodes`.
    Slot(Answer),
}

/// What the keeper wants to hear of. Nothing else is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// An entry selects nodes.
    pub node: bool,
    /// Secrets and service accounts that an image in back-off names.
    pub secrets: BTreeSet<ObjectKey>,
}
