//! Delays before trying again what must be done in the end: each about twice as long as the one before, up to a longest
//! one, and without end. With jitter, so that nodes that failed together do not try again together.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The delays of one thing that is tried.
#[derive(Debug)]
pub struct Retries {
    delays: ExponentialBackoff,
    longest: Duration,
}

impl Retries {
    /// From a first delay to a longest one.
    pub fn new(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new().with_min_delay(first).with_max_delay(longest);
        Self { delays: builder.with_jitter().without_max_times().build(), longest }
    }

    /// The next delay.
    pub fn delay(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_never_end() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_mins(1));
        let mut retries = Retries::new(first, longest);
        let delays: Vec<Duration> = (0..100).map(|_| retries.delay()).collect();
        assert!(delays[0] >= first && delays[0] <= first * 2, "{:?}", delays[0]);
        assert!(delays[10..].iter().all(|delay| *delay >= longest && *delay <= longest * 2), "{delays:?}");
    }
}
