//! The `limits` of a list, and what the limits of several lists mean together.

use std::time::Duration;

use super::{
    fields::{Field, Fields},
    problems::Problems,
    units,
};

/// A number of parallel pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parallel {
    /// The agent chooses.
    #[default]
    Auto,
    /// Exactly this many at most.
    Fixed(usize),
}

impl Parallel {
    /// The number of pulls at once, where the agent chooses so many.
    pub fn get(self, auto: usize) -> usize {
        match self {
            Self::Auto => auto,
            Self::Fixed(n) => n,
        }
    }

    /// The smaller of two: a number is stricter than `auto`.
    fn strictest(self, other: Self) -> Self {
        match (self, other) {
            (Self::Auto, any) | (any, Self::Auto) => any,
            (Self::Fixed(a), Self::Fixed(b)) => Self::Fixed(a.min(b)),
        }
    }
}

/// How images are to be pulled. Defaults as documented for `images.yaml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Pulls at once on this node.
    pub parallel_pulls: Parallel,
    /// Pulls at once from one registry; where unset, as many as `parallel_pulls`.
    pub parallel_pulls_per_registry: Option<usize>,
    /// Nodes of the cluster that pull at once; unset: no cap.
    pub pulling_nodes: Option<u32>,
    /// Window in which nodes start, each at its own moment.
    pub spread: Duration,
    /// No new pull above this share of the image filesystem, in percent; 100 switches the guard off.
    pub max_disk_usage: u8,
    /// Pulls go on below this share, in percent.
    pub resume_disk_usage: u8,
    /// Bytes that all pinned images may have together; unset: no cap.
    pub max_pinned_size: Option<u64>,
    /// No new pull while `some avg10` of the kernel's I/O pressure is above this, in percent; unset: off.
    pub max_io_pressure: Option<f64>,
    /// Bound of one attempt, time in the queue not counted.
    pub pull_timeout: Duration,
    /// Longest time without a byte in an active download.
    pub stall_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parallel_pulls: Parallel::Auto,
            parallel_pulls_per_registry: None,
            pulling_nodes: None,
            spread: Duration::ZERO,
            max_disk_usage: 80,
            resume_disk_usage: 75,
            max_pinned_size: None,
            max_io_pressure: None,
            pull_timeout: Duration::from_mins(30),
            stall_timeout: Duration::from_mins(2),
        }
    }
}

impl Limits {
    /// The limits of the strictest, where several lists are in force.
    #[must_use]
    pub fn strictest(&self, other: &Self) -> Self {
        fn least<T: PartialOrd>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(if b < a { b } else { a }),
                (a, b) => a.or(b),
            }
        }
        let (a, b) = (self.clone(), other.clone());
        Self {
            parallel_pulls: a.parallel_pulls.strictest(b.parallel_pulls),
            parallel_pulls_per_registry: least(a.parallel_pulls_per_registry, b.parallel_pulls_per_registry),
            pulling_nodes: least(a.pulling_nodes, b.pulling_nodes),
            // a longer window is gentler
            spread: a.spread.max(b.spread),
            max_disk_usage: a.max_disk_usage.min(b.max_disk_usage),
            resume_disk_usage: a.resume_disk_usage.min(b.resume_disk_usage),
            max_pinned_size: least(a.max_pinned_size, b.max_pinned_size),
            max_io_pressure: least(a.max_io_pressure, b.max_io_pressure),
            pull_timeout: a.pull_timeout.min(b.pull_timeout),
            stall_timeout: a.stall_timeout.min(b.stall_timeout),
        }
    }
}

const FIELDS: &[&str] = &[
    "parallelPulls",
    "parallelPullsPerRegistry",
    "pullingNodes",
    "spread",
    "maxDiskUsage",
    "resumeDiskUsage",
    "maxPinnedSize",
    "maxIOPressure",
    "pullTimeout",
    "stallTimeout",
];

/// Most pulls at once that a list may ask for.
const MOST_PULLS: i64 = 64;

/// Reads `limits`. A field with a problem keeps its default, so that the rest stays in force.
pub(super) fn read(field: Option<Field<'_>>, problems: &mut Problems) -> Limits {
    let mut limits = Limits::default();
    let Some(mut fields) = field.and_then(|f| Fields::of(&f, problems)) else { return limits };
    if let Some(f) = fields.take("parallelPulls") {
        limits.parallel_pulls = parallel(&f, problems).unwrap_or_default();
    }
    if let Some(f) = fields.take("parallelPullsPerRegistry") {
        limits.parallel_pulls_per_registry = f.integer(1, MOST_PULLS, problems).and_then(|n| usize::try_from(n).ok());
    }
    if let Some(f) = fields.take("pullingNodes") {
        limits.pulling_nodes = f.integer(1, 100_000, problems).and_then(|n| u32::try_from(n).ok());
    }
    if let Some(f) = fields.take("spread") {
        limits.spread = f.unit(units::duration, problems).unwrap_or(limits.spread);
    }
    if let Some(f) = fields.take("pullTimeout") {
        limits.pull_timeout = f.duration(problems).unwrap_or(limits.pull_timeout);
    }
    if let Some(f) = fields.take("stallTimeout") {
        limits.stall_timeout = f.duration(problems).unwrap_or(limits.stall_timeout);
    }
    if let Some(f) = fields.take("maxPinnedSize") {
        limits.max_pinned_size = f.unit(units::bytes, problems);
    }
    if let Some(f) = fields.take("maxIOPressure") {
        limits.max_io_pressure = f.unit(units::pressure, problems);
    }
    disk_marks(&mut limits, fields.take("maxDiskUsage"), fields.take("resumeDiskUsage").as_ref(), problems);
    fields.refuse_the_rest(FIELDS, problems);
    limits
}

fn disk_marks(limits: &mut Limits, max: Option<Field<'_>>, resume: Option<&Field<'_>>, problems: &mut Problems) {
    if let Some(max) = max.and_then(|f| f.unit(units::percentage, problems)) {
        limits.max_disk_usage = max;
        limits.resume_disk_usage = max.saturating_sub(5);
    }
    if let Some(field) = resume {
        match field.unit(units::percentage, problems) {
            Some(low) if low < limits.max_disk_usage => limits.resume_disk_usage = low,
            Some(low) => problems.push(field.problem(
                format!("pulls would go on at {low}%, which is not below maxDiskUsage ({}%)", limits.max_disk_usage),
                "write a percentage below maxDiskUsage, or leave it out for 5 points under it",
            )),
            None => {}
        }
    }
}

fn parallel(field: &Field<'_>, problems: &mut Problems) -> Option<Parallel> {
    use super::tree::Value;
    if matches!(&*field.node.value, Value::Scalar { text, .. } if text == "auto") {
        return Some(Parallel::Auto);
    }
    if field.node.kind() != "a number" {
        problems.push(field.wrong_type("auto or a whole number", "write auto, or a whole number from 1 to 64"));
        return None;
    }
    field.integer(1, MOST_PULLS, problems).and_then(|n| usize::try_from(n).ok()).map(Parallel::Fixed)
}
