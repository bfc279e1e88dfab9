//! The challenge of a registry that is asked without a token (RFC 6750, the distribution specification's token flow). Pure.

use http::Uri;

use super::text::shown;

/// Why a login server's challenge is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// Anything else than the 401 that every registry answers without a token.
    #[error("it answered {0} where 401 with a challenge was expected")]
    Status(u16),
    /// No challenge, several, or one of another kind.
    #[error("it made no single Bearer challenge with realm and service")]
    Header,
    /// The challenge leads to another host, which must not get the token.
    #[error("its challenge leads to `{0}`, so the token was not sent")]
    OtherHost(String),
}

/// Reads the service out of a Bearer challenge, after checking that its realm leads to the login server and nowhere else.
pub fn service(challenge: &str, login_server: &str) -> Result<String, ChallengeError> {
    let parameters = bearer_parameters(challenge).ok_or(ChallengeError::Header)?;
    let value = |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| *v);
    let (Some(realm), Some(service)) = (value("realm"), value("service")) else { return Err(ChallengeError::Header) };
    if is_same_host(realm, login_server) {
        Ok(service.to_owned())
    } else {
        Err(ChallengeError::OtherHost(shown(realm)))
    }
}

/// Whether an address is `https`, on the login server's standard port, without a user in it.
fn is_same_host(realm: &str, login_server: &str) -> bool {
    let Ok(uri) = realm.parse::<Uri>() else { return false };
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let host = authority.strip_suffix(":443").unwrap_or(authority);
    uri.scheme() == Some(&http::uri::Scheme::HTTPS) && host.eq_ignore_ascii_case(login_server)
}

/// The `key="value"` parts of one Bearer challenge, in order; `None` for another scheme or broken quoting.
fn bearer_parameters(challenge: &str) -> Option<Vec<(&str, &str)>> {
    let (scheme, mut rest) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut parameters = Vec::new();
    loop {
        let (key, after) = rest.trim_start().split_once("=\"")?;
        let (value, after) = after.split_once('"')?;
        parameters.push((key.trim(), value));
        rest = after.trim_start();
        if rest.is_empty() {
            return Some(parameters);
        }
        rest = rest.strip_prefix(',')?;
    }
}
