//! Tokens that were fetched, each until it is due, and one fetch at a time for each registry.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::super::Auth;

/// How long a failure is shared. Ten images of one registry ask once, and the image back-off's first step asks again.
const FAILURE_KEPT: Duration = Duration::from_secs(10);

/// What one lookup gave.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetched {
    /// The credential, if there is one.
    pub(super) auth: Option<Auth>,
    /// Until when it may be used again; `None` for a token that is used once, because it has expired already or does
    /// not say when it will.
    pub(super) until: Option<Timestamp>,
    /// One line each.
    pub(super) problems: Vec<String>,
}

struct Kept {
    since: Timestamp,
    until: Timestamp,
    fetched: Fetched,
}

/// All that is kept, by registry.
#[derive(Default)]
pub(super) struct Keep {
    // locks because lookups of several pulls run at once: the outer one is held for a moment only, an inner one while
    // its registry is asked
    slots: Mutex<HashMap<String, Arc<Mutex<Option<Kept>>>>>,
}

impl Keep {
    /// What is kept under the key, or else what `fetch` brings. Callers with the same key wait for one fetch; one that
    /// is cancelled leaves the next caller to fetch.
    pub(super) async fn get<F>(&self, key: String, now: impl Fn() -> Timestamp, fetch: F) -> Fetched
    where
        F: Future<Output = Fetched>,
    {
        let slot = self.slots.lock().await.entry(key).or_default().clone();
        let mut kept = slot.lock().await;
        let moment = now();
        if let Some(kept) = kept.as_ref()
            // a clock that was set back would keep a token beyond its end
            && (kept.since..kept.until).contains(&moment)
        {
            return kept.fetched.clone();
        }
        // what is due is wiped before the new one is fetched, whatever comes of that
        *kept = None;
        let fetched = fetch.await;
        let since = now();
        let until = if fetched.auth.is_some() { fetched.until } else { Some(since + FAILURE_KEPT) };
        *kept = until.map(|until| Kept { since, until, fetched: fetched.clone() });
        fetched
    }
}

/// Half of what is left of a token's life, as the cloud's own plugin keeps it; `None` for one that has expired.
pub(super) fn half_life(now: Timestamp, expires: Timestamp) -> Option<Timestamp> {
    let left = Duration::try_from(expires.duration_since(now)).ok().filter(|left| !left.is_zero())?;
    now.checked_add(left / 2).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn twelve_hours_are_kept_for_six() {
        assert_eq!(half_life(at(1_000), at(1_000 + 43_200)), Some(at(1_000 + 21_600)));
        assert_eq!(half_life(at(1_000), at(1_000)), None);
        assert_eq!(half_life(at(1_000), at(5)), None);
    }

    fn token(until: Option<i64>) -> Fetched {
        Fetched { auth: Some(Auth::default()), until: until.map(at), problems: Vec::new() }
    }

    /// Asks at each moment; gives how often was fetched.
    async fn fetches(answer: &Fetched, moments: &[i64]) -> usize {
        let (keep, count) = (Keep::default(), AtomicUsize::new(0));
        for moment in moments {
            let fetch = async {
                count.fetch_add(1, Ordering::Relaxed);
                answer.clone()
            };
            keep.get("k".to_owned(), || at(*moment), fetch).await;
        }
        count.into_inner()
    }

    #[tokio::test]
    async fn tokens_are_fetched_when_due() {
        assert_eq!(fetches(&token(Some(100)), &[10, 50, 99]).await, 1);
        assert_eq!(fetches(&token(Some(100)), &[10, 99, 100]).await, 2);
        assert_eq!(fetches(&token(None), &[10, 10]).await, 2, "used once");
        assert_eq!(fetches(&token(Some(100)), &[50, 10]).await, 2, "the clock was set back");
    }

    #[tokio::test]
    async fn failures_are_shared_for_ten_seconds() {
        assert_eq!(fetches(&Fetched::default(), &[10, 19, 20]).await, 2);
    }

    #[tokio::test]
    async fn ten_at_once_fetch_once() {
        let (keep, count, moment) = (Keep::default(), AtomicUsize::new(0), AtomicI64::new(5));
        let fetch = || async {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            token(Some(100))
        };
        let now = || at(moment.load(Ordering::Relaxed));
        let asked = (0..10).map(|_| keep.get("k".to_owned(), now, fetch()));
        let found = futures::future::join_all(asked).await;
        assert!(found.iter().all(|f| f.auth.is_some()));
        assert_eq!(count.into_inner(), 1);
    }
}
