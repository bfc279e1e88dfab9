//! Everything that is asked of the API server and written to it. Each part works with what its right allows, and says
//! once which right is absent and which component of the manifests grants it.

pub mod access;
pub mod agents;
pub mod cleanup;
pub mod configmaps;
pub mod discovered;
pub mod events;
pub mod gate;
pub mod guard;
pub mod messages;
pub mod node;
mod pace;
pub mod process_clock;
pub mod request_budget;
pub mod rotation;
pub mod secrets;
pub mod server_clock;
pub mod slots;
pub mod wanted;
pub mod watch;
pub mod workloads;
pub mod writes;

use std::{path::PathBuf, time::Duration};

use http::{HeaderValue, header::USER_AGENT};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};

/// A request that finds no open port is tried again soon enough by who makes it.
const CONNECT_BOUND: Duration = Duration::from_secs(10);

/// No answer takes longer, and a watch brings bookmarks or its end more often: this finds connections that died unheard.
const SILENCE_BOUND: Duration = Duration::from_mins(5);

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Neither a kubeconfig nor a pod's service account.
    #[error(
        "no API server is configured; run in a pod with a service account, set KUBECONFIG, or name a file with --images"
    )]
    NoConfig(#[source] kube::config::InferConfigError),
    /// The same, of a command that needs one.
    #[error("no API server is configured; name a kubeconfig with --kubeconfig or KUBECONFIG")]
    NoAccess(#[source] kube::config::InferConfigError),
    /// A kubeconfig that was named, or its context.
    #[error("the kubeconfig cannot be used; see --kubeconfig and --context")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    /// The configuration cannot be used.
    #[error("the API server's client cannot be made")]
    Client(#[source] kube::Error),
}

/// What people name of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// A file instead of `KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context instead of the current one.
    pub context: Option<String>,
}

/// A client for the API server: that of `KUBECONFIG`, else the one of the pod's service account. Sends nothing yet.
pub async fn client() -> Result<Client, ClusterError> {
    client_of(Config::infer().await.map_err(ClusterError::NoConfig)?)
}

/// A client as `kubectl` would have it. Sends nothing yet.
pub async fn client_for(access: Access) -> Result<Client, ClusterError> {
    let Access { kubeconfig, context } = access;
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = match kubeconfig {
        None if options.context.is_none() => Config::infer().await.map_err(ClusterError::NoAccess)?,
        None => Config::from_kubeconfig(&options).await.map_err(ClusterError::Kubeconfig)?,
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(ClusterError::Kubeconfig)?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(ClusterError::Kubeconfig)?
        }
    };
    client_of(config)
}

fn client_of(mut config: Config) -> Result<Client, ClusterError> {
    config.connect_timeout = Some(CONNECT_BOUND);
    config.read_timeout = Some(SILENCE_BOUND);
    config.reset_reader_on_write = true;
    // kube's own retries of 429, 503 and 504 say nothing and wait up to 1000 s, or as long as the server says: after an
    // outage of ten minutes a list would not be followed for ten more. Whoever asks tries again by rules of his own.
    config.default_retry = false;
    let agent = HeaderValue::from_static(concat!("prepull/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    let builder = ClientBuilder::try_from(config).map_err(ClusterError::Client)?;
    Ok(builder.with_layer(&pace::PaceLayer).build())
}
