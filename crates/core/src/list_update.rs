//! What a list source says when something about its list has changed.

use std::sync::Arc;

use crate::list::{ImageList, ListProblem, revision};

/// A list source has something new.
#[derive(Debug)]
pub struct ListUpdate {
    /// Which source.
    pub source: Arc<str>,
    /// The namespace whose objects its entries may name.
    pub namespace: Option<Arc<str>>,
    /// What was read.
    pub read: Read,
}

/// What was read from a source.
#[derive(Debug)]
pub enum Read {
    /// A list, perhaps with problems.
    List {
        /// Revision of its text.
        revision: Arc<str>,
        /// The list.
        list: Arc<ImageList>,
    },
    /// A text that is no list: the last good one stays in force.
    NotAList(ListProblem),
    /// Nothing could be read, for this reason: the last good list stays in force.
    Nothing(String),
    /// The source cannot be asked for now, for this reason: the last good list stays in force.
    OutOfReach(String),
    /// The source is no longer one: its list goes out of force.
    Gone,
    /// Of a selector: all lists that it selects were told.
    Complete,
}

impl Read {
    /// Parses a text.
    pub fn of_text(text: &str) -> Self {
        match ImageList::parse(text) {
            Ok(list) => Self::List { revision: revision(text).into(), list: Arc::new(list) },
            Err(problem) => Self::NotAList(problem),
        }
    }

    /// Whether a list was read well; none where nothing was to be read.
    pub fn is_good(&self) -> Option<bool> {
        match self {
            Self::List { .. } => Some(true),
            Self::NotAList(_) | Self::Nothing(_) => Some(false),
            Self::OutOfReach(_) | Self::Gone | Self::Complete => None,
        }
    }
}
