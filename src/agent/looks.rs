//! Looks at the runtime's store: one at a time, again when something happened meanwhile, and later and later while they
//! fail.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::Status as RpcStatus;

use crate::{
    clock::Moment,
    desired::Target,
    error_text::one_line,
    runtime::{Runtime, code_name},
    stock::Observation,
};

/// After a look that failed, or a pull whose call broke while the connection stands; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest time between looks that fail.
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// A look that takes longer is told to people: the runtime hangs.
const SLOW: Duration = Duration::from_secs(10);

/// What the looks tell.
#[derive(Debug)]
pub(super) enum LookNews {
    /// It is time for one.
    Due,
    /// The store was looked at; what could not be looked for is not told about, and looked for again soon.
    Looked(Observation),
    /// It could not be, for this reason.
    Failed(String),
    /// One takes long already.
    Slow(String),
}

/// The looks of one keeper.
#[derive(Debug)]
pub(super) struct Looks {
    resync: Duration,
    running: JoinSet<Result<Observation, RpcStatus>>,
    /// When the running one counts as slow; none when that was told.
    slow_at: Option<Instant>,
    /// Something happened while one was under way that it may have missed.
    again: bool,
    next: Instant,
    retry: Duration,
}

impl Looks {
    /// None yet; the first by itself after `resync`.
    pub(super) fn new(resync: Duration) -> Self {
        Self {
            resync,
            running: JoinSet::new(),
            slow_at: None,
            again: false,
            next: Instant::now() + resync,
            retry: FIRST_RETRY,
        }
    }

    /// Waits until there is something to tell. Dropping the future loses nothing.
    pub(super) async fn news(&mut self) -> LookNews {
        let slow = self.slow_at;
        tokio::select! {
            Some(look) = self.running.join_next() => {
                self.slow_at = None;
                match look {
                    Ok(Ok(observation)) => {
                        self.retry = FIRST_RETRY;
                        if !observation.whole {
                            self.soon();
                        }
                        LookNews::Looked(observation)
                    }
                    Ok(Err(status)) => {
                        self.next = self.next.min(Instant::now() + self.retry);
                        self.retry = (self.retry * 2).min(LONGEST_RETRY);
                        let text = one_line(status.message());
                        LookNews::Failed(format!("the runtime's store cannot be looked at: {}: {text}", code_name(&status)))
                    }
                    // it was ended because the connection it used is gone
                    Err(_) => LookNews::Due,
                }
            }
            () = sleep_until(slow.unwrap_or_else(Instant::now)), if slow.is_some() => {
                self.slow_at = None;
                LookNews::Slow(format!("the container runtime has not said for {} s what is in its store", SLOW.as_secs()))
            }
            () = sleep_until(self.next), if self.running.is_empty() => LookNews::Due,
        }
    }

    /// Begins one; or notes that another one is wanted when the running one has ended.
    pub(super) fn begin(&mut self, runtime: Runtime, targets: Vec<Target>, now: Moment) {
        self.next = Instant::now() + self.resync;
        if !self.running.is_empty() {
            self.again = true;
            return;
        }
        self.again = false;
        self.slow_at = Some(Instant::now() + SLOW);
        self.running.spawn(async move { runtime.look(targets, now).await });
    }

    /// Whether one runs that may end at any moment.
    pub(super) fn under_way(&self) -> bool {
        self.slow_at.is_some()
    }

    /// Whether another look is wanted already.
    pub(super) fn wanted_again(&self) -> bool {
        self.again && self.running.is_empty()
    }

    /// The next one soon, without hurry.
    pub(super) fn soon(&mut self) {
        self.next = self.next.min(Instant::now() + FIRST_RETRY);
    }

    /// Ends what runs: its connection is gone.
    pub(super) fn end(&mut self) {
        self.running = JoinSet::new();
        self.slow_at = None;
        self.again = false;
    }
}
