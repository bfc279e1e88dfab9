//! Built-in lookups for the registries of Amazon, Google and Azure, for nodes without the clouds' kubelet plugins.
//!
//! [`names`] says whose a registry is, each cloud's module builds requests and reads answers as data, and one small
//! HTTP client sends them. [`Clouds`] keeps tokens as long as the cloud's own plugin would, and asks once for each
//! registry however many pulls wait. Whatever goes wrong is a line of text, never an error: the pull goes on without.

pub mod answer;
mod aws;
mod azure;
pub mod challenge;
mod environment;
mod google;
mod http;
mod keep;
mod metadata;
pub mod names;
mod routes;
mod text;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::timeout;

use self::{
    aws::{Aws, AwsError, ecr::TokenCall},
    azure::Azure,
    environment::Environment,
    google::{Google, GoogleError},
    http::Http,
    keep::{Fetched, Keep},
    metadata::NoService,
    names::{RegistryName, registry_of},
};
pub use self::{
    names::{CloudProvider, provider_of},
    routes::Routes,
};
use super::Auth;
use prepull_core::image_ref::ImageRef;

/// How this program names itself to servers.
const USER_AGENT: &str = concat!("prepull/", env!("CARGO_PKG_VERSION"));
/// How long one lookup may take, all its requests together.
pub const LOOKUP_LIMIT: Duration = Duration::from_secs(30);

/// Tells the time by which tokens expire.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What lookups depend on.
#[derive(Clone)]
pub struct CloudOptions {
    /// The clouds' own variables: `AWS_*`, `GCE_METADATA_HOST`, `AZURE_*`, and `HOME`, `SSL_CERT_FILE`,
    /// `SSL_CERT_DIR`. Outside tests the whole environment of the process; empty ones count as absent.
    pub env: BTreeMap<String, String>,
    /// How hosts are found; by DNS outside tests.
    pub routes: Routes,
    /// The time. Signatures are made with the system's own, whatever this says.
    pub clock: Clock,
}

impl Default for CloudOptions {
    /// No variables, DNS, and the system's clock.
    fn default() -> Self {
        Self { env: BTreeMap::new(), routes: Routes::Dns, clock: Arc::new(Timestamp::now) }
    }
}

impl fmt::Debug for CloudOptions {
    /// Variables may hold secrets, so their values are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudOptions")
            .field("env", &self.env.keys())
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

/// What a lookup found.
#[derive(Debug, Clone, Default)]
pub struct CloudLookup {
    /// Pattern and credential. The pattern is the registry for Amazon and Azure, and for Google the one of its plugin's
    /// patterns that matches.
    pub found: Vec<(String, Auth)>,
    /// One line each, in lower case, the provider's name in front, what to do at the end. Nothing secret, and nothing
    /// of a server's that could move a cursor.
    pub problems: Vec<String>,
}

/// All built-in lookups, with what they keep between calls: tokens, and which metadata services do not answer. Meant to
/// be shared by all pulls of a process.
pub struct Clouds {
    env: Environment,
    routes: Routes,
    clock: Clock,
    keep: Keep,
    aws: Aws,
    google: Google,
    azure: Azure,
}

impl fmt::Debug for Clouds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clouds").field("env", &self.env).finish_non_exhaustive()
    }
}

impl Clouds {
    /// Sets the lookups up; nothing is asked or read yet.
    pub fn new(options: CloudOptions) -> Self {
        let CloudOptions { env, routes, clock } = options;
        Self {
            env: Environment::new(env),
            routes,
            clock,
            keep: Keep::default(),
            aws: Aws::default(),
            google: Google::default(),
            azure: Azure::default(),
        }
    }

    /// Finds the credential for an image; nothing for a registry that is no cloud's. Takes at most [`LOOKUP_LIMIT`] for
    /// each registry, and a second where a metadata service is dead.
    pub async fn lookup(&self, image: &ImageRef) -> CloudLookup {
        let registry = registry_of(image);
        let (Some(provider), Some(name)) = (provider_of(image), RegistryName::of(registry)) else {
            return CloudLookup::default();
        };
        let (key, pattern) = match &name {
            // all of Google's registries take the same token, and so do the two names of ECR Public
            RegistryName::Google(pattern) => ("gcp".to_owned(), (*pattern).to_owned()),
            RegistryName::EcrPublic => ("ecr-public".to_owned(), registry.to_owned()),
            // the registry with its port, if it has one: the kubelet drops it and then finds no match
            RegistryName::Ecr(_) | RegistryName::Acr(_) => (registry.to_owned(), registry.to_owned()),
        };
        // boxed, because the state of a lookup that asks is large, and a kept token needs none of it
        let fetch = Box::pin(self.fetch(provider, &name));
        let fetched = self.keep.get(key, || (self.clock)(), fetch).await;
        CloudLookup {
            found: fetched.auth.map(|auth| (pattern, auth)).into_iter().collect(),
            problems: fetched.problems,
        }
    }

    async fn fetch(&self, provider: CloudProvider, name: &RegistryName) -> Fetched {
        let asked = timeout(LOOKUP_LIMIT, self.ask(name)).await;
        let mut fetched = asked
            .unwrap_or_else(|_| {
                Err(format!("no token within {} s; it is asked for again later", LOOKUP_LIMIT.as_secs()))
            })
            .unwrap_or_else(|problem| Fetched { problems: vec![problem], ..Fetched::default() });
        for problem in &mut fetched.problems {
            *problem = format!("{provider}: {problem}");
        }
        fetched
    }

    async fn ask(&self, name: &RegistryName) -> Result<Fetched, String> {
        let http = Arc::new(Http::new(self.routes.clone(), self.env.clone()));
        let (env, now) = (&self.env, (self.clock)());
        match name {
            RegistryName::Ecr(host) => {
                self.aws.token(&TokenCall::private(host, env), http, env, now).await.map_err(|err| err.to_string())
            }
            // what these two serve to anybody is pulled outside their clouds as well: having no identity is no problem
            RegistryName::EcrPublic => match self.aws.token(&TokenCall::public(env), http, env, now).await {
                Err(AwsError::NoKeys(_)) => Ok(Fetched::default()),
                other => other.map_err(|err| err.to_string()),
            },
            RegistryName::Google(_) => match self.google.token(&http, env, now).await {
                Err(GoogleError::NoService(NoService::Dead { .. })) if !google::is_configured(env) => {
                    Ok(Fetched::default())
                }
                other => other.map_err(|err| err.to_string()),
            },
            RegistryName::Acr(host) => self.azure.token(host, &http, env, now).await.map_err(|err| err.to_string()),
        }
    }
}
