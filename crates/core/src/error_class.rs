//! What went wrong with a pull, as a class that says what to do about it.
//!
//! The runtime's answer is a gRPC code and a text. [`diagnose`] reads the text first, because containerd reports most
//! failures as `Unknown` and dropped packets as `DeadlineExceeded`; the code decides if no rule knows the text. The
//! rules are data (`rules`), and the texts are those of containerd 1.6, 1.7 and 2.x, of CRI-O and of cri-dockerd.

use std::fmt;

use serde::Serialize;

mod diagnosis;
mod pull_error;
mod rules;

pub use diagnosis::{Diagnosis, diagnose, is_about_the_name};
pub use pull_error::{PullError, kubelet_words};

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ErrorClass {
    /// The registry has no such repository, tag or digest.
    NotFound,
    /// The registry sends an image that cannot be unpacked or verified.
    DamagedContent,
    /// What the name leads to is not a container image, or has a format that the runtime cannot unpack.
    UnsupportedArtifact,
    /// The image is an index without anything for this node's platform.
    NoMatchingPlatform,
    /// The registry wants other credentials, or any at all.
    Unauthorized,
    /// The registry answers 429.
    RateLimited,
    /// The registry cannot be reached or answers 5xx.
    RegistryUnavailable,
    /// The registry's certificate is not accepted, or one side speaks TLS and the other does not.
    Tls,
    /// The node's image filesystem is full.
    NoSpace,
    /// The attempt took longer than its bound.
    Timeout,
    /// The download stood still for longer than its bound.
    Stalled,
    /// The runtime's policy refuses the image's signature.
    SignatureValidationFailed,
    /// The runtime does not accept the name.
    InvalidName,
    /// The runtime does not answer.
    RuntimeUnavailable,
    /// The runtime answers, and a part of it (a snapshotter, a decoder) is missing or does not work.
    RuntimeMisconfigured,
    /// None of these.
    Unknown,
}

impl ErrorClass {
    /// All classes, for metrics that show each from the start.
    pub const ALL: [Self; 16] = [
        Self::NotFound,
        Self::DamagedContent,
        Self::UnsupportedArtifact,
        Self::NoMatchingPlatform,
        Self::Unauthorized,
        Self::RateLimited,
        Self::RegistryUnavailable,
        Self::Tls,
        Self::NoSpace,
        Self::Timeout,
        Self::Stalled,
        Self::SignatureValidationFailed,
        Self::InvalidName,
        Self::RuntimeUnavailable,
        Self::RuntimeMisconfigured,
        Self::Unknown,
    ];

    /// The class' name in JSON, labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::DamagedContent => "DamagedContent",
            Self::UnsupportedArtifact => "UnsupportedArtifact",
            Self::NoMatchingPlatform => "NoMatchingPlatform",
            Self::Unauthorized => "Unauthorized",
            Self::RateLimited => "RateLimited",
            Self::RegistryUnavailable => "RegistryUnavailable",
            Self::Tls => "Tls",
            Self::NoSpace => "NoSpace",
            Self::Timeout => "Timeout",
            Self::Stalled => "Stalled",
            Self::SignatureValidationFailed => "SignatureValidationFailed",
            Self::InvalidName => "InvalidName",
            Self::RuntimeUnavailable => "RuntimeUnavailable",
            Self::RuntimeMisconfigured => "RuntimeMisconfigured",
            Self::Unknown => "Unknown",
        }
    }

    /// Returns what to do about it, in one sentence. A [`Diagnosis`] may have a remedy that fits its cause better.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotFound => {
                "Check the repository and the tag or digest for typing mistakes, and that the image was pushed and not deleted."
            }
            Self::DamagedContent => {
                "Push the image again: a layer is damaged, or a mirror or proxy on the way changes what it sends."
            }
            Self::UnsupportedArtifact => {
                "List a container image: this is another artifact (a Helm chart, for instance), or its layers have a type that the runtime cannot unpack."
            }
            Self::NoMatchingPlatform => {
                "Push the image for this node's operating system and architecture, or select other nodes with nodeSelector."
            }
            Self::Unauthorized => {
                "Check that the image exists, and see `prepull explain IMAGE` for the credentials that are tried; add or renew a pull secret."
            }
            Self::RateLimited => {
                "Nothing needs to be done now: the registry is left alone for a while; pull with credentials, through a mirror, or with a lower parallelPullsPerRegistry."
            }
            Self::RegistryUnavailable => {
                "Check the registry, its DNS name and the route from this node; pulls go on by themselves when it answers."
            }
            Self::Tls => {
                "Install the registry's CA for the runtime (certs.d on containerd), renew the certificate, or configure plain HTTP if that is meant."
            }
            Self::NoSpace => "Free space on the image filesystem, shorten the list, or give the node a larger disk.",
            Self::Timeout => "Raise pullTimeout for this image, or bring a mirror nearer to the node.",
            Self::Stalled => {
                "Check the network between node and registry; the pull is tried again, and layers that are complete are kept."
            }
            Self::SignatureValidationFailed => {
                "Sign the image as the node's policy wants it, or correct the policy of the runtime."
            }
            Self::InvalidName => "Write the full name, registry/repository:tag, in the list.",
            Self::RuntimeUnavailable => {
                "Check that the container runtime runs and that its socket is mounted; pulls go on by themselves when it answers."
            }
            Self::RuntimeMisconfigured => {
                "Fix the container runtime on this node: the message names the part that is missing or does not answer."
            }
            Self::Unknown => "Read the message; the runtime's own log on the node says more.",
        }
    }

    /// Whether another credential could help: after a refusal, not after a network, time-out, rate-limit or no-space
    /// error.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::NotFound | Self::Unauthorized | Self::Unknown => true,
            Self::DamagedContent
            | Self::UnsupportedArtifact
            | Self::NoMatchingPlatform
            | Self::RateLimited
            | Self::RegistryUnavailable
            | Self::Tls
            | Self::NoSpace
            | Self::Timeout
            | Self::Stalled
            | Self::SignatureValidationFailed
            | Self::InvalidName
            | Self::RuntimeUnavailable
            | Self::RuntimeMisconfigured => false,
        }
    }

    /// Whether the runtime, or its absence, may be what went wrong.
    pub fn is_runtimes_fault(self) -> bool {
        matches!(
            self,
            Self::RuntimeUnavailable | Self::RuntimeMisconfigured | Self::Stalled | Self::Timeout | Self::Unknown
        )
    }

    /// Whether the registry itself answered, so that it is reachable and lets requests through.
    pub fn is_registrys_answer(self) -> bool {
        matches!(
            self,
            Self::NotFound
                | Self::DamagedContent
                | Self::UnsupportedArtifact
                | Self::NoMatchingPlatform
                | Self::Unauthorized
        )
    }

    /// Whether the registry is to be left alone for a while by all images of the node.
    pub fn cools_registry_down(self) -> bool {
        matches!(self, Self::RateLimited | Self::RegistryUnavailable)
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// gRPC status codes as far as they tell pulls apart (numbers of the gRPC specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 1
    Cancelled,
    /// 2
    Unknown,
    /// 3
    InvalidArgument,
    /// 4
    DeadlineExceeded,
    /// 5
    NotFound,
    /// 12
    Unimplemented,
    /// 14
    Unavailable,
    /// Any other, by its name in Go's wording.
    Other(&'static str),
}

impl Code {
    /// From the number on the wire.
    pub fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Cancelled,
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::Other("AlreadyExists"),
            7 => Self::Other("PermissionDenied"),
            8 => Self::Other("ResourceExhausted"),
            9 => Self::Other("FailedPrecondition"),
            10 => Self::Other("Aborted"),
            11 => Self::Other("OutOfRange"),
            12 => Self::Unimplemented,
            13 => Self::Other("Internal"),
            14 => Self::Unavailable,
            15 => Self::Other("DataLoss"),
            16 => Self::Other("Unauthenticated"),
            _ => Self::Unknown,
        }
    }

    /// The name as Go's gRPC prints it, which is how the kubelet shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "Canceled",
            Self::Unknown => "Unknown",
            Self::InvalidArgument => "InvalidArgument",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::NotFound => "NotFound",
            Self::Unimplemented => "Unimplemented",
            Self::Unavailable => "Unavailable",
            Self::Other(name) => name,
        }
    }
}

#[cfg(test)]
mod tests;
