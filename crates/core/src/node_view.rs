//! What the API server says about this node, as far as it matters here.

use std::{collections::BTreeMap, time::Duration};

/// The node as it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeView {
    /// Its labels; none while they are not known.
    pub labels: Option<BTreeMap<String, String>>,
    /// Its unique id, by which Events name it; empty while it is not known.
    pub uid: String,
    /// When it was created, by the API server's clock, as time since the Unix epoch.
    pub created: Option<Duration>,
    /// Keys and effects of its taints, in their order.
    pub taints: Vec<TaintView>,
    /// The condition `ImagesPrepulled`, where it has one.
    pub condition: Option<ConditionView>,
    /// Whether the kubelet says that it lacks disk space (condition `DiskPressure`).
    pub disk_pressure: bool,
    /// Why nothing newer is known, in one clause.
    pub problem: Option<String>,
}

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaintView {
    /// Its key.
    pub key: String,
    /// Its effect.
    pub effect: String,
    /// `timeAdded`, as time since the Unix epoch; Kubernetes sets it for `NoExecute` only.
    pub added: Option<Duration>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionView {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}
