//! Looks at the node's processors while images wait for their turn, for [`crate::parallelism`]. Otherwise it does
//! nothing at all.

use std::{fs, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    clock::Moment,
    parallelism::{Parallelism, Sight},
};

/// What `/proc/stat` counts in: hundredths of a second, on every architecture, by the kernel's promise to programs.
const TICK: Duration = Duration::from_millis(10);

/// What `auto` means on this node at this moment.
#[derive(Debug, Default)]
pub(super) struct Watch {
    parallelism: Parallelism,
    /// When to look next; none while no image waits for its turn.
    next: Option<Instant>,
    /// The processors' counters at the last look, and when that was.
    last: Option<(Processors, Instant)>,
}

impl Watch {
    /// Another runtime answers.
    pub(super) fn runtime(&mut self, name: &str) {
        *self = Self { parallelism: Parallelism::of(name), ..Self::default() };
    }

    /// Pulls that may run at once.
    pub(super) fn number(&self) -> usize {
        self.parallelism.number()
    }

    /// After each turn: whether images wait for their turn because of this number.
    pub(super) fn turned(&mut self, waiting: bool, now: Moment) {
        if !waiting {
            if self.next.take().is_some() {
                self.last = None;
                self.parallelism.rest();
            }
        } else if self.next.is_none() {
            self.last = Processors::now().map(|processors| (processors, Instant::now()));
            // where the kernel does not tell, the first number stays
            self.next = self.last.is_some().then(|| Instant::now() + self.parallelism.until_next_look(now));
        }
    }

    /// Resolves when it is time to look; never while nothing waits. Dropping the future loses nothing.
    pub(super) async fn due(&self) {
        match self.next {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// Bytes came, or a pull ended well.
    pub(super) fn moved(&mut self) {
        if self.next.is_some() {
            self.parallelism.moved();
        }
    }

    /// Looks, and says whether the number is another one now.
    pub(super) fn look(&mut self, pulling: usize, now: Moment) -> bool {
        let before = self.number();
        let at = Instant::now();
        self.next = Some(at + self.parallelism.until_next_look(now));
        let processors = Processors::now();
        if let (Some(new), Some((old, then))) = (processors, self.last) {
            let share = |of: fn(&Processors) -> u64| new.share_since(&old, of, at - then);
            // of a short time on one processor a single tick would be nearly half
            let waited = new.disks.saturating_sub(old.disks) > 1;
            let disks = if waited { share(|p| p.disks) } else { 0.0 };
            self.parallelism.looked(Sight { pulling, idle: share(|p| p.idle), disks });
        }
        self.last = processors.map(|processors| (processors, at));
        self.changed(before)
    }

    fn changed(&self, before: usize) -> bool {
        let now = self.number();
        if now != before {
            tracing::debug!(before, now, "another number of pulls at once");
        }
        now != before
    }
}

/// Counters of all processors of the machine, whatever of it belongs to this process: ticks of all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Processors {
    count: u32,
    /// With nothing to do and nothing to wait for.
    idle: u64,
    /// With nothing to do but to wait for a disk.
    disks: u64,
}

impl Processors {
    fn now() -> Option<Self> {
        Self::read(&fs::read_to_string("/proc/stat").ok()?)
    }

    fn read(stat: &str) -> Option<Self> {
        let mut lines = stat.lines().take_while(|line| line.starts_with("cpu"));
        // user, nice, system, idle, iowait, …
        let mut counters = lines.next()?.split_whitespace().skip(4);
        let (idle, disks) = (counters.next()?.parse().ok()?, counters.next()?.parse().ok()?);
        let count = u32::try_from(lines.count()).ok().filter(|count| *count > 0)?;
        Some(Self { count, idle, disks })
    }

    /// The share of what one counter counts between two readings.
    fn share_since(&self, earlier: &Self, of: fn(&Self) -> u64, between: Duration) -> f64 {
        // the kernel says of the time that is spent waiting for disks that it may go down
        let counted = TICK.as_secs_f64() * of(self).saturating_sub(of(earlier)) as f64;
        let all = between.as_secs_f64() * f64::from(self.count);
        if all > 0.0 { (counted / all).min(1.0) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_processors_counters() {
        let stat = "cpu  131589 77740 23981 92817 2147 0 288 291 0 0\ncpu0 66851 36300 12144 47775 1093 0 103 148 0 0\n\
                    cpu1 64738 41439 11837 45041 1053 0 185 142 0 0\nintr 1 2\ncpux\n";
        let before = Processors::read(stat).unwrap();
        assert_eq!(before, Processors { count: 2, idle: 92817, disks: 2147 });
        let after = Processors { idle: 92817 + 5, disks: 2147 + 10, ..before };
        let tenth = Duration::from_millis(100);
        let share = after.share_since(&before, |p| p.idle, tenth);
        assert!((share - 0.25).abs() < 1e-9, "5 of 20 ticks: {share}");
        let share = after.share_since(&before, |p| p.disks, tenth);
        assert!((share - 0.5).abs() < 1e-9, "10 of 20 ticks: {share}");
        assert!(before.share_since(&after, |p| p.idle, tenth) <= 0.0, "counters that jump back are no idle time");
        assert_eq!(Processors::read(""), None);
        assert_eq!(Processors::read("cpu 1 2 3 4 5\n"), None, "without processors");
    }
}
