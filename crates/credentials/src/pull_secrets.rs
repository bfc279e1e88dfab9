//! Secrets and service accounts that entries name: what a pull needs of them, and by what a change is noticed. Where
//! they come from is behind [`PullSecrets`].

use std::fmt;

use futures::future::{BoxFuture, FutureExt as _};

use crate::secret::Secret;
use prepull_core::desired::ObjectName;

/// Where the objects come from that entries name.
pub trait PullSecrets: Send + Sync {
    /// Fetches what a pull needs, each object once and as it is now. Never fails: what cannot be had is a problem.
    fn fetch<'a>(
        &'a self,
        pull_secrets: &'a [ObjectName],
        service_accounts: &'a [ObjectName],
    ) -> BoxFuture<'a, Fetched>;
}

/// What was fetched for one pull.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The entry's own pull secrets, in its order.
    pub pull_secrets: Vec<Secret>,
    /// Those that its service accounts name.
    pub service_account_secrets: Vec<Secret>,
    /// What could not be had, one line each, naming the object and what to do.
    pub problems: Vec<String>,
    /// How each object looked.
    pub seen: Vec<Seen>,
}

impl Fetched {
    /// Notes how an object looked, and what was wrong with it.
    pub fn note(&mut self, key: ObjectKey, fingerprint: Fingerprint, problem: Option<String>) {
        self.seen.push(Seen { key, fingerprint });
        self.problems.extend(problem);
    }
}

/// A kind of object that entries name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A pull secret.
    Secret,
    /// A service account, which names pull secrets.
    ServiceAccount,
}

impl ObjectKind {
    /// As it is called in texts.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::ServiceAccount => "service account",
        }
    }

    /// As it is called in rights.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::ServiceAccount => "serviceaccounts",
        }
    }
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.noun(), self.name.name),
            None => write!(f, "{} {}", self.kind.noun(), self.name.name),
        }
    }
}

/// A hash of what counts in an object; none where it is not there or could not be read.
pub type Fingerprint = Option<[u8; 32]>;

/// How an object looked when it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which object.
    pub key: ObjectKey,
    /// How it looked.
    pub fingerprint: Fingerprint,
}

/// Without a cluster nothing that entries name can be had.
#[derive(Debug, Clone, Copy)]
pub struct NoCluster;

impl PullSecrets for NoCluster {
    fn fetch<'a>(
        &'a self,
        pull_secrets: &'a [ObjectName],
        service_accounts: &'a [ObjectName],
    ) -> BoxFuture<'a, Fetched> {
        let named = |kind, names: &[ObjectName]| -> Vec<ObjectKey> {
            names.iter().map(|name| ObjectKey { kind, name: name.clone() }).collect()
        };
        let keys = named(ObjectKind::Secret, pull_secrets).into_iter();
        let keys = keys.chain(named(ObjectKind::ServiceAccount, service_accounts));
        let problem = |key: ObjectKey| {
            format!(
                "{key} is named by a list that is a file, which has no namespace; give its manifest with --pull-secret, or put the list into a ConfigMap"
            )
        };
        let fetched = Fetched { problems: keys.map(problem).collect(), ..Fetched::default() };
        async move { fetched }.boxed()
    }
}
