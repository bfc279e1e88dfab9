//! What went wrong with a pull, as a class that says what to do about it.
//!
//! The runtime's answer is a gRPC code and a text; the code decides first, then the text, because containerd reports
//! most failures as `Unknown`. The texts are those of containerd 1.6, 1.7 and 2.x and of CRI-O.

use std::fmt;

use serde::Serialize;

use crate::{error_text, image_ref::ImageRef};

/// A kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum ErrorClass {
    /// The registry has no such repository, tag or digest.
    NotFound,
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
    /// None of these.
    Unknown,
}

impl ErrorClass {
    /// All classes, for metrics that show each from the start.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
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
        Self::Unknown,
    ];

    /// The class' name in JSON, labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
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
            Self::Unknown => "Unknown",
        }
    }

    /// What to do about it, one sentence.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotFound => {
                "Check the repository and the tag or digest for typing mistakes, and that the image was pushed and not deleted."
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
            Self::Unknown => "Read the message; the runtime's own log on the node says more.",
        }
    }

    /// Whether another credential could help: after a refusal, not after a network, time-out, rate-limit or no-space
    /// error.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::NotFound | Self::Unauthorized | Self::Unknown => true,
            Self::NoMatchingPlatform
            | Self::RateLimited
            | Self::RegistryUnavailable
            | Self::Tls
            | Self::NoSpace
            | Self::Timeout
            | Self::Stalled
            | Self::SignatureValidationFailed
            | Self::InvalidName
            | Self::RuntimeUnavailable => false,
        }
    }

    /// Whether the runtime, or its absence, may be what went wrong.
    pub fn is_runtimes_fault(self) -> bool {
        matches!(self, Self::RuntimeUnavailable | Self::Stalled | Self::Timeout | Self::Unknown)
    }

    /// Whether the registry itself answered, so that it is reachable and lets requests through.
    pub fn is_registrys_answer(self) -> bool {
        matches!(self, Self::NotFound | Self::NoMatchingPlatform | Self::Unauthorized)
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

/// A failed pull, fit to be shown: the message is bounded, of one line, and without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullError {
    /// The kind of failure.
    pub class: ErrorClass,
    /// The kubelet's word for it, such as `ErrImagePull`.
    pub reason: &'static str,
    /// The kubelet's message for it.
    pub message: String,
    /// A download broke off after bytes had come: the registry was there.
    pub broke_off: bool,
}

impl fmt::Display for PullError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PullError {}

impl PullError {
    /// From a runtime's answer. `secrets` are texts that must not be shown: a registry may echo what it was sent.
    pub fn from_runtime(image: &ImageRef, code: Code, text: &str, secrets: &[&str]) -> Self {
        let class = classify(image, code, text);
        let (reason, message) = kubelet_words(image.written(), code, text);
        Self { class, reason, message: error_text::clean(&message, secrets), broke_off: false }
    }

    /// A failure that this agent found itself, such as its own time-out.
    pub fn own(class: ErrorClass, message: &str) -> Self {
        Self { class, reason: "ErrImagePull", message: error_text::clean(message, &[]), broke_off: false }
    }

    /// The same of a pull for which something had come. What then ends with the connection, and not with the registry's
    /// answer, is a download that broke off.
    #[must_use]
    pub fn after_bytes(mut self) -> Self {
        let text = self.message.to_lowercase();
        self.broke_off =
            self.class == ErrorClass::RegistryUnavailable && BROKEN.iter().any(|broken| text.contains(broken));
        self
    }
}

/// Reason and message as the kubelet words a failed pull. Only for `Unknown` does it drop the gRPC wrapper, so only
/// then can the two prefixes of the CRI be seen.
pub fn kubelet_words(image: &str, code: Code, text: &str) -> (&'static str, String) {
    if code == Code::Unknown {
        for (prefix, because) in [
            ("RegistryUnavailable", "the registry is unavailable"),
            ("SignatureValidationFailed", "the signature validation failed"),
        ] {
            if let Some(rest) = text.strip_prefix(prefix) {
                return (prefix, format!("image pull failed for {image} because {because}{rest}"));
            }
        }
        return ("ErrImagePull", text.to_owned());
    }
    ("ErrImagePull", format!("rpc error: code = {} desc = {text}", code.as_str()))
}

/// What a connection's end says, among the texts of [`ErrorClass::RegistryUnavailable`].
const BROKEN: [&str; 4] = ["connection reset by peer", "broken pipe", "unexpected eof", ": eof"];

/// Texts of each class, tried in this order: what is more telling comes first. All lower case.
const TEXTS: &[(ErrorClass, &[&str])] = &[
    (
        ErrorClass::SignatureValidationFailed,
        &["signaturevalidationfailed", "signature validation failed", "source image rejected:"],
    ),
    (ErrorClass::NoSpace, &["no space left on device", "disk quota exceeded"]),
    (ErrorClass::RateLimited, &["429 too many requests", "toomanyrequests", "too many requests"]),
    (
        ErrorClass::NoMatchingPlatform,
        &[
            "no match for platform in manifest",
            "no image found in manifest list for",
            "no image found in image index for",
            "does not match the specified platform",
        ],
    ),
    (
        ErrorClass::RegistryUnavailable,
        &[
            "registryunavailable",
            "tls handshake timeout",
            "no such host",
            "server misbehaving",
            "connection refused",
            "connection reset by peer",
            "broken pipe",
            "no route to host",
            "network is unreachable",
            "i/o timeout",
            "500 internal server error",
            "502 bad gateway",
            "503 service unavailable",
            "504 gateway time",
            "unexpected eof",
            ": eof",
        ],
    ),
    (
        ErrorClass::Tls,
        &[
            "x509:",
            "tls:",
            "certificate",
            "server gave http response to https client",
            "first record does not look like a tls handshake",
        ],
    ),
    (
        ErrorClass::Unauthorized,
        &[
            "401 unauthorized",
            "403 forbidden",
            "pull access denied",
            "authorization failed",
            "no basic auth credentials",
            "access to the resource is denied",
            "authentication required",
            "failed to authorize",
            "unauthorized",
            "insufficient_scope",
        ],
    ),
    (
        ErrorClass::Timeout,
        &[
            "context deadline exceeded",
            "deadline exceeded",
            "client.timeout exceeded",
            "timeout awaiting response headers",
        ],
    ),
    (
        ErrorClass::InvalidName,
        &[
            "invalid reference format",
            "failed to parse image reference",
            "short name mode is enforcing",
            "invalid image name",
        ],
    ),
    (ErrorClass::NotFound, &["manifest unknown", "name unknown", "404 not found", "not found"]),
    (ErrorClass::RuntimeUnavailable, &["transport error", "error trying to connect", "tcp connect error"]),
    (ErrorClass::Stalled, &["context canceled", "no progress"]),
];

/// The class of a runtime's answer about an image. What the image is called does not count, so that nobody's
/// repository `x509/no-such-host` misleads the on-call engineer.
pub fn classify(image: &ImageRef, code: Code, text: &str) -> ErrorClass {
    match code {
        Code::Unavailable | Code::Unimplemented => return ErrorClass::RuntimeUnavailable,
        Code::DeadlineExceeded => return ErrorClass::Timeout,
        Code::Cancelled | Code::Unknown | Code::InvalidArgument | Code::NotFound | Code::Other(_) => {}
    }
    let text = without_names(image, text).to_lowercase();
    for (class, texts) in TEXTS {
        if texts.iter().any(|t| text.contains(t)) {
            return *class;
        }
    }
    match code {
        Code::NotFound => ErrorClass::NotFound,
        Code::InvalidArgument => ErrorClass::InvalidName,
        Code::Other("PermissionDenied" | "Unauthenticated") => ErrorClass::Unauthorized,
        Code::Cancelled => ErrorClass::Stalled,
        _ => ErrorClass::Unknown,
    }
}

fn without_names(image: &ImageRef, text: &str) -> String {
    let mut names = vec![image.cri_image(), image.canonical(), image.lookup_key(), image.written().to_owned()];
    names.push(image.repository().to_owned());
    if !image.registry().as_str().is_empty() {
        names.push(image.registry().to_string());
    }
    names.extend(image.tag().map(|tag| format!("/manifests/{tag}")));
    // a short name such as `tls` would take words out of the text itself: only what cannot be prose is removed
    names.retain(|n| n.contains(['/', ':', '.']));
    names.sort_by_key(|n| std::cmp::Reverse(n.len()));
    names.iter().fold(text.to_owned(), |text, name| text.replace(name.as_str(), "…"))
}

#[cfg(test)]
mod tests;
