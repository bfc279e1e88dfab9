//! How commands for people find the cluster: as `kubectl` does.

use std::path::PathBuf;

use clap::Args;
use kube::Client;

use crate::kubernetes::{self, Access, ClusterError};

/// Which cluster.
#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// The kubeconfig [default: KUBECONFIG, else ~/.kube/config, else the service account of the pod]
    #[arg(long, env = "PREPULL_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Which of its contexts [default: the current one]
    #[arg(long, env = "PREPULL_CONTEXT", value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArgs {
    /// A client; its default namespace is the context's. Sends nothing yet.
    pub(super) async fn client(self) -> Result<Client, ClusterError> {
        let Self { kubeconfig, context } = self;
        kubernetes::client_for(Access { kubeconfig, context }).await
    }
}
