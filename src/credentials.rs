//! Registry credentials: what would be tried for an image, in the kubelet's order.
//!
//! The pull secrets of an entry and of its service account form one keyring; all docker configs, all plugins and all
//! clouds one each. The keyrings are asked one after the other, and what they find is joined, duplicates kept.
//!
//! `lookup` is the only part that knows all sources. `docker_config`, `secret`, `keyring`, `go_rules` and most of
//! `plugin` are pure; `file`, `node_search` and `plugin::runner` touch the node.

pub mod docker_config;
pub mod document;
pub mod file;
pub mod go_rules;
pub mod keyring;
pub mod lookup;
pub mod node_search;
pub mod plugin;
pub mod secret;
pub mod text;

pub mod cloud;

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::cri::AuthConfig;

/// Where a credential came from, as `prepull explain` and the status name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A Secret that the entry names, or that `--pull-secret` gives.
    PullSecret,
    /// A Secret that the entry's service account names.
    ServiceAccount,
    /// The node's docker config file.
    DockerConfig,
    /// A kubelet credential provider plugin.
    ExecPlugin,
    /// A built-in cloud lookup.
    Cloud,
}

impl Source {
    /// All values, for metrics that show each from the start.
    pub const ALL: [Self; 5] =
        [Self::PullSecret, Self::ServiceAccount, Self::DockerConfig, Self::ExecPlugin, Self::Cloud];

    /// The name in JSON, labels and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PullSecret => "pull-secret",
            Self::ServiceAccount => "service-account",
            Self::DockerConfig => "docker-config",
            Self::ExecPlugin => "exec-plugin",
            Self::Cloud => "cloud",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is handed to the runtime. Debug prints nothing of the secrets, and dropping it wipes them.
#[derive(Clone, Default)]
pub struct Auth {
    /// User name; not a secret, `prepull explain` shows it.
    pub username: String,
    /// Password or access token.
    pub password: SecretString,
    /// OAuth refresh token (`identitytoken` of a docker config).
    pub identity_token: Option<SecretString>,
    /// Bearer token for the registry itself (`registrytoken` of a docker config).
    pub registry_token: Option<SecretString>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Auth {
    /// The CRI message, with user name and password (and tokens where a config has them), as the kubelet fills it:
    /// `auth` and `server_address` stay empty.
    pub fn to_cri(&self) -> AuthConfig {
        let token = |t: &Option<SecretString>| t.as_ref().map_or_else(String::new, |t| t.expose_secret().to_owned());
        AuthConfig {
            username: self.username.clone(),
            password: self.password.expose_secret().to_owned(),
            identity_token: token(&self.identity_token),
            registry_token: token(&self.registry_token),
            ..AuthConfig::default()
        }
    }
}

/// One credential that matches an image.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Which kind of source gave it.
    pub source: Source,
    /// Which one of that kind: a file, `namespace/name` of a Secret, a plugin's or a cloud's name.
    pub origin: String,
    /// The key that matched, normalised (`registry.example.com/team`).
    pub pattern: String,
    /// What the runtime is handed.
    pub auth: Auth,
}
