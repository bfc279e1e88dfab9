//! Listens to what the runtime tells about its images, so that one that is collected or deleted is missed at once.

use std::{fmt, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{Code, Status};

use crate::{
    error_text::one_line,
    runtime::{Runtime, StoreEvent, code_name},
};

/// Before the first new subscription; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest time between subscriptions that fail.
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// A subscription that lasted for so long was one that works.
const STABLE: Duration = Duration::from_secs(30);
/// Events that may wait. Beyond that the runtime waits.
const QUEUE: usize = 64;

/// What the listener tells.
#[derive(Debug)]
pub(super) enum StoreNews {
    /// Something happened in the store.
    Event(StoreEvent),
    /// The subscription stands again: something may have been missed.
    Again,
    /// The runtime has no such service, nor one that tells how far pulls are.
    Absent,
}

/// The listener of a keeper.
pub(super) struct Listening {
    task: JoinSet<()>,
    news: mpsc::Receiver<StoreNews>,
    /// The runtime of which was said that it tells nothing.
    silent: Option<String>,
}

impl Listening {
    /// To nobody yet.
    pub(super) fn new() -> Self {
        Self { task: JoinSet::new(), news: mpsc::channel(1).1, silent: None }
    }

    /// Listens to a connection from now on.
    pub(super) fn listen(&mut self, runtime: Runtime) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.news = receiver;
        self.task = JoinSet::new();
        self.task.spawn(listen(runtime, sender));
    }

    /// The connection ended.
    pub(super) fn stop(&mut self) {
        self.task = JoinSet::new();
        self.news.close();
    }

    /// Waits for news; none when nobody is listened to. Dropping the future loses nothing.
    pub(super) async fn news(&mut self) -> Option<StoreNews> {
        self.news.recv().await
    }

    /// Says once for each runtime that it tells nothing.
    pub(super) fn say_absent(&mut self, runtime: impl fmt::Display) {
        let runtime = runtime.to_string();
        if self.silent.as_ref() != Some(&runtime) {
            tracing::info!(
                %runtime,
                "this runtime has not containerd's own services: no progress in bytes, no stallTimeout, and an image that is removed is missed at the next resync"
            );
            self.silent = Some(runtime);
        }
    }
}

async fn listen(runtime: Runtime, news: mpsc::Sender<StoreNews>) {
    let mut retry = FIRST_RETRY;
    let mut before = false;
    loop {
        let since = Instant::now();
        let ended = match runtime.tells_progress().await {
            Ok(false) => Status::new(Code::Unimplemented, ""),
            Ok(true) => subscribe(&runtime, &news, before).await,
            Err(status) => status,
        };
        // nobody listens to it any more, or nothing is ever to be heard
        if news.is_closed() {
            return;
        }
        if ended.code() == Code::Unimplemented {
            // whoever would hear it may be gone
            let _ = news.send(StoreNews::Absent).await;
            return;
        }
        before = true;
        if since.elapsed() >= STABLE {
            retry = FIRST_RETRY;
        }
        tracing::debug!(code = code_name(&ended), error = %one_line(ended.message()), "no events of images; subscribing again");
        sleep(retry).await;
        retry = (retry * 2).min(LONGEST_RETRY);
    }
}

/// Passes on what is heard until it ends.
async fn subscribe(runtime: &Runtime, news: &mpsc::Sender<StoreNews>, again: bool) -> Status {
    let mut events = match runtime.store_events().await {
        Ok(events) => events,
        Err(status) => return status,
    };
    let closed = || Status::cancelled("nobody listens");
    if again && news.send(StoreNews::Again).await.is_err() {
        return closed();
    }
    loop {
        match events.next().await {
            Ok(event) => {
                if news.send(StoreNews::Event(event)).await.is_err() {
                    return closed();
                }
            }
            Err(status) => return status,
        }
    }
}
