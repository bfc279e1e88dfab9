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
/// After an event: the runtime's own list of images learns of it by the same event, and more may follow at once.
const AFTER_EVENT: Duration = Duration::from_millis(150);
/// Between looks that events of listed images cause. What is gone is to be missed within a second.
const BETWEEN_OURS: Duration = Duration::from_millis(600);
/// Between looks that other events cause; it doubles while they go on.
const BETWEEN_EVENTS: Duration = Duration::from_secs(1);
/// Longest time between them.
const LONGEST_BETWEEN: Duration = Duration::from_secs(4);
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
    /// When an event last caused one.
    event_look: Instant,
    /// How long after that the next event of an image that is not listed causes another.
    between: Duration,
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
            event_look: Instant::now(),
            between: BETWEEN_EVENTS,
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
    pub(super) fn begin(&mut self, runtime: Runtime, targets: Vec<Target>, began: Moment) {
        let now = Instant::now();
        self.next = now + self.resync;
        if self.event_look > now {
            // this one may come too early for what happened in the store
            self.next = self.next.min(self.event_look);
        }
        if !self.running.is_empty() {
            self.again = true;
            return;
        }
        self.again = false;
        self.slow_at = Some(Instant::now() + SLOW);
        self.running.spawn(async move { runtime.look(targets, began).await });
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

    /// Something happened in the store, to a listed image or to another one. One event is looked after at once; a burst
    /// of them by few looks.
    pub(super) fn event(&mut self, ours: bool) {
        let now = Instant::now();
        let calm = now >= self.event_look + LONGEST_BETWEEN * 2;
        let between = if ours { BETWEEN_OURS } else { self.between };
        let due = (self.event_look + between).max(now + AFTER_EVENT);
        if due < self.next {
            (self.next, self.event_look) = (due, due);
            if !ours {
                self.between = if calm { BETWEEN_EVENTS } else { (self.between * 2).min(LONGEST_BETWEEN) };
            }
        }
    }

    /// Ends what runs: its connection is gone.
    pub(super) fn end(&mut self) {
        self.running = JoinSet::new();
        self.slow_at = None;
        self.again = false;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// Looks that a row of events causes, this far apart.
    async fn looks(ours: bool, events: u32, apart: Duration) -> Vec<u128> {
        let (mut looks, start) = (Looks::new(Duration::from_mins(5)), Instant::now());
        advance(Duration::from_mins(1)).await;
        let (mut done, mut sent) = (Vec::new(), 0);
        let first = Instant::now();
        while first.elapsed() < Duration::from_mins(1) {
            if sent < events && first.elapsed() >= apart * sent {
                looks.event(ours);
                sent += 1;
            }
            if looks.next <= Instant::now() {
                done.push(first.elapsed().as_millis());
                looks.next = start + Duration::from_mins(5);
            }
            advance(Duration::from_millis(10)).await;
        }
        done
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_looked_after_at_once_and_a_burst_by_few_looks() {
        assert_eq!(looks(false, 1, Duration::ZERO).await, [150]);
        assert_eq!(looks(false, 100, Duration::from_millis(50)).await, [150, 1150, 3150, 7150]);
        // each within a second, however many
        let each = looks(true, 20, Duration::from_millis(700)).await;
        assert_eq!(each.len(), 20, "{each:?}");
        assert!(each.iter().zip(0..).all(|(look, n)| look - n * 700 < 800), "{each:?}");
    }
}
