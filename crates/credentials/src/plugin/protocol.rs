//! What a credential provider plugin is sent, and what it may answer: credentialprovider.kubelet.k8s.io.
//!
//! The three versions have the same fields as far as a pull for a node is concerned. Answers are read as strictly as
//! the kubelet reads them: one unknown or repeated field drops the whole answer. Pure: no I/O, no clock.

use std::{collections::HashSet, fmt};

use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, Visitor},
};
use zeroize::Zeroizing;

use super::super::{
    Auth,
    docker_config::{self, DecodeError},
    go_rules::{duration::GoDuration, json},
    text::shown,
};

/// What every version begins with.
const GROUP: &str = "credentialprovider.kubelet.k8s.io/";
/// The kind of a request.
const REQUEST_KIND: &str = "CredentialProviderRequest";
/// The kind of an answer.
const RESPONSE_KIND: &str = "CredentialProviderResponse";

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiVersion {
    /// v1, Kubernetes 1.26 and later.
    V1,
    /// v1beta1.
    V1beta1,
    /// v1alpha1.
    V1alpha1,
}

impl ApiVersion {
    /// All values, in the order in which messages list them.
    pub const ALL: [Self; 3] = [Self::V1, Self::V1beta1, Self::V1alpha1];

    /// The value of `apiVersion`, group included.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "credentialprovider.kubelet.k8s.io/v1",
            Self::V1beta1 => "credentialprovider.kubelet.k8s.io/v1beta1",
            Self::V1alpha1 => "credentialprovider.kubelet.k8s.io/v1alpha1",
        }
    }

    /// Reads a value of `apiVersion`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The request for an image (`registry/repository`, without tag and digest): one line of JSON with its line end.
pub fn request(version: ApiVersion, image: &str) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'a> {
        kind: &'a str,
        api_version: &'a str,
        image: &'a str,
    }
    let request = Request { kind: REQUEST_KIND, api_version: version.as_str(), image };
    // three strings always serialise
    serde_json::to_string(&request).map(|line| line + "\n").unwrap_or_default()
}

/// For which images an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKeyType {
    /// For this repository.
    Image,
    /// For every repository of its registry.
    Registry,
    /// For every image that the plugin is asked about.
    Global,
}

/// An answer. Debug prints no secret.
#[derive(Debug, Clone)]
pub struct Response {
    /// For which images it is kept.
    pub cache_key_type: CacheKeyType,
    /// How long it is kept; the configuration decides where it says nothing.
    pub cache_duration: Option<GoDuration>,
    /// Keys as written, each with its credential.
    pub auth: Vec<(String, Auth)>,
}

/// Why an answer is dropped. Quotes nothing of it but its version and kind, where they are such.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Nothing came.
    #[error("it answered nothing; it must write a {RESPONSE_KIND} to its standard output")]
    Empty,
    /// The output is no JSON.
    #[error("its answer is no {RESPONSE_KIND}: {0}")]
    NotJson(DecodeError),
    /// Another version than the configured one.
    #[error("it answered in version `{found}` and not in `{wanted}`; set the version that it speaks as its apiVersion")]
    Version {
        /// The configured version.
        wanted: ApiVersion,
        /// The answer's.
        found: String,
    },
    /// Another kind.
    #[error("it answered with kind `{0}` and not {RESPONSE_KIND}")]
    Kind(String),
    /// A field that is unknown, repeated or of a wrong type.
    #[error("its answer has an unknown, repeated or malformed field at line {line}, column {column}")]
    Field {
        /// Line, from 1.
        line: usize,
        /// Column in bytes.
        column: usize,
    },
    /// None of the three words.
    #[error("its answer's cacheKeyType is none of Image, Registry and Global")]
    CacheKeyType,
    /// No duration.
    #[error("its answer's cacheDuration is no duration such as `5m0s`")]
    CacheDuration,
}

/// What is looked at first.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    kind: Option<String>,
    api_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    cache_key_type: Option<String>,
    cache_duration: Option<String>,
    auth: Option<Auths>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    username: Option<String>,
    password: Option<Zeroizing<String>>,
}

struct Auths(Vec<(String, Auth)>);

impl<'de> Deserialize<'de> for Auths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Auths;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Auths, A::Error> {
                let (mut entries, mut seen) = (Vec::new(), HashSet::new());
                while let Some((key, login)) = map.next_entry::<String, Option<Login>>()? {
                    if !seen.insert(key.clone()) {
                        return Err(de::Error::custom("repeated key"));
                    }
                    let login = login.unwrap_or_default();
                    let password = SecretString::from(login.password.as_deref().map_or("", String::as_str));
                    let username = login.username.unwrap_or_default();
                    entries.push((key, Auth { username, password, ..Auth::default() }));
                }
                Ok(Auths(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Reads what a plugin wrote, which must be an answer in exactly the version that it was asked in.
pub fn response(version: ApiVersion, stdout: &[u8]) -> Result<Response, ResponseError> {
    if stdout.trim_ascii().is_empty() {
        return Err(ResponseError::Empty);
    }
    let text = json::forgiving(stdout);
    let head: Head = serde_json::from_slice(&text).map_err(|error| problem(&error))?;
    let found = head.api_version.unwrap_or_default();
    if found != version.as_str() {
        return Err(ResponseError::Version { wanted: version, found: told(&found, GROUP) });
    }
    let kind = head.kind.unwrap_or_default();
    if kind != RESPONSE_KIND {
        return Err(ResponseError::Kind(told(&kind, "CredentialProvider")));
    }
    let body: Body = serde_json::from_slice(&text).map_err(|error| problem(&error))?;
    let cache_key_type = match body.cache_key_type.as_deref() {
        Some("Image") => CacheKeyType::Image,
        Some("Registry") => CacheKeyType::Registry,
        Some("Global") => CacheKeyType::Global,
        Some(_) | None => return Err(ResponseError::CacheKeyType),
    };
    let cache_duration =
        body.cache_duration.map(|text| GoDuration::parse(&text).ok_or(ResponseError::CacheDuration)).transpose()?;
    Ok(Response { cache_key_type, cache_duration, auth: body.auth.map(|auths| auths.0).unwrap_or_default() })
}

/// A version or kind that is one, if not the right one. Anything else may be what the plugin should have kept.
fn told(text: &str, prefix: &str) -> String {
    if text.is_empty() || text.starts_with(prefix) { shown(text) } else { "(something else)".to_owned() }
}

fn problem(error: &serde_json::Error) -> ResponseError {
    if error.is_data() {
        ResponseError::Field { line: error.line(), column: error.column() }
    } else {
        ResponseError::NotJson(docker_config::position(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    fn answer(rest: &str) -> String {
        format!(r#"{{"kind":"CredentialProviderResponse","apiVersion":"{}",{rest}}}"#, ApiVersion::V1)
    }

    fn read(text: &str) -> Result<Response, ResponseError> {
        response(ApiVersion::V1, text.as_bytes())
    }

    #[test]
    fn a_good_answer_is_read() {
        let text = answer(
            r#""cacheKeyType":"Registry","cacheDuration":"5m0s","auth":{"r":{"username":"u","password":"p"},"s":null}"#,
        );
        let response = read(&text).unwrap();
        assert_eq!(response.cache_key_type, CacheKeyType::Registry);
        assert_eq!(response.cache_duration, GoDuration::parse("300s"));
        let logins: Vec<_> = response
            .auth
            .iter()
            .map(|(key, auth)| (key.as_str(), auth.username.as_str(), auth.password.expose_secret()))
            .collect();
        assert_eq!(logins, [("r", "u", "p"), ("s", "", "")]);
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let response = read(&answer(r#""cacheKeyType":"Image","cacheDuration":null"#)).unwrap();
        assert!(response.auth.is_empty() && response.cache_duration.is_none());
    }

    #[test]
    fn anything_wrong_drops_the_answer_and_is_not_quoted() {
        for (text, wanted) in [
            (String::new(), "it answered nothing"),
            ("hunter2".into(), "its answer is no CredentialProviderResponse: not valid JSON"),
            (answer(r#""cacheKeyType":"Image","hunter2":1"#), "its answer has an unknown"),
            (answer(r#""cacheKeyType":"Image","cacheKeyType":"Image""#), "its answer has an unknown, repeated"),
            (answer(r#""cacheKeyType":"Image","auth":{"r":{"username":["hunter2"]}}"#), "its answer has an unknown"),
            (answer(r#""cacheKeyType":"Image","auth":{"r":{"Username":"hunter2"}}"#), "its answer has an unknown"),
            (answer(r#""cacheKeyType":"Image","auth":{"r":{},"r":{}}"#), "its answer has an unknown, repeated"),
            (answer(r#""cacheKeyType":"hunter2""#), "its answer's cacheKeyType"),
            (answer(r#""auth":{}"#), "its answer's cacheKeyType"),
            (answer(r#""cacheKeyType":"Image","cacheDuration":"hunter2""#), "its answer's cacheDuration"),
            (answer(r#""cacheKeyType":"Image","cacheDuration":5"#), "its answer has an unknown"),
            (answer(r#""cacheKeyType":"Image""#) + " {}", "its answer is no"),
            (answer(r#""cacheKeyType":"Image""#).replace("Response", "Request"), "it answered with kind"),
            (answer(r#""cacheKeyType":"Image""#).replace("/v1", "/v1beta1"), "it answered in version"),
            (
                answer(r#""cacheKeyType":"Image""#).replace("CredentialProviderResponse", "hunter2"),
                "it answered with kind",
            ),
            (answer(r#""cacheKeyType":"Image""#).replace("credentialprovider.", "hunter2"), "it answered in version"),
            ("{}".into(), "it answered in version ``"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.starts_with(wanted) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(rest in "[{}\\[\\]\":,a-z0-9\\\\]{0,60}") {
            let _ = read(&answer(&rest));
            let _ = read(&rest);
        }
    }
}
