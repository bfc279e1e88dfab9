//! Moments on the process' own monotonic clock, which a change of the wall clock does not touch.

use std::{
    ops::{Add, Sub},
    time::{Duration, SystemTime},
};

/// Time since the process began. Pure code gets it as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// So long after the beginning.
    pub const fn after_start(duration: Duration) -> Self {
        Self(duration)
    }

    /// How long ago `earlier` was; nothing where it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }
}

/// Wall-clock time of a moment in RFC 3339, in whole seconds and UTC. The wall clock is read when somebody asks, so a
/// clock that jumps changes what is shown and never what is done.
pub fn rfc3339(moment: Moment, now: Moment, wall: SystemTime) -> String {
    let at = if moment >= now { wall.checked_add(moment.since(now)) } else { wall.checked_sub(now.since(moment)) };
    let stamp = at.and_then(|at| jiff::Timestamp::try_from(at).ok()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{stamp:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_by_the_wall_clock_of_now() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let now = Moment::after_start(Duration::from_secs(50));
        assert_eq!(rfc3339(now + Duration::from_secs(20), now, wall), "1970-01-01T00:17:00Z");
        assert_eq!(rfc3339(now - Duration::from_secs(40), now, wall), "1970-01-01T00:16:00Z");
    }
}
