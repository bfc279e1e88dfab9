//! Lists from files: an edit counts within a second, also when it is the swap of a link in a ConfigMap volume.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::AsyncReadExt as _,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::inotify::Folders;
use crate::list::{ImageList, ListProblem, MAX_LIST_BYTES, revision};

/// An editor writes a file in several steps: wait for the last one.
const SETTLE: Duration = Duration::from_millis(50);
/// Some filesystems tell of no change (network, some overlays): look now and then. Nothing is done where nothing
/// changed.
const LOOK_ANYWAY: Duration = Duration::from_mins(1);
/// While a folder cannot be watched because it is not there yet.
const LOOK_FOR_FOLDER: Duration = Duration::from_millis(500);

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
    let mut folders = None;
    loop {
        // watch first and read then: what changes between the two is seen
        let watched = watch(&mut folders, &path);
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
            Some(folders) => {
                if let Ok(Err(e)) = timeout(LOOK_ANYWAY, folders.changed()).await {
                    tracing::warn!(error = %e, list = %source, "the list's folder cannot be watched; it is looked at every {} s", LOOK_ANYWAY.as_secs());
                    sleep(LOOK_ANYWAY).await;
                }
                sleep(SETTLE).await;
            }
            None => sleep(LOOK_FOR_FOLDER).await,
        }
    }
}

/// Watches the folder that has the file, and the one that has what it links to.
fn watch<'a>(folders: &'a mut Option<Folders>, path: &Path) -> Option<&'a Folders> {
    if folders.is_none() {
        *folders = Folders::new().ok();
    }
    let folders = folders.as_ref()?;
    let own = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folders.add(own).ok()?;
    if let Some(real) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
        // the file itself is what counts: without this watch, edits behind a link are seen a minute late
        let _ = folders.add(real);
    }
    Some(folders)
}

/// The file's text, or in one clause why there is none.
pub async fn read_text(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let file = tokio::fs::File::open(path).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => format!("the list {shown} does not exist"),
        std::io::ErrorKind::PermissionDenied => format!("the list {shown} may not be read by this user"),
        _ => format!("the list {shown} cannot be opened: {e}"),
    })?;
    let mut bytes = Vec::new();
    let most = MAX_LIST_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut bytes).await.map_err(|e| format!("the list {shown} cannot be read: {e}"))?;
    String::from_utf8(bytes).map_err(|_| format!("the list {shown} is not UTF-8 text"))
}
