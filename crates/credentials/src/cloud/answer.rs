//! What a server answered, and how it is read.

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::text::{scrubbed, shown};

/// Headers whose values are secret, whoever built the request.
const SECRET_HEADERS: [&str; 4] =
    ["authorization", "x-aws-ec2-metadata-token", "x-amz-security-token", "x-amz-s3session-token"];
/// Fields of a form whose values are secret.
const SECRET_FIELDS: [&str; 5] =
    ["client_secret", "client_assertion", "access_token", "refresh_token", "WebIdentityToken"];

/// One answer, with a bounded body.
#[derive(Debug)]
pub struct Answer {
    /// The status; never a redirect.
    pub(super) status: StatusCode,
    /// The headers.
    pub(super) headers: HeaderMap,
    /// The whole body.
    pub(super) body: Bytes,
    /// What the request held and no message may repeat.
    secrets: Vec<SecretString>,
}

/// The answer is no JSON, or not the JSON that was asked for.
///
/// It does not say what stands there instead, because that may be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer cannot be read")]
pub(super) struct Unreadable;

impl Answer {
    /// Puts together what was answered to a request whose secrets are known.
    pub fn new(status: StatusCode, headers: HeaderMap, body: Bytes, secrets: Vec<SecretString>) -> Self {
        Self { status, headers, body, secrets }
    }

    /// Reads the body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Unreadable> {
        serde_json::from_slice(&self.body).map_err(|_| Unreadable)
    }

    /// The body without what the request held, for a library that puts bodies into its messages.
    pub fn scrubbed_body(&self) -> String {
        shown(&scrubbed(&String::from_utf8_lossy(&self.body), &self.secrets))
    }

    /// Status and, where the answer has them in the usual fields, code and message: one line.
    pub fn refusal(&self) -> String {
        let text = match Said::of(&self.body) {
            Some(Said { code, message: Some(message) }) => format!("{}: {code}: {message}", self.status),
            Some(Said { code, message: None }) => format!("{}: {code}", self.status),
            None => self.status.to_string(),
        };
        shown(&scrubbed(&text, &self.secrets))
    }

    /// The code that the answer names, empty where it names none.
    pub fn code(&self) -> String {
        Said::of(&self.body).map_or_else(String::new, |said| said.code)
    }
}

/// Code and message of an error, as the clouds write them.
struct Said {
    code: String,
    message: Option<String>,
}

impl Said {
    fn of(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let text =
            |value: &Value, names: &[&str]| names.iter().find_map(|name| Some(value.get(name)?.as_str()?.to_owned()));
        // registries answer with a list of errors, Google with an object, Amazon and Azure with plain fields
        let error = body
            .get("errors")
            .and_then(|errors| errors.get(0))
            .or_else(|| body.get("error").filter(|e| e.is_object()))
            .unwrap_or(&body);
        let code = text(error, &["__type", "code", "Code", "error", "status"])?;
        let message = text(error, &["message", "Message", "error_description"]);
        Some(Self { code: code.rsplit('#').next().unwrap_or(&code).to_owned(), message })
    }
}

/// What a request holds that no message may repeat.
pub(super) fn secrets_of(request: &Request<Bytes>) -> Vec<SecretString> {
    let mut secrets = Vec::new();
    for (name, value) in request.headers() {
        if !value.is_sensitive() && !SECRET_HEADERS.contains(&name.as_str()) {
            continue;
        }
        let Ok(value) = value.to_str() else { continue };
        secrets.push(SecretString::from(value));
        if let Some((_, token)) = value.split_once(' ') {
            secrets.push(SecretString::from(token));
        }
    }
    for (name, value) in form_urlencoded::parse(request.body()) {
        if SECRET_FIELDS.contains(&name.as_ref()) {
            secrets.push(SecretString::from(value.as_ref()));
        }
    }
    // the longest first, so that no part of one is left when another that it contains is hidden
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &'static str) -> Answer {
        let secrets = vec!["canary-secret".into()];
        Answer::new(
            StatusCode::from_u16(status).unwrap(),
            HeaderMap::new(),
            Bytes::from_static(body.as_bytes()),
            secrets,
        )
    }

    #[test]
    fn refusals_of_every_cloud_are_one_line() {
        let cases = [
            (
                r#"{"__type":"com.amazon#AccessDeniedException","Message":"not allowed\nto"}"#,
                "400 Bad Request: AccessDeniedException: not allowed\\nto",
            ),
            (r#"{"error":{"code":404,"message":"gone","status":"NOT_FOUND"}}"#, "400 Bad Request: NOT_FOUND: gone"),
            (
                r#"{"error":"invalid_client","error_description":"AADSTS7000215: canary-secret is wrong"}"#,
                "400 Bad Request: invalid_client: AADSTS7000215: [hidden] is wrong",
            ),
            (r#"{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}"#, "400 Bad Request: UNAUTHORIZED: no"),
            ("<html>canary</html>", "400 Bad Request"),
            (r#"["a"]"#, "400 Bad Request"),
        ];
        for (body, expected) in cases {
            assert_eq!(answer(400, body).refusal(), expected, "{body}");
        }
    }

    #[test]
    fn what_a_request_holds_is_known() {
        let mut request = Request::post("http://127.0.0.1/").header("Authorization", "Bearer canary-token");
        let mut marked = http::HeaderValue::from_static("canary-header");
        marked.set_sensitive(true);
        request = request.header("x-other", marked).header("x-plain", "plain");
        let request = request.body(Bytes::from_static(b"client_secret=canary%20form&scope=plain")).unwrap();
        let secrets: Vec<String> = secrets_of(&request).iter().map(|s| s.expose_secret().to_owned()).collect();
        assert_eq!(secrets, ["Bearer canary-token", "canary-header", "canary-token", "canary form"]);
    }

    #[test]
    fn an_unreadable_answer_is_not_repeated() {
        let unreadable = answer(200, r#"{"access_token": 7, "x": "canary"}"#).json::<Vec<String>>().unwrap_err();
        assert_eq!(unreadable.to_string(), "the answer cannot be read");
    }
}
