//! Amazon's registries: which address is asked for a token, and how the answer is read. Pure.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::super::{
    answer::Unreadable,
    environment::Environment,
    keep::{Fetched, half_life},
    names::{ECR_PUBLIC_REGION, EcrHost},
};
use crate::Auth;

/// SHA-256 of [`BODY`], which the signature covers.
const BODY_HASH: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
/// The request has no parameters: the token is for every registry that the identity may read.
const BODY: &[u8] = b"{}";

/// One of the two services that hand out tokens, with all that the request needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenCall {
    /// Where to post to.
    pub(super) url: String,
    /// The service's name in the signature.
    pub(super) service: &'static str,
    /// The region in the signature.
    pub(super) region: String,
    target: &'static str,
}

impl TokenCall {
    /// The call for a private registry: the region that its name says, wherever the node is. Names of the FIPS and
    /// dual-stack kind lead to the API's endpoint of the same kind.
    pub(crate) fn private(host: &EcrHost, env: &Environment) -> Self {
        let fips = host.fips || env.is_true("AWS_USE_FIPS_ENDPOINT");
        let dual_stack = host.dual_stack() || env.is_true("AWS_USE_DUALSTACK_ENDPOINT");
        let region = &host.region;
        let label = if fips { "ecr-fips" } else { "ecr" };
        let default = if dual_stack {
            format!("https://{label}.{region}.{}", dual_stack_suffix(host.suffix))
        } else {
            format!("https://api.{label}.{region}.{}", host.suffix)
        };
        let base = env.first(&["AWS_ENDPOINT_URL_ECR", "AWS_ENDPOINT_URL"]).unwrap_or(&default);
        Self {
            url: with_slash(base),
            service: "ecr",
            region: region.clone(),
            target: "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
        }
    }

    /// The call for ECR Public, which only one region answers.
    pub(crate) fn public(env: &Environment) -> Self {
        let default = if env.is_true("AWS_USE_DUALSTACK_ENDPOINT") {
            format!("https://ecr-public.{ECR_PUBLIC_REGION}.api.aws")
        } else {
            format!("https://api.ecr-public.{ECR_PUBLIC_REGION}.amazonaws.com")
        };
        let base = env.first(&["AWS_ENDPOINT_URL_ECR_PUBLIC", "AWS_ENDPOINT_URL"]).unwrap_or(&default);
        Self {
            url: with_slash(base),
            service: "ecr-public",
            region: ECR_PUBLIC_REGION.to_owned(),
            target: "SpencerFrontendService.GetAuthorizationToken",
        }
    }

    /// The request, not signed yet.
    pub(super) fn request(&self) -> Result<Request<Bytes>, http::Error> {
        Request::post(&self.url)
            .header(CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", self.target)
            .header("x-amz-content-sha256", BODY_HASH)
            .body(Bytes::from_static(BODY))
    }

    /// The action that the node's identity must be allowed.
    pub(super) fn permissions(&self) -> &'static str {
        match self.service {
            "ecr-public" => "ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken",
            _ => "ecr:GetAuthorizationToken, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer",
        }
    }
}

/// The suffix of the dual-stack API in the partition of a registry's suffix (the SDKs' partition table).
fn dual_stack_suffix(suffix: &str) -> &str {
    match suffix {
        "amazonaws.com" | "on.aws" => "api.aws",
        "amazonaws.com.cn" | "on.amazonwebservices.com.cn" => "api.amazonwebservices.com.cn",
        "amazonaws.eu" => "api.amazonwebservices.eu",
        "c2s.ic.gov" => "api.aws.ic.gov",
        "sc2s.sgov.gov" => "api.aws.scloud",
        "cloud.adc-e.uk" => "api.cloud-aws.adc-e.uk",
        "csp.hci.ic.gov" => "api.aws.hci.ic.gov",
        other => other,
    }
}

fn with_slash(base: &str) -> String {
    format!("{}/", base.trim_end_matches('/'))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenAnswer {
    authorization_data: OneOrMany,
}

/// ECR answers with a list, ECR Public with one object.
struct OneOrMany(Option<AuthorizationData>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = match Value::deserialize(deserializer)? {
            Value::Array(list) => list.into_iter().next(),
            one => Some(one),
        };
        // the cause is left out, since it may repeat a part of a token
        let read = |value| serde_json::from_value(value).map_err(|_| serde::de::Error::custom("no authorization data"));
        value.map(read).transpose().map(Self)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizationData {
    authorization_token: SecretString,
    #[serde(default)]
    expires_at: Value,
}

/// Reads user, password and expiry out of an answer. A token is kept to its half-life; one that has expired, or that
/// does not say when it will, is used once.
pub(super) fn read_token(body: &[u8], now: Timestamp) -> Result<Fetched, Unreadable> {
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| Unreadable)?;
    let data = answer.authorization_data.0.ok_or(Unreadable)?;
    let decoded = STANDARD.decode(data.authorization_token.expose_secret()).map_err(|_| Unreadable)?;
    let decoded = SecretString::from(String::from_utf8(decoded).map_err(|_| Unreadable)?);
    let (username, password) = decoded.expose_secret().split_once(':').ok_or(Unreadable)?;
    let auth = Auth { username: username.to_owned(), password: password.into(), ..Auth::default() };
    let until = moment(&data.expires_at).and_then(|expires| half_life(now, expires));
    Ok(Fetched { auth: Some(auth), until, problems: Vec::new() })
}

/// Seconds since 1970, with a fraction or not, as AWS writes moments in JSON; text as RFC 3339 is understood too.
fn moment(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(seconds) => {
            let since = SignedDuration::try_from_secs_f64(seconds.as_f64()?).ok()?;
            Timestamp::from_duration(since).ok()
        }
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn every_kind_of_name_has_its_endpoint() {
        let cases = [
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "https://api.ecr.eu-west-1.amazonaws.com/"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "https://api.ecr.cn-north-1.amazonaws.com.cn/"),
            ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", "https://api.ecr-fips.us-east-1.amazonaws.com/"),
            ("123456789012.dkr-ecr.us-west-2.on.aws", "https://ecr.us-west-2.api.aws/"),
            ("123456789012.dkr-ecr-fips.us-west-2.on.aws", "https://ecr-fips.us-west-2.api.aws/"),
            ("123456789012.dkr.ecr.us-iso-east-1.c2s.ic.gov", "https://api.ecr.us-iso-east-1.c2s.ic.gov/"),
        ];
        for (host, url) in cases {
            let call = TokenCall::private(&EcrHost::parse(host).unwrap(), &Environment::default());
            assert_eq!(call.url, url, "{host}");
        }
        assert_eq!(TokenCall::public(&Environment::default()).url, "https://api.ecr-public.us-east-1.amazonaws.com/");
    }

    #[test]
    fn variables_choose_the_endpoint() {
        let host = EcrHost::parse("123456789012.dkr.ecr.eu-west-1.amazonaws.com").unwrap();
        let url = |variables: &[(&str, &str)]| TokenCall::private(&host, &environment(variables)).url;
        assert_eq!(url(&[("AWS_ENDPOINT_URL", "http://a/")]), "http://a/");
        assert_eq!(url(&[("AWS_ENDPOINT_URL", "http://a"), ("AWS_ENDPOINT_URL_ECR", "http://b/x")]), "http://b/x/");
        assert_eq!(url(&[("AWS_USE_FIPS_ENDPOINT", "true")]), "https://api.ecr-fips.eu-west-1.amazonaws.com/");
        assert_eq!(url(&[("AWS_USE_DUALSTACK_ENDPOINT", "TRUE")]), "https://ecr.eu-west-1.api.aws/");
        let public = |name: &str| TokenCall::public(&environment(&[(name, "http://c")])).url;
        assert_eq!(public("AWS_ENDPOINT_URL_ECR_PUBLIC"), "http://c/");
        assert_eq!(public("AWS_ENDPOINT_URL_ECR"), "https://api.ecr-public.us-east-1.amazonaws.com/");
    }

    #[test]
    fn the_hash_is_the_bodys() {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(BODY).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert_eq!(hash, BODY_HASH);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn both_shapes_of_answer_are_read() {
        let token = STANDARD.encode("AWS:secret:with:colons");
        let data = format!(r#"{{"authorizationToken":"{token}","expiresAt":5000.5}}"#);
        for body in [format!(r#"{{"authorizationData":[{data}]}}"#), format!(r#"{{"authorizationData":{data}}}"#)] {
            let fetched = read_token(body.as_bytes(), at(4000)).unwrap();
            let auth = fetched.auth.unwrap();
            assert_eq!((auth.username.as_str(), auth.password.expose_secret()), ("AWS", "secret:with:colons"));
            assert_eq!(fetched.until.unwrap().as_millisecond(), 4_500_250);
        }
    }

    #[test]
    fn moments_are_numbers_or_text() {
        for (expires, until) in [
            ("1700000000", Some(at(1_600_000_000))),
            ("\"2023-11-14T22:13:20Z\"", Some(at(1_600_000_000))),
            ("1420070400.0", None),
            ("1e300", None),
            ("\"soon\"", None),
            ("null", None),
        ] {
            let body = format!(r#"{{"authorizationData":[{{"authorizationToken":"QTpi","expiresAt":{expires}}}]}}"#);
            assert_eq!(read_token(body.as_bytes(), at(1_500_000_000)).unwrap().until, until, "{expires}");
        }
    }

    #[test]
    fn other_answers_are_unreadable() {
        for body in [
            "",
            "[]",
            r#"{"authorizationData":[]}"#,
            r#"{"authorizationData":{}}"#,
            r#"{"authorizationData":[{"authorizationToken":"%%"}]}"#,
            r#"{"authorizationData":[{"authorizationToken":"bm9jb2xvbg=="}]}"#,
            r#"{"authorizationData":[{"authorizationToken":"/zo="}]}"#,
        ] {
            assert!(read_token(body.as_bytes(), at(0)).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_survived(body in proptest::collection::vec(any::<u8>(), 0..80), second in -1_000_000_i64..1_000_000) {
            prop_assert!(read_token(&body, at(second)).is_err());
        }
    }
}
