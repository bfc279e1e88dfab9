//! EC2's instance metadata, version 2: a session token first, then the role's name, then its keys.
//!
//! The signing library has this too, but it insists on a field that imitations of EC2 leave out, and its errors repeat
//! what the service sent.

use bytes::Bytes;
use http::Request;
use reqsign_aws_v4::Credential;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::super::{
    answer::Unreadable,
    environment::Environment,
    http::Http,
    metadata::{Guard, NoService},
    text::shown,
};

/// Where the service is on every instance, over either protocol.
const DEFAULT_ENDPOINT: &str = "http://169.254.169.254";
const DEFAULT_ENDPOINT_IPV6: &str = "http://[fd00:ec2::254]";
/// Life of the session token, in seconds. One lookup lasts no minute.
const SESSION_SECONDS: &str = "300";
/// Longest name of a role.
const MAX_ROLE: usize = 256;

/// Why the instance gave no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImdsError {
    /// Switched off by a variable.
    #[error("the instance's metadata is switched off by AWS_EC2_METADATA_DISABLED")]
    Disabled,
    /// Nothing there.
    #[error("{0}")]
    NoService(#[from] NoService),
    /// It answered, but not with what was asked for.
    #[error("the instance's metadata service refused the {step}: {answer}")]
    Refused {
        /// What was asked for.
        step: &'static str,
        /// Its answer.
        answer: String,
    },
    /// The instance has no role.
    #[error("the instance has no IAM role")]
    NoRole,
    /// The keys or the session token are not as documented.
    #[error("the instance's metadata service answered the {step} with something else")]
    Unreadable {
        /// What was asked for.
        step: &'static str,
    },
    /// The endpoint of a variable is no address.
    #[error("`{0}` is no address of a metadata service")]
    Endpoint(String),
}

/// Base address, without a slash at its end.
fn endpoint(env: &Environment) -> &str {
    let ipv6 = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE").is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
    let default = if ipv6 { DEFAULT_ENDPOINT_IPV6 } else { DEFAULT_ENDPOINT };
    env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or(default).trim_end_matches('/')
}

fn session_request(base: &str) -> Result<Request<Bytes>, http::Error> {
    Request::put(format!("{base}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", SESSION_SECONDS)
        .body(Bytes::new())
}

fn data_request(base: &str, role: &str, session: &SecretString) -> Result<Request<Bytes>, http::Error> {
    Request::get(format!("{base}/latest/meta-data/iam/security-credentials/{role}"))
        .header("x-aws-ec2-metadata-token", session.expose_secret())
        .body(Bytes::new())
}

/// The name of the instance's role: the first line, of the characters that IAM allows.
fn read_role(body: &[u8]) -> Option<String> {
    let role = str::from_utf8(body).ok()?.lines().next()?.trim();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'=' | b',' | b'.' | b'@' | b'-' | b'_');
    (!role.is_empty() && role.len() <= MAX_ROLE && role.bytes().all(allowed)).then(|| role.to_owned())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: SecretString,
    secret_access_key: SecretString,
    token: SecretString,
    expiration: String,
}

fn read_keys(body: &[u8]) -> Result<Credential, Unreadable> {
    let keys: Keys = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    Ok(Credential {
        access_key_id: keys.access_key_id.expose_secret().to_owned(),
        secret_access_key: keys.secret_access_key.expose_secret().to_owned(),
        session_token: Some(keys.token.expose_secret().to_owned()),
        expires_in: Some(keys.expiration.parse().map_err(|_| Unreadable)?),
    })
}

/// Asks the instance for the keys of its role.
pub(super) async fn keys(
    guard: &Guard,
    http: &Http,
    env: &Environment,
    now: jiff::Timestamp,
) -> Result<Credential, ImdsError> {
    if env.is_true("AWS_EC2_METADATA_DISABLED") {
        return Err(ImdsError::Disabled);
    }
    let base = endpoint(env);
    let bad_endpoint = |_| ImdsError::Endpoint(shown(base));
    let session = guard.ask(http, now, session_request(base).map_err(bad_endpoint)?).await?;
    if !session.status.is_success() {
        return Err(ImdsError::Refused { step: "session token", answer: session.refusal() });
    }
    let session = str::from_utf8(&session.body).map(|text| SecretString::from(text.trim()));
    let session = session.map_err(|_| ImdsError::Unreadable { step: "session token" })?;
    // a session token that is no header value can only be a hostile one
    let request =
        |role: &str| data_request(base, role, &session).map_err(|_| ImdsError::Unreadable { step: "session token" });

    let role = guard.ask(http, now, request("")?).await?;
    if role.status == http::StatusCode::NOT_FOUND {
        return Err(ImdsError::NoRole);
    }
    if !role.status.is_success() {
        return Err(ImdsError::Refused { step: "role's name", answer: role.refusal() });
    }
    if role.body.is_empty() {
        return Err(ImdsError::NoRole);
    }
    let role = read_role(&role.body).ok_or(ImdsError::Unreadable { step: "role's name" })?;

    let keys = guard.ask(http, now, request(&role)?).await?;
    if !keys.status.is_success() {
        return Err(ImdsError::Refused { step: "role's keys", answer: keys.refusal() });
    }
    // a failure comes with status 200 and a code in the place of the keys
    read_keys(&keys.body).map_err(|Unreadable| match keys.code() {
        code if code.is_empty() => ImdsError::Unreadable { step: "role's keys" },
        _ => ImdsError::Refused { step: "role's keys", answer: keys.refusal() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_follows_the_variables() {
        let of = |variables: &[(&str, &str)]| {
            let env = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            endpoint(&Environment::new(env)).to_owned()
        };
        assert_eq!(of(&[]), DEFAULT_ENDPOINT);
        assert_eq!(of(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6")]), DEFAULT_ENDPOINT_IPV6);
        assert_eq!(of(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/")]), "http://127.0.0.1:1");
    }

    #[test]
    fn roles_are_names() {
        assert_eq!(read_role(b"node-role\n").as_deref(), Some("node-role"));
        for hostile in [&b"../../x"[..], b"a b", b"", b"\xff", &[b'a'; 300]] {
            assert_eq!(read_role(hostile), None);
        }
    }

    #[test]
    fn keys_need_every_field() {
        let full = r#"{"AccessKeyId":"A","SecretAccessKey":"S","Token":"T","Expiration":"2030-01-01T00:00:00Z"}"#;
        assert_eq!(read_keys(full.as_bytes()).unwrap().session_token.as_deref(), Some("T"));
        assert!(read_keys(br#"{"Code":"AssumeRoleUnauthorizedAccess"}"#).is_err());
    }
}
