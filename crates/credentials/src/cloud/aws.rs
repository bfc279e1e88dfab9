//! Amazon: keys from the SDKs' chain, and with them a token for a registry.
//!
//! The signature and the parts of the chain that read variables, profiles, STS and container endpoints are
//! `reqsign-aws-v4`'s. Its own chain goes on to the next source after a failure; here a source that is configured and
//! fails is reported instead, as in Amazon's SDKs, because the next one would be another identity.

mod context;
pub(super) mod ecr;
mod imds;

use std::sync::Arc;

use jiff::Timestamp;
use reqsign_aws_v4::{
    AssumeRoleWithWebIdentityCredentialProvider, Credential, ECSCredentialProvider, EnvCredentialProvider,
    ProfileCredentialProvider, RequestSigner,
};
use reqsign_core::{ProvideCredential, SignRequest};

use self::{
    context::{context, explained},
    ecr::{TokenCall, read_token},
    imds::ImdsError,
};
use super::{
    answer::{Answer, Unreadable},
    environment::Environment,
    http::{Http, HttpError},
    keep::Fetched,
    metadata::Guard,
    text::shown,
};

pub(super) use context::read_bounded;

/// The role session's name in AWS's audit log where no variable gives another.
const SESSION_NAME: &str = "prepull";

/// Why there is no token. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum AwsError {
    /// A source of keys that is configured fails.
    #[error("{source_name} gives no AWS keys: {cause}; {remedy}")]
    Source {
        /// Which one.
        source_name: &'static str,
        /// What it said.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No source is configured, and the node has no role.
    #[error(
        "no AWS keys ({0}); give the node a role, use EKS Pod Identity or a service account with a role, or raise the \
         metadata hop limit to 2 where the agent is not in the host's network"
    )]
    NoKeys(#[from] ImdsError),
    /// The request cannot be signed.
    #[error("the request for a token cannot be signed: {0}; check the AWS keys and their expiry")]
    Sign(String),
    /// The registry's API cannot be asked.
    #[error("{0}; check the node's way to the ECR API, or the VPC endpoint for it")]
    Http(#[from] HttpError),
    /// The API refuses.
    #[error("the ECR API refused a token: {answer}; {remedy}")]
    Refused {
        /// Its answer.
        answer: String,
        /// What to do.
        remedy: String,
    },
    /// The API answers something else than a token.
    #[error("the ECR API at {url} did not answer with a token; check the endpoint")]
    Unreadable {
        /// Where it was asked.
        url: String,
    },
    /// The endpoint of a variable is no address.
    #[error("`{0}` is no address of the ECR API; check AWS_ENDPOINT_URL_ECR and AWS_ENDPOINT_URL")]
    Endpoint(String),
}

/// What is known about AWS from one lookup to the next.
#[derive(Default)]
pub(super) struct Aws {
    instance: Guard,
}

impl Aws {
    /// Fetches a token.
    pub(super) async fn token(
        &self,
        call: &TokenCall,
        http: Arc<Http>,
        env: &Environment,
        now: Timestamp,
    ) -> Result<Fetched, AwsError> {
        let keys = self.keys(&call.region, &http, env, now).await?;
        let request = call.request().map_err(|_| AwsError::Endpoint(shown(&call.url)))?;
        let (mut parts, body) = request.into_parts();
        RequestSigner::new(call.service, &call.region)
            .sign_request(&context(env, http.clone(), None), &mut parts, Some(&keys), None)
            .await
            .map_err(|err| AwsError::Sign(explained(&err)))?;
        let answer = http.send(http::Request::from_parts(parts, body)).await?;
        if !answer.status.is_success() {
            return Err(AwsError::Refused { answer: answer.refusal(), remedy: remedy(&answer, call) });
        }
        read_token(&answer.body, now).map_err(|Unreadable| AwsError::Unreadable { url: shown(&call.url) })
    }

    /// The first source in the order of Amazon's SDKs: variables, web identity, shared config, container, instance.
    async fn keys(
        &self,
        region: &str,
        http: &Arc<Http>,
        env: &Environment,
        now: Timestamp,
    ) -> Result<Credential, AwsError> {
        let plain = context(env, http.clone(), None);
        let failed = |source_name, remedy| {
            move |err: reqsign_core::Error| AwsError::Source { source_name, cause: explained(&err), remedy }
        };

        let variables = EnvCredentialProvider::new().provide_credential(&plain).await;
        if let Some(keys) = variables.map_err(failed("the environment", "check AWS_ACCESS_KEY_ID"))? {
            return Ok(keys);
        }

        let sts = context(env, http.clone(), env.first(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"]));
        let web_identity = web_identity(region, env).provide_credential(&sts).await;
        let remedy = "check the role in AWS_ROLE_ARN, its trust in the cluster's OIDC provider, and \
                      AWS_WEB_IDENTITY_TOKEN_FILE";
        if let Some(keys) = web_identity.map_err(failed("the web identity", remedy))? {
            return Ok(keys);
        }

        let profile = ProfileCredentialProvider::new().provide_credential(&plain).await;
        let remedy = "check AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE";
        if let Some(keys) = profile.map_err(failed("the shared config", remedy))? {
            return Ok(keys);
        }
        if let Some(profile) = env.get("AWS_PROFILE") {
            return Err(AwsError::Source {
                source_name: "the shared config",
                cause: format!("profile `{}` holds no keys of its own", shown(profile)),
                remedy: "write aws_access_key_id and aws_secret_access_key there (roles, SSO and processes of a profile \
                         are not followed), or unset AWS_PROFILE",
            });
        }

        let container = ECSCredentialProvider::new().provide_credential(&plain).await;
        let remedy = "check the EKS Pod Identity agent on this node and the association of the service account";
        if let Some(keys) = container.map_err(failed("the container endpoint", remedy))? {
            return Ok(keys);
        }

        Ok(imds::keys(&self.instance, http, env, now).await?)
    }
}

/// STS of the node's region, or else of the registry's: the global endpoint, which is the library's default, is neither
/// in a VPC nor in every partition.
fn web_identity(registry_region: &str, env: &Environment) -> AssumeRoleWithWebIdentityCredentialProvider {
    let region = env.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or(registry_region);
    let session = env.get("AWS_ROLE_SESSION_NAME").unwrap_or(SESSION_NAME);
    let provider = AssumeRoleWithWebIdentityCredentialProvider::new()
        .with_region(region.to_owned())
        .with_role_session_name(session.to_owned());
    match env.get("AWS_STS_REGIONAL_ENDPOINTS") {
        Some("legacy") => provider,
        _ => provider.with_regional_sts_endpoint(),
    }
}

/// What to do about a refusal of the token.
fn remedy(answer: &Answer, call: &TokenCall) -> String {
    match answer.code().as_str() {
        "UnrecognizedClientException" | "InvalidClientTokenId" | "IncompleteSignatureException" => {
            "check that the AWS keys exist and belong to this partition".to_owned()
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" => {
            "check the AWS secret key and the node's clock".to_owned()
        }
        "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => {
            "renew the AWS keys, and check the node's clock".to_owned()
        }
        "ThrottlingException" | "TooManyRequestsException" => "it is asked again later".to_owned(),
        _ => format!("allow the node's identity {}", call.permissions()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn debug(region: &str, variables: &[(&str, &str)]) -> String {
        let env = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        format!("{:?}", web_identity(region, &Environment::new(env)))
    }

    #[test]
    fn sts_is_regional_unless_asked_otherwise() {
        let own = debug("eu-west-1", &[]);
        assert!(own.contains("region: Some(\"eu-west-1\")") && own.contains("use_regional_sts_endpoint: Some(true)"));
        assert!(own.contains("Some(\"prepull\")"));
        assert!(debug("eu-west-1", &[("AWS_REGION", "us-east-2")]).contains("Some(\"us-east-2\")"));
        assert!(debug("a", &[("AWS_STS_REGIONAL_ENDPOINTS", "legacy")]).contains("use_regional_sts_endpoint: None"));
    }

    #[test]
    fn a_refusal_names_what_to_allow() {
        let call = TokenCall::public(&Environment::default());
        let said = |body: &'static str| {
            let body = Bytes::from_static(body.as_bytes());
            remedy(&Answer::new(StatusCode::BAD_REQUEST, HeaderMap::new(), body, Vec::new()), &call)
        };
        assert!(said(r#"{"__type":"AccessDeniedException"}"#).contains("ecr-public:GetAuthorizationToken"));
        assert!(said(r#"{"__type":"x#InvalidSignatureException"}"#).contains("clock"));
        assert!(said("").contains("sts:GetServiceBearerToken"));
    }
}
