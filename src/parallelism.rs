//! How many pulls run at once where the list leaves it to the agent (`parallelPulls: auto`). Pure: what was seen goes in,
//! the number comes out.
//!
//! What a pull costs a node is CPU: unpacking, checksums, copying. What it waits for is the network. While the node's
//! processors have nothing to do although pulls are under way, more of them wait for less; when the processors are busy,
//! more of them only share what there is. So the number rises while there is idle CPU and images wait for their turn,
//! quickly at first, because on a far registry every moment in which too few are under way is lost, and falls back
//! to the first number when the processors stay busy. Time that processors spend waiting for disks counts as busy, so
//! slow disks hold the number down as well.
//!
//! Processors that other work keeps busy say nothing about the network. So there a higher number is tried out, and kept,
//! with a still higher one to follow, while it brings more bytes.

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
/// How long bytes are counted before and after a trial.
const TRIAL: Duration = Duration::from_secs(1);
/// What a trial has to bring to be kept.
const GAIN: f64 = 1.15;
/// How long no other trial is made after one that brought nothing.
const CONTENT: Duration = Duration::from_secs(30);

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
#[derive(Debug, Clone, PartialEq)]
pub struct Parallelism {
    first: usize,
    most: usize,
    number: usize,
    /// What trials showed to be worth it: busy processors do not lower the number further.
    least: usize,
    busy: u32,
    room: bool,
    began: Option<Moment>,
    downloaded: u64,
    window: Option<Window>,
    trial: Option<Trial>,
    content_until: Moment,
}

/// What there was before a higher number was tried out.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Trial {
    number: usize,
    bytes_per_second: f64,
}

/// From when on bytes are counted, at an unchanged number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    number: usize,
    began: Moment,
    downloaded: u64,
}

impl Default for Parallelism {
    fn default() -> Self {
        Self::between(FIRST, MOST)
    }
}

impl Parallelism {
    /// For the runtime of this name, as CRI's Version tells it.
    pub fn of(runtime: &str) -> Self {
        let (first, most) = if runtime == "cri-o" { CRI_O } else { (FIRST, MOST) };
        Self::between(first, most)
    }

    fn between(first: usize, most: usize) -> Self {
        Self {
            first,
            most,
            number: first,
            least: first,
            busy: 0,
            room: false,
            began: None,
            downloaded: 0,
            window: None,
            trial: None,
            content_until: Moment::default(),
        }
    }

    /// Pulls that may run at once now.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Nothing is left that waits for its turn: the next images begin with the first number, because the network and
    /// the node may be different by then.
    pub fn rest(&mut self) {
        *self = Self::between(self.first, self.most);
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
        self.room = sight.idle >= ROOM;
        if sight.idle < BUSY {
            // a trial runs to its end
            self.busy += u32::from(self.trial.is_none());
            if self.busy >= BUSY_LOOKS {
                self.busy = 0;
                self.number = (self.number - 1).max(self.least.min(self.number));
            }
            return;
        }
        self.busy = 0;
        // where another limit holds pulls up, more would not change anything
        if self.room && sight.pulling >= self.number {
            self.number = self.more();
        }
    }

    fn more(&self) -> usize {
        let more = if self.number < DOUBLES_TO { (self.number * 2).min(DOUBLES_TO) } else { self.number + STEP };
        more.min(self.most)
    }

    /// So many bytes were downloaded since the last call, with so many pulls under way.
    pub fn downloaded(&mut self, bytes: u64, pulling: usize, now: Moment) {
        self.downloaded = self.downloaded.saturating_add(bytes);
        let fresh = Window { number: self.number, began: now, downloaded: self.downloaded };
        let Some(window) = self.window.filter(|w| w.number == self.number) else {
            // the processors changed the number: what was counted before says nothing about it
            self.window = Some(fresh);
            self.trial = None;
            return;
        };
        let took = now.since(window.began);
        if took < TRIAL {
            return;
        }
        let bytes_per_second = (self.downloaded - window.downloaded) as f64 / took.as_secs_f64();
        match self.trial.take() {
            Some(before) if bytes_per_second >= before.bytes_per_second * GAIN => self.least = self.number,
            Some(before) => {
                self.number = before.number;
                self.content_until = now + CONTENT;
            }
            None => {}
        }
        // with room the processors decide; without any byte there is nothing to compare
        let comparable = !self.room && bytes_per_second > 0.0 && pulling >= self.number;
        let more = self.more();
        if comparable && now >= self.content_until && more > self.number {
            self.trial = Some(Trial { number: self.number, bytes_per_second });
            self.number = more;
        }
        self.window = Some(Window { number: self.number, ..fresh });
    }
}

#[cfg(test)]
mod tests;
