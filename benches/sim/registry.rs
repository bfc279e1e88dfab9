//! A registry: bandwidth that its pulls share, connections, and pulls that it lets begin each second.

use std::{cmp::Reverse, collections::BinaryHeap};

/// What a registry can do.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Bytes a second of all pulls together.
    pub bandwidth: f64,
    /// Bytes a second of one pull: a node takes no more, with its disk and its unpacking.
    pub each: f64,
    /// Pulls at once; more are refused with 429.
    pub connections: usize,
    /// Pulls that may begin each second, and how many at once after a rest; more are refused with 429.
    pub begun_each_second: f64,
    /// See above.
    pub burst: f64,
}

/// The registry at work. All pulls get the same share, so one number tells how far all of them are: the bytes that a
/// pull would have got that was there from the beginning.
pub struct Registry {
    capacity: Capacity,
    now: f64,
    given: f64,
    tokens: f64,
    active: usize,
    /// Bytes given at which a pull has all, in thousandths, and its number.
    ends: BinaryHeap<Reverse<(u128, u64)>>,
    /// Pulls that were refused.
    pub refused: u64,
    /// Most pulls at once.
    pub most: usize,
}

impl Registry {
    /// At rest.
    pub fn new(capacity: Capacity) -> Self {
        let tokens = capacity.burst;
        Self { capacity, now: 0.0, given: 0.0, tokens, active: 0, ends: BinaryHeap::new(), refused: 0, most: 0 }
    }

    fn rate(&self) -> f64 {
        self.capacity.each.min(self.capacity.bandwidth / self.active.max(1) as f64)
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: f64) {
        let passed = now - self.now;
        self.given += passed * self.rate();
        self.tokens = (self.tokens + passed * self.capacity.begun_each_second).min(self.capacity.burst);
        self.now = now;
    }

    /// A pull of so many bytes begins, or is refused.
    pub fn begin(&mut self, number: u64, bytes: f64) -> bool {
        if self.active >= self.capacity.connections || self.tokens < 1.0 {
            self.refused += 1;
            return false;
        }
        self.tokens -= 1.0;
        self.active += 1;
        self.most = self.most.max(self.active);
        self.ends.push(Reverse((thousandths(self.given + bytes), number)));
        true
    }

    /// When the next pull ends if nothing else happens.
    pub fn next(&self) -> Option<f64> {
        let Reverse((end, _)) = self.ends.peek()?;
        Some(self.now + (*end as f64 / 1000.0 - self.given).max(0.0) / self.rate())
    }

    /// Takes the pull that ends now.
    pub fn end(&mut self) -> Option<u64> {
        let Reverse((_, number)) = self.ends.pop()?;
        self.active -= 1;
        Some(number)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of bytes")]
fn thousandths(bytes: f64) -> u128 {
    (bytes * 1000.0) as u128
}
