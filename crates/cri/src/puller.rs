//! One attempt to pull one image: each credential in turn, within a bound.

use std::{sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use zeroize::Zeroizing;

use crate::{
    cri::AuthConfig,
    runtime::{Runtime, spec_of},
};
use prepull_core::{
    desired::Target,
    error_class::{Code, ErrorClass, PullError},
    error_text,
    image_state::{Stored, UsedCredential},
    stock::Outcome,
};
use prepull_credentials::{Auth, Credential};

/// How long the runtime is asked what a pull brought; the next look at the store asks again.
const MOST_ASKED: Duration = Duration::from_secs(10);

/// Pulls a target with the credentials that were found for it; anonymously, once, where there are none.
///
/// The deadline is that of the whole attempt, the search for credentials included. Dropping the future ends the pull in the runtime.
/// What the runtime brings belongs to the lease, where there is one. A pull that did not end well is an outcome; one that did
/// becomes one by [`what_came`].
pub async fn pull(
    runtime: &Runtime,
    target: &Target,
    credentials: &[Credential],
    lease: Option<&str>,
    deadline: Instant,
) -> Result<Pulled, Outcome> {
    let bound = target.pull_timeout;
    let mut failures: Vec<PullError> = Vec::new();
    let tries: Vec<Option<&Credential>> =
        if credentials.is_empty() { vec![None] } else { credentials.iter().map(Some).collect() };
    for credential in tries {
        match try_one(runtime, target, credential, credentials, lease, deadline).await {
            Try::TimedOut => return Err(Outcome::Failed(timed_out(bound))),
            Try::Pulled(image_ref) => {
                let credential =
                    credential.map(|c| UsedCredential { source: c.source, origin: Arc::from(c.origin.as_str()) });
                return Ok(Pulled { image_ref, credential });
            }
            Try::Interrupted => return Err(Outcome::Interrupted),
            Try::Failed(error) => {
                let more = error.try_next_credential;
                failures.push(error);
                if !more {
                    break;
                }
            }
        }
    }
    Err(Outcome::Failed(together(failures)))
}

/// A pull that the runtime says ended well.
pub struct Pulled {
    /// What the runtime calls the image.
    image_ref: String,
    credential: Option<UsedCredential>,
}

enum Try {
    /// What the runtime calls it.
    Pulled(String),
    Failed(PullError),
    Interrupted,
    TimedOut,
}

/// One try. No error shows anything of any of the credentials: a server may remember what it was sent before.
async fn try_one(
    runtime: &Runtime,
    target: &Target,
    credential: Option<&Credential>,
    all: &[Credential],
    lease: Option<&str>,
    deadline: Instant,
) -> Try {
    let namespace = target.pull_secrets.first().and_then(|s| s.namespace.as_deref());
    let auth = credential.map(|c| auth_config(&c.auth));
    match timeout_at(deadline, runtime.pull(spec_of(target), auth, namespace, lease)).await {
        Err(_) => Try::TimedOut,
        Ok(Ok(image_ref)) => Try::Pulled(image_ref),
        // the connection ended under the call: the runtime's end, not the image's
        Ok(Err(status)) if lost(&status) => Try::Interrupted,
        Ok(Err(status)) => {
            let secrets: Vec<_> = all.iter().flat_map(|c| secrets_of(&c.auth)).collect();
            let secrets: Vec<&str> = secrets.iter().map(|secret| secret.as_str()).collect();
            let code = Code::from_number(status.code().into());
            Try::Failed(PullError::from_runtime(&target.image, code, status.message(), &secrets))
        }
    }
}

/// Whether a call failed because its connection ended. A server's own `Unavailable` comes with headers from it; what
/// the client makes of a broken stream has a source.
fn lost(status: &Status) -> bool {
    use std::error::Error as _;
    status.source().is_some()
        && matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled)
}

/// Asks for size and digest of what was pulled. The pull succeeded, so an answer that does not say more, or comes too late, is
/// no failure.
pub async fn what_came(runtime: &Runtime, target: &Target, pulled: Pulled) -> Outcome {
    let told = timeout(MOST_ASKED, runtime.stored(target)).await.ok().and_then(Result::ok).flatten();
    let named = || Stored { digest: error_text::one_line(&pulled.image_ref).into(), size: 0, pinned: false };
    Outcome::Pulled { stored: told.unwrap_or_else(named), credential: pulled.credential }
}

/// Returns CRI's message for a credential, filled as the kubelet fills it: user name, password and, where a docker config has them,
/// tokens; `auth` and `server_address` stay empty.
fn auth_config(auth: &Auth) -> AuthConfig {
    let token = |t: &Option<SecretString>| t.as_ref().map_or_else(String::new, |t| t.expose_secret().to_owned());
    AuthConfig {
        username: auth.username.clone(),
        password: auth.password.expose_secret().to_owned(),
        identity_token: token(&auth.identity_token),
        registry_token: token(&auth.registry_token),
        ..AuthConfig::default()
    }
}

/// Texts that a registry could echo. User and password together are what basic authentication encodes.
fn secrets_of(auth: &Auth) -> Vec<Zeroizing<String>> {
    let password = auth.password.expose_secret();
    let pair = (!password.is_empty()).then(|| format!("{}:{password}", auth.username));
    let tokens = [&auth.identity_token, &auth.registry_token];
    let tokens = tokens.into_iter().flatten().map(|t| t.expose_secret().to_owned());
    pair.into_iter().chain([password.to_owned()]).chain(tokens).map(Zeroizing::new).collect()
}

fn timed_out(bound: Duration) -> PullError {
    PullError::own(
        ErrorClass::Timeout,
        &format!("the pull took longer than pullTimeout ({} s) and was ended", bound.as_secs_f64()),
    )
}

/// One error for all credentials: distinct messages in brackets, as the kubelet joins them. The class is that of the
/// failure which ended the attempt; where all were refusals, the one that says most.
fn together(mut failures: Vec<PullError>) -> PullError {
    let Some(last) = failures.pop() else {
        return PullError::own(ErrorClass::Unknown, "no attempt was made");
    };
    if failures.is_empty() {
        return last;
    }
    let telling = if last.try_next_credential {
        let all = || failures.iter().chain([&last]);
        let first = |class| all().find(|f| f.class == class);
        [ErrorClass::Unauthorized, ErrorClass::NotFound].into_iter().find_map(first).unwrap_or(&last)
    } else {
        &last
    };
    let (class, remedy, try_next_credential) = (telling.class, telling.remedy, telling.try_next_credential);
    let mut messages: Vec<&str> = Vec::new();
    for failure in failures.iter().chain([&last]) {
        if !messages.contains(&failure.message.as_str()) {
            messages.push(&failure.message);
        }
    }
    let (reason, message) = match messages.as_slice() {
        [one] => (last.reason, (*one).to_owned()),
        several => ("ErrImagePull", format!("[{}]", several.join(", "))),
    };
    let message = error_text::one_line(&message);
    PullError { class, remedy, try_next_credential, reason, message, broke_off: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prepull_core::image_ref::ImageRef;

    #[test]
    fn the_failure_that_says_most_gives_class_and_remedy() {
        let app = ImageRef::parse("registry.example.com/app:1").unwrap();
        let error = |text| PullError::from_runtime(&app, Code::Unknown, text, &[]);
        let lost = error("could not fetch content descriptor sha256:1 (config) from remote: not found");
        assert!(!lost.try_next_credential, "no other credential brings a blob that the registry lost");
        let both = together(vec![error("401 Unauthorized"), lost.clone()]);
        assert_eq!((both.class, both.remedy), (lost.class, lost.remedy));
        let refused = together(vec![error("401 Unauthorized"), error("manifest unknown")]);
        assert_eq!((refused.class, refused.remedy), (ErrorClass::Unauthorized, ErrorClass::Unauthorized.remedy()));
    }
}
