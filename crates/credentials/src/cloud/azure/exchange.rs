//! Trading an Entra ID token for a registry's own: the challenge that a login server makes, and the exchange. Pure.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{CONTENT_TYPE, USER_AGENT, WWW_AUTHENTICATE},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, de::DeserializeOwned};

use super::super::{
    answer::{Answer, Unreadable},
    challenge::{self, ChallengeError},
};

/// What every registry is asked first.
pub(super) fn challenge_request(login_server: &str) -> Result<Request<Bytes>, http::Error> {
    Request::get(format!("https://{login_server}/v2/")).header(USER_AGENT, super::super::USER_AGENT).body(Bytes::new())
}

/// Reads the service out of a challenge, after checking that it leads nowhere else.
pub(super) fn read_challenge(answer: &Answer, login_server: &str) -> Result<String, ChallengeError> {
    if answer.status != StatusCode::UNAUTHORIZED {
        return Err(ChallengeError::Status(answer.status.as_u16()));
    }
    let mut challenges = answer.headers.get_all(WWW_AUTHENTICATE).iter();
    let (Some(challenge), None) = (challenges.next(), challenges.next()) else { return Err(ChallengeError::Header) };
    challenge::service(challenge.to_str().map_err(|_| ChallengeError::Header)?, login_server)
}

/// The form that trades the token. The fields, the token twice included, are those that Azure's own plugin sends.
pub(super) fn exchange_request(
    login_server: &str,
    service: &str,
    tenant: Option<&str>,
    token: &SecretString,
) -> Result<Request<Bytes>, http::Error> {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("service", service)
        .append_pair("grant_type", "access_token_refresh_token")
        .append_pair("access_token", token.expose_secret())
        .append_pair("refresh_token", token.expose_secret());
    if let Some(tenant) = tenant {
        form.append_pair("tenant", tenant);
    }
    Request::post(format!("https://{login_server}/oauth2/exchange"))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(USER_AGENT, super::super::USER_AGENT)
        .body(Bytes::from(form.finish()))
}

#[derive(Deserialize)]
struct RefreshToken {
    refresh_token: SecretString,
}

/// Reads the registry's token.
pub(super) fn read_token(answer: &Answer) -> Result<SecretString, Unreadable> {
    let token = answer.json::<RefreshToken>()?.refresh_token;
    if token.expose_secret().is_empty() { Err(Unreadable) } else { Ok(token) }
}

#[derive(Deserialize)]
struct Tenant {
    tid: String,
}

#[derive(Deserialize)]
struct Expiry {
    exp: i64,
}

/// The tenant that a token is of, where it is a readable JWT: a machine's identity does not say it otherwise.
pub(super) fn tenant_of(token: &SecretString) -> Option<String> {
    claims::<Tenant>(token).map(|claims| claims.tid)
}

/// When a token ends, where it is a readable JWT.
pub(super) fn expiry_of(token: &SecretString) -> Option<Timestamp> {
    Timestamp::from_second(claims::<Expiry>(token)?.exp).ok()
}

/// The claims are read, not verified: the token came from the service that is to be believed, and nothing is allowed by
/// them.
fn claims<T: DeserializeOwned>(token: &SecretString) -> Option<T> {
    let payload = token.expose_secret().split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, challenges: &[&str]) -> Answer {
        let mut headers = HeaderMap::new();
        for challenge in challenges {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(challenge).unwrap());
        }
        Answer::new(StatusCode::from_u16(status).unwrap(), headers, Bytes::new(), Vec::new())
    }

    const GOOD: &str = r#"Bearer realm="https://Foo.azurecr.io/oauth2/token",service="foo.azurecr.io""#;

    #[test]
    fn a_challenge_of_its_own_is_read() {
        assert_eq!(read_challenge(&answer(401, &[GOOD]), "foo.azurecr.io").unwrap(), "foo.azurecr.io");
        let spaced = r#"bearer service="s" , realm="https://foo.azurecr.io:443/oauth2/token", error="x,y""#;
        assert_eq!(read_challenge(&answer(401, &[spaced]), "foo.azurecr.io").unwrap(), "s");
    }

    #[test]
    fn a_token_goes_to_no_other_host() {
        for realm in [
            "https://evil.example/oauth2/token",
            "http://foo.azurecr.io/oauth2/token",
            "https://foo.azurecr.io.evil.example/",
            "https://foo.azurecr.io@evil.example/",
            "https://user@foo.azurecr.io/",
            "https://foo.azurecr.io:8443/",
            "//foo.azurecr.io/",
            "/oauth2/token",
            "",
        ] {
            let challenge = format!(r#"Bearer realm="{realm}",service="foo.azurecr.io""#);
            let refused = read_challenge(&answer(401, &[&challenge]), "foo.azurecr.io").unwrap_err();
            assert_eq!(refused, ChallengeError::OtherHost(realm.to_owned()), "{realm}");
        }
    }

    #[test]
    fn other_answers_are_no_challenge() {
        assert_eq!(read_challenge(&answer(200, &[GOOD]), "foo.azurecr.io"), Err(ChallengeError::Status(200)));
        for challenges in [
            &[][..],
            &[GOOD, GOOD],
            &["Basic realm=\"https://foo.azurecr.io\""],
            &["Bearer realm=https://foo.azurecr.io,service=x"],
            &["Bearer realm=\"https://foo.azurecr.io"],
            &["Bearer realm=\"https://foo.azurecr.io\""],
        ] {
            let refused = read_challenge(&answer(401, challenges), "foo.azurecr.io");
            assert_eq!(refused, Err(ChallengeError::Header), "{challenges:?}");
        }
    }

    #[test]
    fn the_exchange_holds_what_azures_plugin_sends() {
        let request = exchange_request("foo.azurecr.io", "foo.azurecr.io", Some("t"), &"a.b".into()).unwrap();
        assert_eq!(request.uri(), "https://foo.azurecr.io/oauth2/exchange");
        assert_eq!(
            &request.body()[..],
            b"service=foo.azurecr.io&grant_type=access_token_refresh_token&access_token=a.b&refresh_token=a.b&tenant=t"
        );
    }

    #[test]
    fn claims_are_read_where_there_are_any() {
        let token = SecretString::from(format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"tid":"t-1","exp":1700000000}"#)));
        assert_eq!(tenant_of(&token).as_deref(), Some("t-1"));
        assert_eq!(expiry_of(&token).map(Timestamp::as_second), Some(1_700_000_000));
        assert_eq!(tenant_of(&"opaque".into()), None);
        assert_eq!(expiry_of(&"a.%%.c".into()), None);
    }

    proptest! {
        #[test]
        fn any_challenge_is_survived(text in "[ -~]{0,80}") {
            if let Ok(service) = read_challenge(&answer(401, &[&text]), "foo.azurecr.io") {
                prop_assert!(text.contains(&service));
            }
        }
    }
}
