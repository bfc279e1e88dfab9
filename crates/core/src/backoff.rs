//! The kubelet's back-off for images: 10 s, doubling to 300 s, forgotten after 600 s without a failure; and jitter, so
//! that nodes which failed together do not try again together. Pure: time and randomness are arguments.

use std::time::Duration;

use crate::clock::Moment;

/// The rule of a back-off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub initial: Duration,
    /// Longest delay.
    pub max: Duration,
    /// Largest part of the delay that is added at random.
    pub jitter: f64,
}

/// The rule for images: the kubelet's, and up to 20 % more.
pub const IMAGE: Backoff = Backoff { initial: Duration::from_secs(10), max: Duration::from_mins(5), jitter: 0.2 };

/// Failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: u32,
    /// The delay that the last one brought, without jitter.
    pub delay: Duration,
    /// When the last one was.
    pub last: Moment,
}

impl Backoff {
    /// One more failure. The row starts anew where the last failure is more than twice the longest delay ago, as the
    /// kubelet collects such entries.
    pub fn failed(&self, before: Option<Failures>, now: Moment) -> Failures {
        match before.filter(|b| now.since(b.last) <= self.max * 2) {
            Some(b) => {
                Failures { count: b.count.saturating_add(1), delay: b.delay.saturating_mul(2).min(self.max), last: now }
            }
            None => Failures { count: 1, delay: self.initial.min(self.max), last: now },
        }
    }

    /// When the next attempt may begin. `random` is from 0 to 1.
    pub fn until(&self, failures: Failures, random: f64) -> Moment {
        failures.last + failures.delay + failures.delay.mul_f64(self.jitter * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        initial_seconds: u64,
        max_seconds: u64,
        attempt: Option<u32>,
        delay_seconds: Option<u64>,
        #[serde(default)]
        events: Vec<Event>,
        #[serde(default)]
        expected: Vec<Expected>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Event {
        at_seconds: u64,
        pull_result: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Expected {
        outcome: String,
        current_delay_seconds: u64,
    }

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn delays_and_sequences_are_the_kubelets() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/vectors/backoff.json")).unwrap();
        for case in cases {
            let rule = Backoff {
                initial: Duration::from_secs(case.initial_seconds),
                max: Duration::from_secs(case.max_seconds),
                jitter: 0.0,
            };
            if let (Some(attempt), Some(delay)) = (case.attempt, case.delay_seconds) {
                let row = (0..attempt).fold(None, |row, _| Some(rule.failed(row, at(0)))).unwrap();
                assert_eq!(row.delay.as_secs(), delay, "attempt {attempt}");
            }
            let mut row: Option<Failures> = None;
            for (event, expected) in case.events.iter().zip(&case.expected) {
                let now = at(event.at_seconds);
                let waiting = row.is_some_and(|r| now < rule.until(r, 0.0));
                let outcome = match event.pull_result.as_str() {
                    _ if waiting => "backoff",
                    "ok" => {
                        row = None;
                        "pulled"
                    }
                    _ => {
                        row = Some(rule.failed(row, now));
                        "failed"
                    }
                };
                assert_eq!(outcome, expected.outcome, "at {} s", event.at_seconds);
                assert_eq!(
                    row.map_or(0, |r| r.delay.as_secs()),
                    expected.current_delay_seconds,
                    "at {} s",
                    event.at_seconds
                );
            }
        }
    }

    #[test]
    fn a_long_quiet_time_starts_the_row_anew() {
        let first = IMAGE.failed(None, at(0));
        let second = IMAGE.failed(Some(first), at(600));
        assert_eq!((second.count, second.delay.as_secs()), (2, 20));
        assert_eq!(IMAGE.failed(Some(second), at(1201)).count, 1);
    }

    proptest! {
        #[test]
        fn jitter_adds_at_most_its_share(count in 1u32..40, random in 0.0f64..=1.0) {
            let row = (0..count).fold(None, |row, _| Some(IMAGE.failed(row, at(5)))).unwrap();
            let wait = IMAGE.until(row, random).since(at(5));
            prop_assert!(wait >= row.delay && wait <= row.delay.mul_f64(1.2));
            prop_assert!(row.delay <= IMAGE.max && row.delay >= IMAGE.initial);
        }
    }
}
