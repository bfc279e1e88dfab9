//! Lists from files: an edit counts within a second, also when it is the swap of a link in a ConfigMap volume.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::inotify::Watch;
use crate::{
    list::{ImageList, ListProblem, revision},
    list_file,
};

/// An editor writes a file in several steps: wait for the last one.
const SETTLE: Duration = Duration::from_millis(50);
/// Some filesystems tell of no change (network, some overlays): look now and then. Nothing is done where nothing
/// changed.
const LOOK_ANYWAY: Duration = Duration::from_mins(1);
/// While nothing can be watched: the kernel's bounds are reached, or a folder may not be read.
const LOOK_UNWATCHED: Duration = Duration::from_millis(500);

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

/// Sends the list of a file, and sends it again whenever its content has changed. Ends when nobody listens.
pub async fn follow_file(path: PathBuf, source: Arc<str>, updates: mpsc::Sender<ListUpdate>) {
    let mut last: Option<Result<String, String>> = None;
    loop {
        // watch first and read then: what changes between the two is seen
        let watched = Watch::of(&path);
        let text = read_text(&path).await;
        if last.as_ref() != Some(&text) {
            let read = match &text {
                Ok(text) => Read::of_text(text),
                Err(why) => Read::Nothing(why.clone()),
            };
            if updates.send(ListUpdate { source: source.clone(), namespace: None, read }).await.is_err() {
                return;
            }
            last = Some(text);
        }
        match watched {
            Ok(watch) => {
                if let Ok(Err(e)) = timeout(LOOK_ANYWAY, watch.changed()).await {
                    tracing::warn!(error = %e, list = %source, "the list's folder cannot be watched; it is looked at every {} s", LOOK_ANYWAY.as_secs());
                    sleep(LOOK_ANYWAY).await;
                }
                sleep(SETTLE).await;
            }
            Err(_) => sleep(LOOK_UNWATCHED).await,
        }
    }
}

/// The file's text, or in one line why there is none.
pub async fn read_text(path: &Path) -> Result<String, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || list_file::read(&path)).await;
    read.unwrap_or_else(|e| Err(format!("the list cannot be read: {e}")))
}
