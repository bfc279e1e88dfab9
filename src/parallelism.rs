//! How many pulls run at once where the list leaves it to the agent (`parallelPulls: auto`). Pure: what was seen goes in,
//! the number comes out.
//!
//! What a pull costs a node is CPU: unpacking, checksums, copying. What it waits for is the network. While the node's
//! processors have nothing to do although pulls are under way, more of them wait for less; when the processors are busy,
//! more of them only share what there is. So the number rises while there is idle CPU and images wait for their turn,
//! quickly at first, because on a far registry every moment in which too few are under way is lost, and falls back
//! to the first number when the processors stay busy. Time that processors spend waiting for disks counts as busy, so
//! slow disks hold the number down as well.

use std::time::Duration;

use crate::clock::Moment;

/// Pulls at once before anything is known.
pub const FIRST: usize = 3;
/// Never more.
pub const MOST: usize = 16;

/// CRI-O downloads what images share once for each pull, and stores layers one after the other.
const CRI_O: (usize, usize) = (1, 2);
/// From this share of idle CPU on there is room for more.
const ROOM: f64 = 0.15;
/// Below this share the processors are busy.
const BUSY: f64 = 0.05;
/// Up to this many the number doubles at each look, then it rises by [`STEP`].
const DOUBLES_TO: usize = 8;
const STEP: usize = 2;
/// So many looks in a row at busy processors make the number fall by one.
const BUSY_LOOKS: u32 = 3;

/// What a look at the node saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// Pulls under way.
    pub pulling: usize,
    /// Share of the processors' time since the last look in which they had nothing to do and waited for no disk, from 0
    /// to 1.
    pub idle: f64,
}

/// The number, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parallelism {
    first: usize,
    most: usize,
    number: usize,
    busy: u32,
    began: Option<Moment>,
}

impl Default for Parallelism {
    fn default() -> Self {
        Self { first: FIRST, most: MOST, number: FIRST, busy: 0, began: None }
    }
}

impl Parallelism {
    /// For the runtime of this name, as CRI's Version tells it.
    pub fn of(runtime: &str) -> Self {
        let (first, most) = if runtime == "cri-o" { CRI_O } else { (FIRST, MOST) };
        Self { first, most, number: first, ..Self::default() }
    }

    /// Pulls that may run at once now.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Nothing is left that waits for its turn: the next images begin with the first number, because the network and
    /// the node may be different by then.
    pub fn rest(&mut self) {
        self.number = self.first;
        self.busy = 0;
        self.began = None;
    }

    /// How long after this moment the next look is due, while images wait for their turn. The first looks are frequent:
    /// they decide how long a far registry is used by too few pulls.
    pub fn until_next_look(&mut self, now: Moment) -> Duration {
        let began = *self.began.get_or_insert(now);
        match now.since(began) {
            since if since < Duration::from_secs(1) => Duration::from_millis(50),
            since if since < Duration::from_secs(10) => Duration::from_millis(100),
            _ => Duration::from_millis(500),
        }
    }

    /// Images wait for their turn, and this was seen.
    pub fn looked(&mut self, sight: Sight) {
        if sight.idle < BUSY {
            self.busy += 1;
            if self.busy >= BUSY_LOOKS {
                self.busy = 0;
                self.number = (self.number - 1).max(self.first);
            }
            return;
        }
        self.busy = 0;
        // where another limit holds pulls up, more would not change anything
        if sight.idle >= ROOM && sight.pulling >= self.number {
            let more = if self.number < DOUBLES_TO { (self.number * 2).min(DOUBLES_TO) } else { self.number + STEP };
            self.number = more.min(self.most);
        }
    }
}

#[cfg(test)]
mod tests;
