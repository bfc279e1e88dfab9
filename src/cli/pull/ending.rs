//! What a status means when nothing follows it: the agent's words promise that it goes on.

use crate::{error_class::ErrorClass, status::Status};

/// Rewrites what speaks of the next attempt. Names that were arguments are in no list.
pub(super) fn nothing_follows(status: &mut Status, are_arguments: bool) {
    for image in &mut status.images {
        match image.state {
            "BackOff" => {
                image.next_attempt = None;
                image.reason = Some("ErrImagePull");
                // what is known about the cause promises nothing
                let of_the_class = image.class.filter(|class| image.remedy.as_deref() == Some(class.remedy()));
                if let Some(remedy) = of_the_class.and_then(remedy) {
                    image.remedy = Some(remedy.to_owned());
                }
            }
            "Pending" => {
                image.wait = None;
                image.message = Some("it was not pulled before the end".to_owned());
            }
            "Invalid" if are_arguments => {
                image.remedy = Some("Correct the name on the command line.".to_owned());
            }
            _ => {}
        }
    }
}

/// The remedies that speak of a pull that goes on by itself.
fn remedy(class: ErrorClass) -> Option<&'static str> {
    match class {
        ErrorClass::RateLimited => Some(
            "Run the command again later or with --retry-for, or pull with credentials, through a mirror, or with a lower parallelPullsPerRegistry.",
        ),
        ErrorClass::RegistryUnavailable => {
            Some("Check the registry, its DNS name and the route from this node; then run the command again.")
        }
        ErrorClass::Stalled => Some(
            "Check the network between node and registry; then run the command again: layers that are complete are kept.",
        ),
        ErrorClass::RuntimeUnavailable => Some(
            "Check that the container runtime runs and that its socket can be reached; then run the command again.",
        ),
        ErrorClass::NotFound
        | ErrorClass::DamagedContent
        | ErrorClass::UnsupportedArtifact
        | ErrorClass::NoMatchingPlatform
        | ErrorClass::Unauthorized
        | ErrorClass::Tls
        | ErrorClass::NoSpace
        | ErrorClass::Timeout
        | ErrorClass::SignatureValidationFailed
        | ErrorClass::InvalidName
        | ErrorClass::RuntimeMisconfigured
        | ErrorClass::Unknown => None,
    }
}
