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
    list_file,
    list_update::{ListUpdate, Read},
};

/// An editor writes a file in several steps: wait for the last one.
const SETTLE: Duration = Duration::from_millis(50);
/// Some filesystems tell of no change (network, some overlays): look now and then. Nothing is done where nothing
/// changed.
const LOOK_ANYWAY: Duration = Duration::from_mins(1);
/// While nothing can be watched: the kernel's bounds are reached, or a folder may not be read.
const LOOK_UNWATCHED: Duration = Duration::from_millis(500);

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
