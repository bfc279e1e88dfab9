//! What is said about the node as a whole, to those who want one word: its condition, its label, its pod's readiness.

use std::sync::Arc;

use crate::stock::Stock;

/// When the agent's pod counts as ready: `/readyz` then answers 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyWhen {
    /// When every required image is in the store.
    Warm,
    /// As soon as the agent's loop runs.
    Running,
}

/// Whether the node is warm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readiness {
    /// The store was not looked at yet.
    #[default]
    Unknown,
    /// Something required is not there, or it is not known what is required.
    NotWarm,
    /// Every required image is there.
    Warm,
}

impl Readiness {
    /// As a condition's status.
    pub fn status(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::NotWarm => "False",
            Self::Warm => "True",
        }
    }
}

/// The node as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReport {
    /// Whether it is warm.
    pub readiness: Readiness,
    /// The same in one word, with what kind of thing is missing.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// The lists that this is about.
    pub revision: Arc<str>,
}

impl Default for NodeReport {
    fn default() -> Self {
        Self {
            readiness: Readiness::Unknown,
            reason: "StoreNotLookedAt",
            message: "the agent has not looked at the runtime's store yet".to_owned(),
            revision: "".into(),
        }
    }
}

impl NodeReport {
    /// Of a stock.
    pub fn of(stock: &Stock) -> Self {
        if !stock.looked() {
            return Self::default();
        }
        let warmth = stock.warmth();
        let (readiness, reason, message) = if warmth.warm {
            let all = format!("all {} required images are present", warmth.required);
            (Readiness::Warm, "AllImagesPresent", all)
        } else if !stock.list_read() || stock.desired().unknown.is_some() {
            (Readiness::NotWarm, "ListNotRead", warmth.reason)
        } else {
            (Readiness::NotWarm, "ImagesMissing", warmth.reason)
        };
        Self { readiness, reason, message, revision: stock.desired().revision.as_str().into() }
    }
}
