//! How often the API server may be asked for Secrets and service accounts: a list can name thousands of them.

use std::time::Duration;

use prepull_core::clock::Moment;
use tokio::{sync::Mutex, time::sleep};

use crate::process_clock::Clock;

/// Requests that may be sent at once after a quiet time.
pub const MAX_BURST_REQUESTS: u32 = 30;
/// After a burst, the time between two requests: so 90 in the first minute and 60 in each later one.
pub const REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// A token bucket. Each request reserves its turn, so requests are sent in the order in which they were asked for.
#[derive(Debug, Default)]
struct TokenBucket {
    /// When the bucket will be full again.
    full_at: Moment,
}

impl TokenBucket {
    /// Reserves the next turn and returns how long to wait for it.
    fn reserve(&mut self, now: Moment) -> Duration {
        self.full_at = self.full_at.max(now) + REQUEST_INTERVAL;
        self.full_at.since(now).saturating_sub(REQUEST_INTERVAL * MAX_BURST_REQUESTS)
    }
}

/// The bucket with the clock that it goes by.
pub(crate) struct RequestBudget {
    bucket: Mutex<TokenBucket>,
    clock: Clock,
}

impl RequestBudget {
    /// Starts with a full bucket.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { bucket: Mutex::default(), clock }
    }

    /// Returns when the next request may be sent.
    pub(crate) async fn turn(&self) {
        let wait = self.bucket.lock().await.reserve(self.clock.now());
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn a_burst_is_free_and_then_one_request_a_second_is() {
        let mut bucket = TokenBucket::default();
        let waits: Vec<u64> = (0..33).map(|_| bucket.reserve(at(5)).as_secs()).collect();
        assert_eq!(waits[..30], [0; 30]);
        assert_eq!(waits[30..], [1, 2, 3]);
        assert_eq!(bucket.reserve(at(6)).as_secs(), 3, "a second later one more has passed");
        assert_eq!(bucket.reserve(at(1000)).as_secs(), 0);
    }

    #[test]
    fn three_thousand_requests_are_at_most_ninety_in_the_first_minute() {
        let mut bucket = TokenBucket::default();
        let sent = (0..3_000).map(|_| bucket.reserve(at(0)).as_secs());
        assert_eq!(sent.filter(|second| *second <= 60).count(), 90);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_their_turn() {
        let budget = RequestBudget::new(Clock::start());
        let began = tokio::time::Instant::now();
        for _ in 0..MAX_BURST_REQUESTS + 2 {
            budget.turn().await;
        }
        assert_eq!(began.elapsed().as_secs(), 2);
    }
}
