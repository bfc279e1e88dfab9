//! The kinds of places that registry credentials come from.

use std::fmt;

use serde::Serialize;

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
