//! Azure: the node's identity gets a token from Entra ID, and the registry trades it for one of its own.

mod entra;
mod exchange;

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;

use self::entra::{Identity, Proof};
use super::{
    answer::{Answer, Unreadable},
    aws::read_bounded,
    challenge::ChallengeError,
    environment::Environment,
    http::{Http, HttpError},
    keep::Fetched,
    metadata::{Guard, NoService},
    names::AcrHost,
    text::shown,
};
use crate::Auth;

/// The user that goes with a registry's token.
const USER: &str = "00000000-0000-0000-0000-000000000000";
/// How long a registry's token is kept, as by Azure's own plugin. It lasts three times as long.
const KEPT: Duration = Duration::from_hours(1);
/// What is left of a token's life when it is dropped, where it says how long that is.
const MARGIN: Duration = Duration::from_mins(1);

/// Why there is no token. Each text ends with what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum AzureError {
    /// Not on Azure, or the metadata service is hidden.
    #[error("{0}; outside Azure set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or use a pull secret")]
    NoService(#[from] NoService),
    /// The cluster's token cannot be read.
    #[error("the file in AZURE_FEDERATED_TOKEN_FILE cannot be read: {0}; label the pod for workload identity")]
    File(String),
    /// Entra ID cannot be asked.
    #[error("{0}; check AZURE_AUTHORITY_HOST and the node's way to Entra ID")]
    Authority(HttpError),
    /// Entra ID or the metadata service refuses.
    #[error("{identity} got no token: {answer}; {remedy}")]
    Refused {
        /// Who asked.
        identity: Identity,
        /// The answer.
        answer: String,
        /// What to do.
        remedy: &'static str,
    },
    /// They answer something else than a token.
    #[error("the answer for {0} was no token; check AZURE_AUTHORITY_HOST and AZURE_POD_IDENTITY_AUTHORITY_HOST")]
    Unreadable(Identity),
    /// An address of the variables is none.
    #[error("no address for {0}; check AZURE_AUTHORITY_HOST and AZURE_POD_IDENTITY_AUTHORITY_HOST")]
    Address(Identity),
    /// The registry cannot be asked.
    #[error("{0}; check the registry's name, its firewall and its private endpoint")]
    Registry(HttpError),
    /// The registry's challenge is not to be answered.
    #[error("{login_server} cannot be trusted with a token: {cause}; check that the name leads to Azure")]
    Challenge {
        /// The registry.
        login_server: String,
        /// What is wrong.
        cause: ChallengeError,
    },
    /// The registry does not take the identity's token.
    #[error("{login_server} did not take the token: {answer}; give the node's identity the role AcrPull on it")]
    Exchange {
        /// The registry.
        login_server: String,
        /// Its answer.
        answer: String,
    },
    /// The exchange has another result.
    #[error("{0} did not answer the exchange with a token; check that the name leads to Azure")]
    NoExchange(String),
}

/// What is known about Azure from one lookup to the next.
#[derive(Default)]
pub(super) struct Azure {
    machine: Guard,
}

impl Azure {
    /// Fetches a registry's token.
    pub(super) async fn token(
        &self,
        host: &AcrHost,
        http: &Http,
        env: &Environment,
        now: Timestamp,
    ) -> Result<Fetched, AzureError> {
        let identity = self.identity_token(host, http, env, now).await?;
        let token = registry_token(host, http, env, &identity).await?;
        let ends = exchange::expiry_of(&token).and_then(|end| end.checked_sub(MARGIN).ok());
        let kept = now.checked_add(KEPT).ok();
        let until = ends.map_or(kept, |ends| kept.map(|kept| kept.min(ends))).filter(|until| *until > now);
        let auth = Auth { username: USER.to_owned(), password: token, ..Auth::default() };
        Ok(Fetched { auth: Some(auth), until, problems: Vec::new() })
    }

    async fn identity_token(
        &self,
        host: &AcrHost,
        http: &Http,
        env: &Environment,
        now: Timestamp,
    ) -> Result<SecretString, AzureError> {
        let identity = Identity::of(env);
        let address = |_| AzureError::Address(identity.clone());
        let answer = match &identity {
            Identity::ServicePrincipal => {
                let proof = Proof::Secret(env.get("AZURE_CLIENT_SECRET").unwrap_or_default());
                let request = entra::client_request(host.cloud, env, &proof).map_err(address)?;
                http.send(request).await.map_err(AzureError::Authority)?
            }
            Identity::Workload(path) => {
                let content = read_bounded(path).await.map_err(|err| AzureError::File(shown(&err.to_string())))?;
                let token = String::from_utf8(content).map_err(|_| AzureError::File("it is no text".to_owned()))?;
                let token = SecretString::from(token.trim());
                let request = entra::client_request(host.cloud, env, &Proof::Assertion(&token)).map_err(address)?;
                http.send(request).await.map_err(AzureError::Authority)?
            }
            Identity::Managed => {
                // a token may take Entra ID several seconds, so something quick tells first whether anybody is there
                let quick = entra::quick_request(env).map_err(address)?;
                self.machine.detect(http, now, quick).await?;
                let request = entra::managed_request(host.cloud, env).map_err(address)?;
                self.machine.ask(http, now, request).await?
            }
        };
        if !answer.status.is_success() {
            let (answer, remedy) = (answer.refusal(), remedy(&identity));
            return Err(AzureError::Refused { identity, answer, remedy });
        }
        entra::read_token(&answer).map_err(|Unreadable| AzureError::Unreadable(identity))
    }
}

/// Trades the identity's token at the registry, which must be the one that the image names.
async fn registry_token(
    host: &AcrHost,
    http: &Http,
    env: &Environment,
    identity: &SecretString,
) -> Result<SecretString, AzureError> {
    let server = host.login_server.as_str();
    let send = async |request: Result<_, http::Error>| -> Result<Answer, AzureError> {
        let request = request.map_err(|_| AzureError::Registry(HttpError::Address(shown(server))))?;
        http.send(request).await.map_err(AzureError::Registry)
    };
    let challenge = send(exchange::challenge_request(server)).await?;
    let service = exchange::read_challenge(&challenge, server)
        .map_err(|cause| AzureError::Challenge { login_server: server.to_owned(), cause })?;
    let tenant = env.get("AZURE_TENANT_ID").map(str::to_owned).or_else(|| exchange::tenant_of(identity));
    let answer = send(exchange::exchange_request(server, &service, tenant.as_deref(), identity)).await?;
    if !answer.status.is_success() {
        return Err(AzureError::Exchange { login_server: server.to_owned(), answer: answer.refusal() });
    }
    exchange::read_token(&answer).map_err(|Unreadable| AzureError::NoExchange(server.to_owned()))
}

/// What to do when Entra ID or the metadata service refuses.
fn remedy(identity: &Identity) -> &'static str {
    match identity {
        Identity::ServicePrincipal => "check AZURE_CLIENT_ID, AZURE_TENANT_ID and the secret's expiry",
        Identity::Workload(_) => "check the federated credential of the identity in AZURE_CLIENT_ID",
        Identity::Managed => "assign an identity to the node, and name it in AZURE_CLIENT_ID where it has several",
    }
}
