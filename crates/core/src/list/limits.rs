//! The `limits` of a list, and what the limits of several lists mean together.

use std::{collections::BTreeSet, time::Duration};

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
    /// Fields that stand in the list and cannot be read. What they guard is not to be let go by a typing mistake.
    pub unread: BTreeSet<&'static str>,
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
            unread: BTreeSet::new(),
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
            unread: a.unread.union(&b.unread).copied().collect(),
        }
    }

    /// Returns the names of the fields that limit the whole node and differ from the default or cannot be read: everything but
    /// `pullTimeout`, which is about one list's pulls.
    pub fn node_wide(&self) -> Vec<&'static str> {
        let default = Self::default();
        let set = [
            ("parallelPulls", self.parallel_pulls != default.parallel_pulls),
            ("parallelPullsPerRegistry", self.parallel_pulls_per_registry != default.parallel_pulls_per_registry),
            ("pullingNodes", self.pulling_nodes != default.pulling_nodes),
            ("spread", self.spread != default.spread),
            ("maxDiskUsage", self.max_disk_usage != default.max_disk_usage),
            ("resumeDiskUsage", self.resume_disk_usage != default.resume_disk_usage),
            ("maxPinnedSize", self.max_pinned_size != default.max_pinned_size),
            ("maxIOPressure", self.max_io_pressure != default.max_io_pressure),
            ("stallTimeout", self.stall_timeout != default.stall_timeout),
        ];
        set.into_iter().filter(|(name, is_set)| *is_set || self.unread.contains(name)).map(|(name, _)| name).collect()
    }

    /// Puts the last good value of the same list in place of each that cannot be read.
    pub fn keep(&mut self, last: &Self) {
        for name in std::mem::take(&mut self.unread) {
            if last.unread.contains(name) {
                self.unread.insert(name);
                continue;
            }
            match name {
                "parallelPulls" => self.parallel_pulls = last.parallel_pulls,
                "parallelPullsPerRegistry" => self.parallel_pulls_per_registry = last.parallel_pulls_per_registry,
                "pullingNodes" if last.pulling_nodes.is_some() => self.pulling_nodes = last.pulling_nodes,
                "maxPinnedSize" if last.max_pinned_size.is_some() => self.max_pinned_size = last.max_pinned_size,
                "maxIOPressure" if last.max_io_pressure.is_some() => self.max_io_pressure = last.max_io_pressure,
                // that there was no limit is no value that stays where there is to be one
                "pullingNodes" | "maxPinnedSize" | "maxIOPressure" => drop(self.unread.insert(name)),
                "spread" => self.spread = last.spread,
                "maxDiskUsage" => {
                    self.max_disk_usage = last.max_disk_usage;
                    self.resume_disk_usage = last.resume_disk_usage;
                }
                "resumeDiskUsage" if last.resume_disk_usage < self.max_disk_usage => {
                    self.resume_disk_usage = last.resume_disk_usage;
                }
                // 5 points under the upper one, as by default
                "resumeDiskUsage" => {}
                "pullTimeout" => self.pull_timeout = last.pull_timeout,
                _ => self.stall_timeout = last.stall_timeout,
            }
        }
    }

    /// Whether there is to be a cap on what is pinned that nobody knows: then nothing is pinned, and nothing unpinned.
    pub fn pin_cap_is_unknown(&self) -> bool {
        self.unread.contains("maxPinnedSize")
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

/// What is in force of a limit that cannot be read and never could; the strictest that still lets images come.
const ONE_NODE: u32 = 1;
/// The same for `maxIOPressure`.
const CALM: f64 = 10.0;

/// Reads `limits`. A field with a problem does not keep the rest from being in force.
pub(super) fn read(field: Option<Field<'_>>, problems: &mut Problems) -> Limits {
    let mut limits = Limits::default();
    let Some(field) = field else { return limits };
    let Some(fields) = Fields::of(&field, problems) else {
        problems.amend_last(" (not in force: the last good limits stay, and where there are none, the strictest)");
        limits.unread = FIELDS.iter().copied().collect();
        limits.be_strict();
        return limits;
    };
    let mut reader = Reader { fields, problems, unread: BTreeSet::new() };
    if let Some(n) = reader.take("parallelPulls", parallel) {
        limits.parallel_pulls = n;
    }
    limits.parallel_pulls_per_registry = reader
        .take("parallelPullsPerRegistry", |f, p| f.integer(1, MOST_PULLS, p).and_then(|n| usize::try_from(n).ok()));
    limits.pulling_nodes =
        reader.take("pullingNodes", |f, p| f.integer(1, 100_000, p).and_then(|n| u32::try_from(n).ok()));
    if let Some(spread) = reader.take("spread", |f, p| f.unit(units::duration, p)) {
        limits.spread = spread;
    }
    if let Some(timeout) = reader.take("pullTimeout", Field::duration) {
        limits.pull_timeout = timeout;
    }
    if let Some(timeout) = reader.take("stallTimeout", Field::duration) {
        limits.stall_timeout = timeout;
    }
    limits.max_pinned_size = reader.take("maxPinnedSize", |f, p| f.unit(units::bytes, p));
    limits.max_io_pressure = reader.take("maxIOPressure", |f, p| f.unit(units::pressure, p));
    disk_marks(&mut limits, &mut reader);
    limits.unread = reader.unread;
    limits.be_strict();
    reader.fields.refuse_the_rest(FIELDS, reader.problems);
    limits
}

impl Limits {
    /// What cannot be read must not mean that there is no limit. What is not named here has a default that limits.
    fn be_strict(&mut self) {
        for name in &self.unread {
            match *name {
                "pullingNodes" => self.pulling_nodes = Some(ONE_NODE),
                "maxIOPressure" => self.max_io_pressure = Some(CALM),
                _ => {}
            }
        }
    }
}

/// Takes fields, and notes those that cannot be read.
struct Reader<'a, 'p> {
    fields: Fields<'a>,
    problems: &'p mut Problems,
    unread: BTreeSet<&'static str>,
}

impl<'a> Reader<'a, '_> {
    fn take<T>(&mut self, name: &'static str, read: impl FnOnce(&Field<'a>, &mut Problems) -> Option<T>) -> Option<T> {
        let field = self.fields.take(name)?;
        let value = read(&field, self.problems);
        if value.is_none() {
            self.unread.insert(name);
            let otherwise = match name {
                "pullingNodes" => "one node pulls at once",
                "maxPinnedSize" => "nothing is pinned or unpinned",
                "maxIOPressure" => "10",
                _ => "the default",
            };
            self.problems.amend_last(&format!(
                " (not in force: the last good value stays, and where there is none, {otherwise})"
            ));
        }
        value
    }
}

fn disk_marks(limits: &mut Limits, reader: &mut Reader<'_, '_>) {
    if let Some(max) = reader.take("maxDiskUsage", |f, p| f.unit(units::percentage, p)) {
        limits.max_disk_usage = max;
        limits.resume_disk_usage = max.saturating_sub(5);
    }
    let most = limits.max_disk_usage;
    let resume = reader.take("resumeDiskUsage", |field, problems| {
        let low = field.unit(units::percentage, problems)?;
        if low >= most {
            problems.push(field.problem(
                format!("pulls would go on at {low}%, which is not below maxDiskUsage ({most}%)"),
                "write a percentage below maxDiskUsage, or leave it out for 5 points under it",
            ));
            return None;
        }
        Some(low)
    });
    if let Some(low) = resume {
        limits.resume_disk_usage = low;
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
