//! Where the runtime listens.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

/// The usual sockets, in the order in which they are tried: containerd, CRI-O, k3s and RKE2, cri-dockerd, k0s,
/// MicroK8s.
pub const USUAL: [&str; 6] = [
    "/run/containerd/containerd.sock",
    "/var/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/var/run/cri-dockerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// A unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

/// The text is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no unix socket; write unix:///path/to/socket or the path alone")]
pub struct EndpointError(String);

impl Endpoint {
    /// From a path.
    pub fn of_path(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What to do if something answers here that is not a CRI runtime, as far as the path or the answer shows it.
    pub(super) fn fix(&self, answer: &str) -> Option<&'static str> {
        if matches!(self.0.file_name().and_then(|name| name.to_str()), Some("docker.sock" | "dockershim.sock")) {
            return Some(
                "this is Docker's socket, which does not serve CRI; use cri-dockerd's (/var/run/cri-dockerd.sock) or \
                 containerd's (/run/containerd/containerd.sock)",
            );
        }
        answer.contains("unknown service runtime.v1").then_some(
            "enable containerd's CRI plugin: remove `cri` from `disabled_plugins` in its config.toml and restart it; \
             if it is enabled, containerd's log says why it was not loaded",
        )
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') { Ok(Self(path.into())) } else { Err(EndpointError(text.to_owned())) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_and_is_not_a_cri_runtime_is_named_with_its_fix() {
        let fix = |path: &str, answer| Endpoint::of_path(path).fix(answer).unwrap_or_default();
        assert!(fix("/var/run/docker.sock", "h2 protocol error").starts_with("this is Docker's socket"));
        let disabled = "unknown service runtime.v1.RuntimeService";
        assert!(fix("/run/containerd/containerd.sock", disabled).contains("`disabled_plugins`"));
        assert_eq!(fix("/run/containerd/containerd.sock", "h2 protocol error"), "");
    }

    #[test]
    fn a_url_or_a_path() {
        for text in ["unix:///run/a.sock", "/run/a.sock"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), "unix:///run/a.sock");
        }
        for text in ["", "run/a.sock", "tcp://127.0.0.1:1", "unix://run/a.sock"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?} was read");
        }
    }
}
