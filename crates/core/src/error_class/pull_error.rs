//! A failed pull, as the status, logs and Events show it.

use std::fmt;

use super::{Code, Diagnosis, ErrorClass, diagnose};
use crate::{error_text, image_ref::ImageRef};

/// A failed pull, fit to be shown: the message is bounded, of one line, and without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullError {
    /// The kind of failure.
    pub class: ErrorClass,
    /// What to do about it, in one sentence.
    pub remedy: &'static str,
    /// Whether another credential could help.
    pub try_next_credential: bool,
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
        let diagnosis = diagnose(image, code, text);
        let (reason, message) = kubelet_words(image.written(), code, text);
        Self::new(diagnosis, reason, error_text::clean(&message, secrets))
    }

    /// A failure that this agent found itself, such as its own time-out.
    pub fn own(class: ErrorClass, message: &str) -> Self {
        Self::new(Diagnosis::of(class), "ErrImagePull", error_text::clean(message, &[]))
    }

    fn new(diagnosis: Diagnosis, reason: &'static str, message: String) -> Self {
        let Diagnosis { class, remedy, try_next_credential, .. } = diagnosis;
        Self { class, remedy, try_next_credential, reason, message, broke_off: false }
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

/// What a connection's end says, among the texts of [`ErrorClass::RegistryUnavailable`].
const BROKEN: [&str; 7] = [
    "connection reset by peer",
    "broken pipe",
    "unexpected eof",
    ": eof",
    "http2: client connection lost",
    "http2: server sent goaway",
    "stream error: stream id",
];

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
