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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error_class::{Code, PullError},
        image_ref::ImageRef,
        status::ImageStatus,
    };

    #[test]
    fn the_remedy_of_a_known_cause_is_kept() {
        let app = ImageRef::parse("registry.example.com/app:1").unwrap();
        let row = |text: &str| {
            let error = PullError::from_runtime(&app, Code::Unknown, text, &[]);
            let remedy = Some(error.remedy.to_owned());
            ImageStatus { state: "BackOff", class: Some(error.class), remedy, ..ImageStatus::default() }
        };
        let images = vec![row("Get \"https://registry.example.com/v2/\": Forbidden"), row("no such host")];
        let mut status = Status { images, ..Status::default() };
        nothing_follows(&mut status, true);
        let remedy = |n: usize| status.images[n].remedy.clone().unwrap();
        assert!(remedy(0).starts_with("Check the proxy"), "{}", remedy(0));
        assert!(remedy(1).ends_with("then run the command again."), "{}", remedy(1));
    }
}
