//! How many pulls run at once where the list leaves it to the agent (`parallelPulls: auto`). Pure: what was seen goes in,
//! the number comes out.
//!
//! What a pull costs a node is CPU: unpacking, checksums, copying. What it waits for is the network. While the node's
//! processors have nothing to do although pulls are under way, more of them wait for less; when the processors are busy,
//! more of them only share what there is. Too few cost much on a far registry, and a few too many cost next to nothing
//! on a near one (docs/benchmarks.md has the figures), and busy processors may be busy with something else. So the
//! number rises to [`FREELY`] at once, whatever the processors do. Beyond it rises while there is idle CPU and images
//! wait for their turn, and falls back to it when the processors stay busy.
//!
//! Disks are another matter: where processors wait for them, more pulls only move their heads, and whoever else works
//! on the node waits as well. So then the number falls, down to one pull.

use std::time::Duration;

use crate::clock::Moment;

/// Pulls at once before anything is known.
pub const FIRST: usize = 3;
/// Never more.
pub const MOST: usize = 16;
/// Up to so many the number rises without asking the processors; it doubles at each look.
const FREELY: usize = 8;
/// Above that it rises by so many at each look.
const STEP: usize = 2;

/// CRI-O downloads what images share once for each pull, and stores layers one after the other.
const CRI_O: Bounds = Bounds { first: 1, freely: 1, most: 2 };
const ANY: Bounds = Bounds { first: FIRST, freely: FREELY, most: MOST };

/// From this share of idle CPU on there is room for more.
const ROOM: f64 = 0.15;
/// Below this share the processors are busy.
const BUSY: f64 = 0.05;
/// From this share of the processors' time on that is spent waiting for disks, these are the limit.
const DISKS: f64 = 0.3;
/// So many looks in a row at busy processors or disks make the number fall by one.
const LOOKS: u32 = 3;

/// What a look at the node saw, as shares of the processors' time since the last look, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// Pulls under way.
    pub pulling: usize,
    /// They had nothing to do, and waited for no disk.
    pub idle: f64,
    /// They waited for disks.
    pub disks: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    first: usize,
    freely: usize,
    most: usize,
}

/// The number, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parallelism {
    bounds: Bounds,
    number: usize,
    /// Looks in a row that spoke for fewer.
    against: u32,
    /// Bytes came, or a pull ended well: what is waited for is not the first word of a registry.
    moved: bool,
    began: Option<Moment>,
}

impl Default for Parallelism {
    fn default() -> Self {
        Self::within(ANY)
    }
}

impl Parallelism {
    /// For the runtime of this name, as CRI's Version tells it.
    pub fn of(runtime: &str) -> Self {
        Self::within(if runtime == "cri-o" { CRI_O } else { ANY })
    }

    fn within(bounds: Bounds) -> Self {
        Self { bounds, number: bounds.first, against: 0, moved: false, began: None }
    }

    /// Pulls that may run at once now.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Nothing is left that waits for its turn: the next images begin with the first number, because the network and
    /// the node may be different by then.
    pub fn rest(&mut self) {
        *self = Self::within(self.bounds);
    }

    /// How long after this moment the next look is due, while images wait for their turn. The first looks are frequent:
    /// they decide how long a far registry is used by too few pulls. More frequent ones would see next to
    /// nothing in the kernel's counters.
    pub fn until_next_look(&mut self, now: Moment) -> Duration {
        let began = *self.began.get_or_insert(now);
        match now.since(began) {
            since if since < Duration::from_millis(100) => Duration::from_millis(25),
            since if since < Duration::from_secs(1) => Duration::from_millis(50),
            since if since < Duration::from_secs(10) => Duration::from_millis(100),
            _ => Duration::from_millis(500),
        }
    }

    /// Bytes came, or a pull ended well.
    pub fn moved(&mut self) {
        self.moved = true;
    }

    /// Images wait for their turn, and this was seen.
    pub fn looked(&mut self, sight: Sight) {
        let Bounds { freely, most, .. } = self.bounds;
        let least = if sight.disks >= DISKS {
            1
        } else if sight.idle < BUSY {
            freely
        } else {
            self.number
        };
        if self.number > least {
            self.against += 1;
            if self.against >= LOOKS {
                self.against = 0;
                self.number -= 1;
            }
            return;
        }
        self.against = 0;
        // where another limit holds pulls up, more would not change anything
        if sight.disks >= DISKS || sight.pulling < self.number {
            return;
        }
        if self.number < freely {
            self.number = (self.number * 2).min(freely);
        } else if sight.idle >= ROOM && self.moved {
            self.number = (self.number + STEP).min(most);
        }
    }
}

#[cfg(test)]
mod tests;
