//! Google: the access token of the node's service account, from the metadata server.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, header::USER_AGENT};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Deserialize;

use super::{
    answer::{Answer, Unreadable},
    environment::Environment,
    http::Http,
    keep::Fetched,
    metadata::{Guard, NoService},
    text::shown,
};
use crate::Auth;

/// The metadata server's name; the dot at its end keeps a resolver's search list out.
const DEFAULT_HOST: &str = "metadata.google.internal.";
/// The user that goes with an access token.
const USER: &str = "_token";
/// How long before its end a token is dropped. The metadata server itself hands the same token out until then.
const MARGIN: Duration = Duration::from_mins(5);
/// A service account with a scope of either kind may read registries.
const SCOPES: [&str; 2] =
    ["https://www.googleapis.com/auth/devstorage.", "https://www.googleapis.com/auth/cloud-platform"];
/// What the scopes' absence is told as.
const NO_SCOPE: &str = "the node's service account has neither a devstorage nor the cloud-platform scope, so Google \
                        may refuse its token; create the node with --scopes=cloud-platform, or use workload identity";

/// Why there is no token. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum GoogleError {
    /// Not on Google's cloud, or the metadata server is hidden.
    #[error("{0}; outside Google's cloud use a pull secret with a service account's key")]
    NoService(#[from] NoService),
    /// The metadata server refuses.
    #[error(
        "the metadata server gave no token: {0}; attach a service account to the node, with the role Artifact \
             Registry Reader"
    )]
    Refused(String),
    /// It answers something else than a token.
    #[error("the metadata server at {0} did not answer with a token; check GCE_METADATA_HOST")]
    Unreadable(String),
    /// The host of the variable is none.
    #[error("`{0}` is no host of a metadata server; check GCE_METADATA_HOST")]
    Host(String),
}

/// Whether somebody said that there is a metadata server.
pub(super) fn is_configured(env: &Environment) -> bool {
    env.get("GCE_METADATA_HOST").is_some()
}

fn host(env: &Environment) -> &str {
    env.get("GCE_METADATA_HOST").unwrap_or(DEFAULT_HOST)
}

/// A request about the node's own service account; `what` is the last part of the address.
fn request(host: &str, what: &str) -> Result<Request<Bytes>, GoogleError> {
    Request::get(format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/{what}"))
        .header("Metadata-Flavor", "Google")
        .header(USER_AGENT, super::USER_AGENT)
        .body(Bytes::new())
        .map_err(|_| GoogleError::Host(shown(host)))
}

/// Whether the scopes are known and none of them allows to read a registry.
fn lacks_scope(answer: &Answer) -> bool {
    // an answer that is no list says nothing about the token
    let Ok(scopes) = answer.json::<Vec<String>>() else { return false };
    answer.status.is_success() && !scopes.iter().any(|scope| SCOPES.iter().any(|known| scope.starts_with(known)))
}

#[derive(Deserialize)]
struct Token {
    access_token: SecretString,
    expires_in: u64,
}

fn read_token(answer: &Answer, now: Timestamp) -> Result<Fetched, Unreadable> {
    let token: Token = answer.json()?;
    let life = Duration::from_secs(token.expires_in).checked_sub(MARGIN).filter(|life| !life.is_zero());
    let auth = Auth { username: USER.to_owned(), password: token.access_token, ..Auth::default() };
    Ok(Fetched { auth: Some(auth), until: life.and_then(|life| now.checked_add(life).ok()), problems: Vec::new() })
}

/// What is known about Google from one lookup to the next.
#[derive(Default)]
pub(super) struct Google {
    server: Guard,
}

impl Google {
    /// Fetches a token, with a word where the account's scopes do not fit.
    pub(super) async fn token(&self, http: &Http, env: &Environment, now: Timestamp) -> Result<Fetched, GoogleError> {
        let host = host(env);
        // the scopes come first because they are answered at once, which tells whether anybody is there
        let scopes = self.server.ask(http, now, request(host, "scopes?alt=json")?).await?;
        let token = self.server.ask(http, now, request(host, "token")?).await?;
        if !token.status.is_success() {
            return Err(GoogleError::Refused(token.refusal()));
        }
        let mut fetched = read_token(&token, now).map_err(|Unreadable| GoogleError::Unreadable(shown(host)))?;
        if lacks_scope(&scopes) {
            fetched.problems.push(NO_SCOPE.to_owned());
        }
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use secrecy::ExposeSecret;

    use super::*;

    fn answer(body: &'static str) -> Answer {
        Answer::new(StatusCode::OK, HeaderMap::new(), Bytes::from_static(body.as_bytes()), Vec::new())
    }

    #[test]
    fn the_request_is_the_metadata_servers() {
        let request = request(host(&Environment::default()), "token").unwrap();
        assert_eq!(
            request.uri().to_string(),
            "http://metadata.google.internal./computeMetadata/v1/instance/service-accounts/default/token"
        );
        assert_eq!(request.headers()["metadata-flavor"], "Google");
    }

    #[test]
    fn tokens_are_kept_until_five_minutes_before_their_end() {
        let now = Timestamp::from_second(1_000).unwrap();
        let fetched = read_token(&answer(r#"{"access_token":"ya29.x","expires_in":3599}"#), now).unwrap();
        assert_eq!(fetched.until, Some(Timestamp::from_second(1_000 + 3_299).unwrap()));
        let auth = fetched.auth.unwrap();
        assert_eq!((auth.username.as_str(), auth.password.expose_secret()), ("_token", "ya29.x"));
        for short in ["300", "0"] {
            let body = format!(r#"{{"access_token":"x","expires_in":{short}}}"#).leak();
            assert_eq!(read_token(&answer(body), now).unwrap().until, None, "{short}");
        }
        for bad in ["", "[]", r#"{"access_token":"x"}"#, r#"{"access_token":"x","expires_in":-1}"#] {
            assert!(read_token(&answer(bad), now).is_err(), "{bad}");
        }
        let huge = answer(r#"{"access_token":"x","expires_in":18446744073709551615}"#);
        assert_eq!(read_token(&huge, now).unwrap().until, None, "beyond the calendar");
    }

    #[test]
    fn scopes_are_compared_by_their_beginning() {
        assert!(!lacks_scope(&answer(r#"["https://www.googleapis.com/auth/devstorage.read_only"]"#)));
        assert!(!lacks_scope(&answer(r#"["x","https://www.googleapis.com/auth/cloud-platform"]"#)));
        assert!(lacks_scope(&answer(r#"["https://www.googleapis.com/auth/logging.write"]"#)));
        assert!(!lacks_scope(&answer("garbage")), "unknown is not lacking");
    }
}
