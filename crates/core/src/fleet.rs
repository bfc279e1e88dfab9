//! What all agents of a cluster say, put together: images × nodes, for `prepull status`. Pure: who is asked, and how, is
//! decided in [`crate::kubernetes::agents`] and `cli`.
//!
//! Answers come from pods and are taken for foreign: every text is made to one bounded line, and nothing of an answer is
//! kept but what is counted, so that thousands of nodes with hundreds of images fit into little memory.

mod answer;
mod picture;
pub mod settings;
mod tally;

#[cfg(test)]
mod tests;

pub use answer::{Answer, ImageAnswer, ListAnswer};
pub use picture::{Picture, Said, SilentNode};
pub use settings::Settings;
pub use tally::{ImageCount, NodeRow, Tally};

use std::sync::Arc;

/// An agent's pod, as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The pod's name.
    pub pod: Arc<str>,
    /// Which pod of this name: another one after it was replaced.
    pub uid: Arc<str>,
    /// The node; empty before it was scheduled.
    pub node: Arc<str>,
    /// Whether it counts as ready, which says that its node is warm where `ready_when` says so.
    pub ready: bool,
    /// Why it cannot be asked, in one clause; none where it runs.
    pub not_running: Option<String>,
    /// What it was told at its start.
    pub settings: Arc<Settings>,
}

/// A ConfigMap's list as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// `namespace/name`.
    pub source: String,
    /// Its revision, which agents tell too; none where it cannot be told.
    pub revision: Option<String>,
    /// Why agents cannot follow it, or why it is not known, in one line.
    pub problem: Option<String>,
    /// Whether the problem may be over by itself: the API server did not answer.
    pub passing: bool,
}

impl Wanted {
    /// Whether an answer shows this very list in force.
    fn is_followed(&self, answer: &Answer) -> bool {
        let Some(revision) = &self.revision else { return false };
        answer.lists.iter().any(|list| list.source == self.source && list.revision == *revision)
    }
}
