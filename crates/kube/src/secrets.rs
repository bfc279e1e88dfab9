//! Secrets and service accounts that entries name: fetched when a pull begins, and dropped with it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
    stream,
};
use k8s_openapi::api::core::v1::{Secret as ApiSecret, ServiceAccount};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Mutex, OnceCell},
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

use super::{process_clock::Clock, request_budget::RequestBudget, watch::Trouble};
use prepull_core::desired::ObjectName;
use prepull_credentials::{
    pull_secrets::{Fetched, ObjectKey, ObjectKind, PullSecrets},
    secret::Secret,
};

/// A pull does not wait longer than this for one answer: other credentials may do.
const BOUND: Duration = Duration::from_secs(10);
/// How often a busy API server is asked for one object, and the time between.
const TRIES: usize = 4;
const BETWEEN: Duration = Duration::from_secs(1);

/// Objects that one attempt fetches at the same time.
const MAX_FETCHES_PER_ATTEMPT: usize = 4;
/// Pull secrets that one service account brings; what it names beyond is left out, with a problem.
const MAX_SECRETS_PER_ACCOUNT: usize = 50;
/// How long an answer serves other attempts that name the same object. Then it is wiped: a warm agent holds no secret.
const SHARED_FOR: Duration = Duration::from_secs(5);

/// What an object held, or why it could not be read.
type Answer = Result<Arc<Object>, String>;

/// An object as a pull needs it.
enum Object {
    Secret {
        secret: Secret,
        fingerprint: [u8; 32],
    },
    /// The names of the pull secrets that a service account brings.
    Account(Vec<String>),
}

/// The Secrets and service accounts of the API server. Clones share their answers and their budget of requests.
#[derive(Clone)]
pub struct ClusterSecrets {
    client: Client,
    budget: Arc<RequestBudget>,
    answers: Arc<Mutex<HashMap<ObjectKey, Arc<OnceCell<Answer>>>>>,
}

impl ClusterSecrets {
    /// Fetches with this client.
    pub fn new(client: Client, clock: Clock) -> Self {
        Self { client, budget: Arc::new(RequestBudget::new(clock)), answers: Arc::default() }
    }

    /// Waits until a request about a Secret or a service account may be sent.
    pub(super) async fn turn(&self) {
        self.budget.turn().await;
    }

    /// Forgets what an object held: it has changed.
    pub(super) async fn changed(&self, key: &ObjectKey) {
        self.answers.lock().await.remove(key);
    }

    async fn gather(&self, pull_secrets: &[ObjectName], service_accounts: &[ObjectName]) -> Fetched {
        let mut fetched = Fetched::default();
        fetched.pull_secrets = self.secrets(pull_secrets.to_vec(), &mut fetched).await;
        let keys =
            service_accounts.iter().map(|name| ObjectKey { kind: ObjectKind::ServiceAccount, name: name.clone() });
        let accounts: Vec<_> = self.objects(keys.collect()).await;
        let mut named = Vec::new();
        for (key, answer) in accounts {
            let namespace = key.name.namespace.clone();
            let names = match answer.as_deref() {
                Ok(Object::Account(names)) => names.as_slice(),
                Ok(Object::Secret { .. }) | Err(_) => &[],
            };
            let bound = names.len().min(MAX_SECRETS_PER_ACCOUNT);
            let bounded = names[..bound].iter();
            named.extend(bounded.map(|name| ObjectName { namespace: namespace.clone(), name: name.as_str().into() }));
            let problem = (bound < names.len()).then(|| {
                format!("{key} names {} pull secrets: only the first {bound} are used. Fix: name fewer", names.len())
            });
            let fingerprint = answer.is_ok().then(|| account_print(names));
            fetched.note(key, fingerprint, answer.err().or(problem));
        }
        fetched.service_account_secrets = self.secrets(named, &mut fetched).await;
        fetched
    }

    /// Fetches secrets in their order; those that cannot be had are problems.
    async fn secrets(&self, names: Vec<ObjectName>, fetched: &mut Fetched) -> Vec<Secret> {
        let keys = names.into_iter().map(|name| ObjectKey { kind: ObjectKind::Secret, name });
        let mut secrets = Vec::new();
        for (key, answer) in self.objects(keys.collect()).await {
            match answer.as_deref() {
                Ok(Object::Secret { secret, fingerprint }) => {
                    fetched.note(key, Some(*fingerprint), None);
                    secrets.push(secret.clone());
                }
                Ok(Object::Account(_)) => {}
                Err(problem) => fetched.note(key, None, Some(problem.clone())),
            }
        }
        secrets
    }

    /// Fetches objects, some at a time, and returns them in their order.
    async fn objects(&self, keys: Vec<ObjectKey>) -> Vec<(ObjectKey, Answer)> {
        let fetch = |key: ObjectKey| async move {
            let answer = self.shared(&key).await;
            (key, answer)
        };
        stream::iter(keys).map(fetch).buffered(MAX_FETCHES_PER_ATTEMPT).collect().await
    }

    /// Fetches an object once for all attempts that name it at about the same time.
    async fn shared(&self, key: &ObjectKey) -> Answer {
        let slot = self.answers.lock().await.entry(key.clone()).or_default().clone();
        let fetch = || async {
            let answer = self.object(key).await;
            let (answers, key, fetched) = (self.answers.clone(), key.clone(), Arc::downgrade(&slot));
            tokio::spawn(async move {
                sleep(SHARED_FOR).await;
                let mut answers = answers.lock().await;
                if answers.get(&key).is_some_and(|slot| Arc::as_ptr(slot) == fetched.as_ptr()) {
                    answers.remove(&key);
                }
            });
            answer
        };
        slot.get_or_init(fetch).await.clone()
    }

    async fn object(&self, key: &ObjectKey) -> Answer {
        let object = match key.kind {
            ObjectKind::Secret => {
                let secret = self.get::<ApiSecret>(key).await?;
                let fingerprint = secret_print(&secret);
                Object::Secret { secret: taken(secret, &key.name), fingerprint }
            }
            ObjectKind::ServiceAccount => Object::Account(named_secrets(&self.get::<ServiceAccount>(key).await?)),
        };
        Ok(Arc::new(object))
    }

    async fn get<K>(&self, key: &ObjectKey) -> Result<K, String>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let Some(namespace) = &key.name.namespace else {
            return Err(format!("{key} is named by a list without a namespace; put the list into a ConfigMap"));
        };
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let ask = || async {
            self.turn().await;
            timeout(BOUND, api.get(&key.name.name)).await
        };
        let mut answer = ask().await;
        for _ in 1..TRIES {
            if !answer.as_ref().is_ok_and(is_busy) {
                break;
            }
            sleep(BETWEEN).await;
            answer = ask().await;
        }
        match answer {
            Ok(Ok(object)) => Ok(object),
            Ok(Err(error)) => Err(explained(key, namespace, self.client.default_namespace(), &error)),
            Err(_) => {
                Err(format!("{key} could not be read: the API server did not answer within {} s", BOUND.as_secs()))
            }
        }
    }
}

/// Returns whether the API server asks to try again later.
fn is_busy<T>(answer: &Result<T, kube::Error>) -> bool {
    matches!(answer, Err(kube::Error::Api(status)) if matches!(status.code, 429 | 503 | 504))
}

/// Asks a server again that says that it is busy: a pull without its secret would fail for another reason than it has.
pub(super) async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let mut answer = ask().await;
    for _ in 1..TRIES {
        if !is_busy(&answer) {
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
