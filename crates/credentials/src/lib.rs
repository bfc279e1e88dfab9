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
pub mod near_miss;
pub mod node_search;
pub mod plugin;
pub mod pull_secrets;
pub mod secret;
pub mod text;

pub mod cloud;

use std::fmt;

use secrecy::SecretString;

pub use prepull_core::credential_source::Source;

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
