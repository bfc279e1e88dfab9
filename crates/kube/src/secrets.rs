//! Secrets and service accounts that entries name: fetched when a pull begins, and dropped with it.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use k8s_openapi::api::core::v1::{Secret as ApiSecret, ServiceAccount};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::watch::Trouble;
use prepull_core::desired::ObjectName;
use prepull_credentials::{
    pull_secrets::{Fetched, ObjectKey, ObjectKind, PullSecrets},
    secret::Secret,
};

/// A pull does not wait longer than this for one object: other credentials may do.
const BOUND: Duration = Duration::from_secs(10);
/// How often a busy API server is asked for one object, and the time between.
const TRIES: usize = 4;
const BETWEEN: Duration = Duration::from_secs(1);

/// Those of the API server.
#[derive(Clone)]
pub struct ClusterSecrets(Client);

impl ClusterSecrets {
    /// Fetches with this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    async fn gather(&self, pull_secrets: &[ObjectName], service_accounts: &[ObjectName]) -> Fetched {
        let mut fetched = Fetched::default();
        for name in pull_secrets {
            let secret = self.secret(name, &mut fetched).await;
            fetched.pull_secrets.extend(secret);
        }
        for account in service_accounts {
            let key = ObjectKey { kind: ObjectKind::ServiceAccount, name: account.clone() };
            let found = self.get::<ServiceAccount>(&key).await;
            let names = found.as_ref().map(named_secrets).unwrap_or_default();
            fetched.note(key, found.as_ref().ok().map(|_| account_print(&names)), found.err());
            for name in names {
                let name = ObjectName { namespace: account.namespace.clone(), name: name.into() };
                let secret = self.secret(&name, &mut fetched).await;
                fetched.service_account_secrets.extend(secret);
            }
        }
        fetched
    }

    async fn secret(&self, name: &ObjectName, fetched: &mut Fetched) -> Option<Secret> {
        let key = ObjectKey { kind: ObjectKind::Secret, name: name.clone() };
        match self.get::<ApiSecret>(&key).await {
            Ok(secret) => {
                fetched.note(key, Some(secret_print(&secret)), None);
                Some(taken(secret, name))
            }
            Err(problem) => {
                fetched.note(key, None, Some(problem));
                None
            }
        }
    }

    async fn get<K>(&self, key: &ObjectKey) -> Result<K, String>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let Some(namespace) = &key.name.namespace else {
            return Err(format!("{key} is named by a list without a namespace; put the list into a ConfigMap"));
        };
        let api: Api<K> = Api::namespaced(self.0.clone(), namespace);
        match timeout(BOUND, patiently(|| api.get(&key.name.name))).await {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(error)) => Err(explained(key, namespace, self.0.default_namespace(), &error)),
            Err(_) => {
                Err(format!("{key} could not be read: the API server did not answer within {} s", BOUND.as_secs()))
            }
        }
    }
}

/// Asks a server again that says that it is busy: a pull without its secret would fail for another reason than it has.
pub(super) async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let busy = |answer: &Result<T, kube::Error>| matches!(answer, Err(kube::Error::Api(status)) if matches!(status.code, 429 | 503 | 504));
    let mut answer = ask().await;
    for _ in 1..TRIES {
        if !busy(&answer) {
            break;
        }
        sleep(BETWEEN).await;
        answer = ask().await;
    }
    answer
}

impl PullSecrets for ClusterSecrets {
    fn fetch<'a>(
        &'a self,
        pull_secrets: &'a [ObjectName],
        service_accounts: &'a [ObjectName],
    ) -> BoxFuture<'a, Fetched> {
        self.gather(pull_secrets, service_accounts).boxed()
    }
}

/// What went wrong with an object, and what to do. The agent's own namespace tells which component grants the right.
fn explained(key: &ObjectKey, namespace: &str, own: &str, error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 => match key.kind {
            ObjectKind::Secret => {
                format!("{key} does not exist; create it, for instance with `kubectl create secret docker-registry`")
            }
            ObjectKind::ServiceAccount => format!("{key} does not exist; create it, or name another one in the list"),
        },
        kube::Error::Api(status) if status.code == 403 => {
            let resource = key.kind.resource();
            let component = if namespace == own { "pull-secrets" } else { "team-lists, its folder team" };
            format!(
                "{key} may not be read; grant get, list and watch on {resource} named {} in namespace {namespace} (component {component})",
                key.name.name
            )
        }
        other => format!("{key} could not be read: {}", Trouble::of_request(other)),
    }
}

/// Moves the content of an API object into memory that is wiped.
fn taken(secret: ApiSecret, name: &ObjectName) -> Secret {
    let data = secret.data.unwrap_or_default();
    Secret {
        namespace: name.namespace.as_deref().unwrap_or_default().to_owned(),
        name: name.name.to_string(),
        secret_type: secret.type_.unwrap_or_default(),
        data: data.into_iter().map(|(key, bytes)| (key, Zeroizing::new(bytes.0))).collect(),
    }
}

/// The pull secrets that a service account names.
pub(super) fn named_secrets(account: &ServiceAccount) -> Vec<String> {
    let names = account.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone());
    names.filter(|name| !name.is_empty()).collect()
}

/// What counts in a secret: its type and data, each part with its length before it.
pub(super) fn secret_print(secret: &ApiSecret) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    part(secret.type_.as_deref().unwrap_or_default().as_bytes());
    for (key, bytes) in secret.data.iter().flatten() {
        part(key.as_bytes());
        part(&bytes.0);
    }
    hash.finalize().into()
}

/// What counts in a service account: the pull secrets that it names. Names have no line breaks.
pub(super) fn account_print(names: &[String]) -> [u8; 32] {
    Sha256::digest(names.join("\n").as_bytes()).into()
}
