//! The process clock: where the monotonic moments of the pure code come from.

use tokio::time::Instant;

use prepull_core::clock::Moment;

/// A clock that starts with the process and follows tokio's time, which tests can pause.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at zero now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Returns the time since the start.
    pub fn now(&self) -> Moment {
        Moment::after_start(self.start.elapsed())
    }

    /// Returns tokio's instant for a moment, to sleep until it.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start + moment.since(Moment::default())
    }
}
