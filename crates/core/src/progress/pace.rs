//! Speed over the last seconds. containerd writes a MiB at a time, so a shorter window would show jumps.

use std::{collections::VecDeque, time::Duration};

use crate::clock::Moment;

/// How far back it looks.
const WINDOW: Duration = Duration::from_secs(10);
/// What is too short to tell a speed from.
const SHORTEST: Duration = Duration::from_millis(500);

/// Bytes by moments.
#[derive(Debug, Default)]
pub(super) struct Pace(VecDeque<(Moment, u64)>);

impl Pace {
    /// So many bytes are there at this moment.
    pub(super) fn reached(&mut self, bytes: u64, now: Moment) {
        let bytes = bytes.max(self.0.back().map_or(0, |(_, last)| *last));
        self.0.push_back((now, bytes));
        // the newest one outside of the window stays: it says how many there were at its edge
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= WINDOW) {
            self.0.pop_front();
        }
    }

    /// So many bytes came since the last moment.
    pub(super) fn grew(&mut self, bytes: u64, now: Moment) {
        let last = self.0.back().map_or(0, |(_, last)| *last);
        self.reached(last.saturating_add(bytes), now);
    }

    /// None until there is anything to compare.
    pub(super) fn bytes_per_second(&self, now: Moment) -> Option<u64> {
        let ((from, first), (_, last)) = (self.0.front()?, self.0.back()?);
        let took = now.since(*from);
        let per_second = (last - first) as f64 / took.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is no less than 0, and a u64 is enough"
        )]
        (took >= SHORTEST).then_some(per_second as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    #[test]
    fn the_last_ten_seconds_count() {
        let mut pace = Pace::default();
        assert_eq!(pace.bytes_per_second(at(0)), None);
        for second in 0..=20 {
            pace.reached(second * 100, at(second));
        }
        assert_eq!(pace.bytes_per_second(at(20)), Some(100));
        for second in 21..=40 {
            pace.reached(2000, at(second));
        }
        assert_eq!(pace.bytes_per_second(at(40)), Some(0));
        pace.grew(500, at(41));
        assert_eq!(pace.bytes_per_second(at(41)), Some(50));
    }
}
