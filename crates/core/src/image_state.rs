//! The state of an image on this node: one enum, data only where it is valid, and the pure function that moves it.

use std::{fmt, sync::Arc};

use crate::{
    backoff::Failures, clock::Moment, credential_source::Source, error_class::PullError, image_ref::PullPolicy,
};

/// What the runtime says about an image in its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Digest by which the store knows it (that of its manifest or index); the image ID where no digest is known.
    pub digest: Arc<str>,
    /// Bytes, as the runtime counts them.
    pub size: u64,
    /// Whether the kubelet's garbage collector leaves it.
    pub pinned: bool,
}

/// Why an image waits that is to be pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wait {
    /// The runtime has not been asked yet, or does not answer.
    Runtime,
    /// This node's labels are not known, and the entry selects by them.
    Labels,
    /// Other pulls come first.
    Queue,
    /// The node's moment in the spread window has not come.
    Spread,
    /// Enough other nodes pull.
    Budget,
    /// The image filesystem is too full.
    Disk,
    /// The registry is left alone for a while.
    Cooldown,
    /// The node's disks are busy.
    IoPressure,
}

impl Wait {
    /// The waits that `pulls_waiting` counts.
    pub const COUNTED: [Self; 6] =
        [Self::Queue, Self::Spread, Self::Budget, Self::Disk, Self::Cooldown, Self::IoPressure];

    /// The name in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Labels => "labels",
            Self::Queue => "queue",
            Self::Spread => "spread",
            Self::Budget => "budget",
            Self::Disk => "disk",
            Self::Cooldown => "cooldown",
            Self::IoPressure => "io-pressure",
        }
    }

    /// In words, for people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Runtime => "waiting for the container runtime to answer",
            Self::Labels => "waiting for this node's labels, by which its entry selects nodes",
            Self::Queue => "waiting for its turn",
            Self::Spread => "waiting for this node's moment in the spread window",
            Self::Budget => "waiting for other nodes to finish (pullingNodes)",
            Self::Disk => "waiting for space on the image filesystem",
            Self::Cooldown => "waiting because its registry limits requests or is unavailable",
            Self::IoPressure => "waiting because the node's disks are busy (maxIOPressure)",
        }
    }
}

/// Which credential a pull succeeded with; never its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedCredential {
    /// The kind of source.
    pub source: Source,
    /// Which one of that kind.
    pub origin: Arc<str>,
}

impl fmt::Display for UsedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.source, self.origin)
    }
}

/// The state of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum ImageState {
    /// It is to be pulled, and waits.
    Pending {
        /// For what.
        why: Wait,
        /// Since when it is to be pulled.
        since: Moment,
        /// What went wrong before, if anything.
        failures: Option<Failures>,
    },
    /// It is being pulled.
    Pulling {
        /// Which attempt in a row, from 1.
        attempt: u32,
        /// When this attempt began.
        started: Moment,
        /// What went wrong before, if anything.
        failures: Option<Failures>,
        /// The runtime has said that it is there; what came is still being asked.
        answered: bool,
    },
    /// It is in the store.
    Present {
        /// What the runtime says about it.
        stored: Stored,
        /// Since when this agent knows.
        since: Moment,
        /// When the registry was last asked about it by this agent.
        asked: Option<Moment>,
        /// What the last pull by this agent succeeded with; none for an anonymous pull, or without one.
        credential: Option<UsedCredential>,
    },
    /// The last attempt failed, and the next one waits.
    BackOff {
        /// Failures in a row.
        failures: Failures,
        /// When the next attempt may begin.
        until: Moment,
        /// What went wrong last.
        error: PullError,
    },
    /// It is not there, and its policy is `Never`.
    Missing {
        /// Since when this agent knows.
        since: Moment,
    },
    /// Its entry cannot be used.
    Invalid {
        /// Why, with a remedy.
        why: Arc<str>,
    },
    /// Its entry selects other nodes.
    NotForThisNode,
}

/// The variants' names, in the order in which people read them.
pub const STATE_NAMES: [&str; 7] = ["Present", "Pulling", "Pending", "BackOff", "Missing", "Invalid", "NotForThisNode"];

impl ImageState {
    /// Where an image begins.
    pub fn new(now: Moment) -> Self {
        Self::Pending { why: Wait::Runtime, since: now, failures: None }
    }

    /// The variant's name, in JSON and labels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending { .. } => "Pending",
            Self::Pulling { .. } => "Pulling",
            Self::Present { .. } => "Present",
            Self::BackOff { .. } => "BackOff",
            Self::Missing { .. } => "Missing",
            Self::Invalid { .. } => "Invalid",
            Self::NotForThisNode => "NotForThisNode",
        }
    }

    /// Whether the runtime is at work on it: one of the pulls that limits count.
    pub fn is_under_way(&self) -> bool {
        matches!(self, Self::Pulling { answered: false, .. })
    }

    fn failures(&self) -> Option<Failures> {
        match self {
            Self::Pending { failures, .. } | Self::Pulling { failures, .. } => *failures,
            Self::BackOff { failures, .. } => Some(*failures),
            Self::Present { .. } | Self::Missing { .. } | Self::Invalid { .. } | Self::NotForThisNode => None,
        }
    }
}

/// Something that happened to an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The runtime was asked for it.
    Looked {
        /// What is in the store.
        found: Option<Stored>,
        /// The entry's policy.
        policy: PullPolicy,
    },
    /// The entry was edited, a secret of its changed, or the runtime is back: try at once.
    Forgiven {
        /// The entry's policy.
        policy: PullPolicy,
        /// What is in the store as far as is known.
        found: Option<Stored>,
    },
    /// The plan lets it wait.
    Held(Wait),
    /// A pull begins.
    Started,
    /// The runtime said that the pull ended well; what came is asked next.
    Answered,
    /// The pull ended well.
    Pulled {
        /// What is in the store now.
        stored: Stored,
        /// What it succeeded with.
        credential: Option<UsedCredential>,
    },
    /// The pull ended badly.
    Failed {
        /// Why.
        error: PullError,
        /// The row of failures, this one included.
        failures: Failures,
        /// When the next attempt may begin.
        until: Moment,
    },
    /// The runtime went away, and the pull with it: nobody's failure.
    Interrupted,
    /// Its download broke off, and goes on from where it was.
    BrokeOff {
        /// Why.
        error: PullError,
    },
}

/// Moves a state. Whether a change is told to people follows from comparing the names of before and after.
#[must_use]
pub fn step(state: ImageState, event: Event, now: Moment) -> ImageState {
    match (state, event) {
        // entries that are not for pulling stay what they are
        (
            fixed @ (ImageState::Invalid { .. } | ImageState::NotForThisNode),
            Event::Looked { .. }
            | Event::Forgiven { .. }
            | Event::Held(_)
            | Event::Started
            | Event::Answered
            | Event::Pulled { .. }
            | Event::Failed { .. }
            | Event::Interrupted
            | Event::BrokeOff { .. },
        ) => fixed,

        // a running pull decides by its own end
        (
            pulling @ ImageState::Pulling { .. },
            Event::Looked { .. } | Event::Held(_) | Event::Started | Event::Forgiven { .. },
        ) => pulling,
        (ImageState::Present { stored, since, asked, credential }, Event::Looked { found, policy }) => match found {
            Some(found) if found.digest == stored.digest => {
                ImageState::Present { stored: found, since, asked, credential }
            }
            Some(found) => ImageState::Present { stored: found, since: now, asked, credential: None },
            None => absent(policy, None, now),
        },
        (before @ ImageState::Pending { .. }, Event::Looked { found, policy }) => {
            let failures = before.failures();
            match (found, policy) {
                (Some(stored), PullPolicy::IfNotPresent | PullPolicy::Never) => present(stored, now),
                (None, PullPolicy::Never) => ImageState::Missing { since: now },
                (Some(_) | None, PullPolicy::Always) | (None, PullPolicy::IfNotPresent) => match before {
                    // the store was looked at, so it no longer waits for the runtime
                    ImageState::Pending { why: Wait::Runtime, since, .. } => {
                        ImageState::Pending { why: Wait::Queue, since, failures }
                    }
                    before => before,
                },
            }
        }
        (before @ ImageState::BackOff { .. }, Event::Looked { found, policy }) => match (found, policy) {
            (Some(stored), PullPolicy::IfNotPresent | PullPolicy::Never) => present(stored, now),
            (None, PullPolicy::Never) => ImageState::Missing { since: now },
            (Some(_) | None, PullPolicy::Always) | (None, PullPolicy::IfNotPresent) => before,
        },
        (ImageState::Missing { since }, Event::Looked { found, policy }) => match (found, policy) {
            (Some(stored), PullPolicy::IfNotPresent | PullPolicy::Never) => present(stored, now),
            (None, PullPolicy::Never) => ImageState::Missing { since },
            (Some(_) | None, PullPolicy::Always) | (None, PullPolicy::IfNotPresent) => absent(policy, None, now),
        },

        (
            ImageState::Pending { .. }
            | ImageState::Present { .. }
            | ImageState::BackOff { .. }
            | ImageState::Missing { .. },
            Event::Forgiven { policy, found },
        ) => match (found, policy) {
            (Some(stored), PullPolicy::IfNotPresent | PullPolicy::Never) => present(stored, now),
            (Some(_), PullPolicy::Always) => waiting(None, now),
            (None, _) => absent(policy, None, now),
        },

        (ImageState::Pending { since, failures, .. }, Event::Held(why)) => ImageState::Pending { why, since, failures },
        // the error of the last attempt says more than that the next one waits; and what is stored stays so
        (
            unchanged @ (ImageState::BackOff { .. } | ImageState::Present { .. } | ImageState::Missing { .. }),
            Event::Held(_),
        ) => unchanged,

        (
            before @ (ImageState::Pending { .. }
            | ImageState::Present { .. }
            | ImageState::BackOff { .. }
            | ImageState::Missing { .. }),
            Event::Started,
        ) => {
            let failures = before.failures();
            let attempt = failures.map_or(0, |f| f.count).saturating_add(1);
            ImageState::Pulling { attempt, started: now, failures, answered: false }
        }
        (ImageState::Pulling { attempt, started, failures, .. }, Event::Answered) => {
            ImageState::Pulling { attempt, started, failures, answered: true }
        }

        (
            ImageState::Pulling { .. }
            | ImageState::Pending { .. }
            | ImageState::Present { .. }
            | ImageState::BackOff { .. }
            | ImageState::Missing { .. },
            Event::Pulled { stored, credential },
        ) => ImageState::Present { stored, since: now, asked: Some(now), credential },

        (ImageState::Pulling { .. }, Event::Failed { error, failures, until }) => {
            ImageState::BackOff { failures, until, error }
        }
        (ImageState::Pulling { failures, .. }, Event::Interrupted) => {
            ImageState::Pending { why: Wait::Runtime, since: now, failures }
        }
        (ImageState::Pulling { failures, .. }, Event::BrokeOff { .. }) => waiting(failures, now),
        // a pull that was given up before its end came has nothing to say any more
        (
            other @ (ImageState::Pending { .. }
            | ImageState::Present { .. }
            | ImageState::BackOff { .. }
            | ImageState::Missing { .. }),
            Event::Failed { .. } | Event::Interrupted | Event::BrokeOff { .. } | Event::Answered,
        ) => other,
    }
}

fn present(stored: Stored, now: Moment) -> ImageState {
    ImageState::Present { stored, since: now, asked: None, credential: None }
}

fn waiting(failures: Option<Failures>, now: Moment) -> ImageState {
    ImageState::Pending { why: Wait::Queue, since: now, failures }
}

fn absent(policy: PullPolicy, failures: Option<Failures>, now: Moment) -> ImageState {
    match policy {
        PullPolicy::Never => ImageState::Missing { since: now },
        PullPolicy::Always | PullPolicy::IfNotPresent => waiting(failures, now),
    }
}

#[cfg(test)]
mod tests;
