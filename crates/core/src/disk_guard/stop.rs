//! Why the disk stops a pull, in words for people.

use std::sync::Arc;

use super::{Marks, Usage};
use crate::{clock::Moment, display::bytes, error_text::one_line};

/// Why the disk stops a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The disk was fuller than the upper mark, and is not below the lower one yet.
    Full {
        /// As it is.
        usage: Usage,
        /// The marks.
        marks: Marks,
    },
    /// The filesystem can hold few more files.
    Inodes {
        /// As it is.
        usage: Usage,
    },
    /// The kubelet says that the node lacks space.
    NodePressure,
    /// An image was removed again and again.
    Contested {
        /// Which one.
        image: Arc<str>,
        /// Until when nothing is pulled.
        until: Moment,
    },
    /// The image was there before, and would not fit now.
    NoRoom {
        /// As it is.
        usage: Usage,
        /// The marks.
        marks: Marks,
        /// Bytes that it takes.
        size: u64,
        /// Bytes that pulls under way take.
        reserved: u64,
    },
    /// The runtime found no space for it, and there is no more of it since.
    Refused {
        /// As it is.
        usage: Usage,
        /// Bytes that have to be available before it is tried again.
        needs: u64,
        /// Bytes that pulls under way take.
        reserved: u64,
        /// When it is tried again all the same.
        until: Moment,
    },
    /// There is little space, and an image that is required is not there yet.
    RequiredFirst {
        /// Which one.
        image: Arc<str>,
    },
    /// The disk is between the marks, and another pull is under way.
    OneAtATime {
        /// As it is.
        usage: Usage,
        /// The marks.
        marks: Marks,
    },
}

impl Stop {
    /// One word, by which a change of the reason is told from a change of its figures.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full { .. } => "Full",
            Self::Inodes { .. } => "Inodes",
            Self::NodePressure => "NodePressure",
            Self::Contested { .. } => "Contested",
            Self::NoRoom { .. } => "NoRoom",
            Self::Refused { .. } => "Refused",
            Self::RequiredFirst { .. } => "RequiredFirst",
            Self::OneAtATime { .. } => "OneAtATime",
        }
    }

    /// With figures, in one clause.
    pub fn why(&self, now: Moment) -> String {
        match self {
            Self::Full { usage, marks: Marks { max, resume } } => format!(
                "the image filesystem is {} full ({} of {} available); pulls stop above {max} % (maxDiskUsage) and go on below {resume} % (resumeDiskUsage)",
                percent(usage.ratio()),
                bytes(usage.available),
                bytes(usage.capacity),
            ),
            Self::Inodes { usage } => format!(
                "the image filesystem has {} of {} inodes left; pulls go on at {} %",
                usage.inodes_free,
                usage.inodes,
                super::LEAST_INODES
            ),
            Self::NodePressure => {
                "the node has the condition DiskPressure: the kubelet makes room and would collect what is pulled now"
                    .to_owned()
            }
            Self::Contested { image, until } => format!(
                "{} was removed from the store twice within {} minutes, so somebody makes room there; pulls go on in {} s",
                one_line(image),
                super::AGAIN.as_secs() / 60,
                until.since(now).as_secs()
            ),
            Self::NoRoom { usage, marks, size, reserved } => {
                let others = beside(*reserved, "");
                format!(
                    "it takes {} and was removed once already; the image filesystem is {} full{others}, and with it there would be more than {} % (maxDiskUsage)",
                    bytes(*size),
                    percent(usage.ratio()),
                    marks.max
                )
            }
            Self::Refused { usage, needs, reserved, until } => {
                let others = beside(*reserved, "of which ");
                format!(
                    "it found no space on the image filesystem; it is tried again when {} are available (now {} of {} are{others}), or in {} min",
                    bytes(*needs),
                    bytes(usage.available),
                    bytes(usage.capacity),
                    until.since(now).as_secs().div_ceil(60)
                )
            }
            Self::RequiredFirst { image } => format!(
                "there is little space on the image filesystem, and required images go first: {} is not there yet",
                one_line(image)
            ),
            Self::OneAtATime { usage, marks } => format!(
                "the image filesystem is {} full, and from {} % (resumeDiskUsage) on one image is pulled at a time",
                percent(usage.ratio()),
                marks.resume
            ),
        }
    }

    /// What to do about it, one sentence.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Full { .. } | Self::Refused { .. } => {
                "Free space on the image filesystem, shorten the list, or give the node a larger disk; the pull then begins by itself."
            }
            Self::Inodes { .. } => {
                "Remove files from the image filesystem, or make it anew with more inodes; the pull then begins by itself."
            }
            Self::NodePressure => {
                "See `kubectl describe node` for what fills the disk; the pull begins by itself when the condition ends."
            }
            Self::Contested { .. } => {
                "Find who removes it: the kubelet under disk pressure (kubectl describe node), its imageMaximumGCAge, or somebody by hand."
            }
            Self::NoRoom { .. } => {
                "Free space, shorten the list, or give the node a larger disk; pulled now, the kubelet would collect it again."
            }
            Self::RequiredFirst { .. } => {
                "It begins by itself when that image is there; free space, or set required: true for this one too."
            }
            Self::OneAtATime { .. } => "It begins by itself when the pull under way has ended.",
        }
    }
}

/// For who pulls all the same.
pub(super) fn warning(usage: Usage, marks: Marks) -> String {
    format!(
        "the image filesystem is {} full ({} of {} available), and above {} % (maxDiskUsage) an agent pulls nothing; the kubelet may collect what is pulled now",
        percent(usage.ratio()),
        bytes(usage.available),
        bytes(usage.capacity),
        marks.max
    )
}

/// Rounded up as the kubelet does, so that what is above a mark never reads as if it stood on it.
fn percent(ratio: f64) -> String {
    format!("{:.0} %", (ratio * 100.0).ceil())
}

/// What pulls under way take, as a part of a sentence; nothing where that is nothing.
fn beside(reserved: u64, words: &str) -> String {
    if reserved == 0 { String::new() } else { format!(", {words}pulls under way take {}", bytes(reserved)) }
}
