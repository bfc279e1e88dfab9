//! Flags that several commands share.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, ValueEnum};

use super::images::or_twin;
use crate::{
    cli::output::Format,
    credentials::{
        cloud::{CloudOptions, Clouds},
        lookup::{CloudLookup, Credentials, Options},
        node_search::{NodeConfigs, SearchFolders},
        plugin::{PluginOptions, runner::Limits},
    },
    runtime::Endpoint,
};

/// Where the container runtime is.
#[derive(Debug, Args)]
pub(super) struct RuntimeArgs {
    /// Socket of the container runtime, unix:///path or a path [default: the first that answers among containerd,
    /// CRI-O, k3s and cri-dockerd]
    #[arg(long, env = "PREPULL_RUNTIME_ENDPOINT", value_name = "SOCKET")]
    pub(super) runtime_endpoint: Option<Endpoint>,
}

/// Where credentials come from.
#[derive(Debug, Args)]
pub(super) struct CredentialArgs {
    /// Docker config of the node; repeatable; a file named .dockercfg is of the legacy format [default: the kubelet's
    /// search order] [env: PREPULL_DOCKER_CONFIG, separated by commas]
    #[arg(long, value_name = "FILE")]
    pub(super) docker_config: Vec<PathBuf>,
    /// The kubelet's root folder, where its docker config is looked for first
    #[arg(long, env = "PREPULL_KUBELET_ROOT", value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub(super) kubelet_root: PathBuf,
    /// Manifest of a pull secret, YAML or JSON, tried for every image; repeatable [env: PREPULL_PULL_SECRET, separated
    /// by commas]
    #[arg(long, value_name = "FILE")]
    pub(super) pull_secret: Vec<PathBuf>,
    /// The kubelet's configuration of credential provider plugins, a file or a folder
    #[arg(
        long,
        env = "PREPULL_IMAGE_CREDENTIAL_PROVIDER_CONFIG",
        value_name = "PATH",
        requires = "image_credential_provider_bin_dir"
    )]
    pub(super) image_credential_provider_config: Option<PathBuf>,
    /// The folder with the plugins' programs
    #[arg(long, env = "PREPULL_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR", value_name = "DIR")]
    pub(super) image_credential_provider_bin_dir: Option<PathBuf>,
    /// Ask the cloud that this machine runs in for credentials of its own registries
    #[arg(long, env = "PREPULL_CLOUD_CREDENTIALS", value_name = "WHEN", default_value = "auto")]
    pub(super) cloud_credentials: CloudCredentials,
}

impl CredentialArgs {
    /// The sources that the flags name.
    pub(super) fn into_credentials(self) -> Credentials {
        let Self {
            docker_config,
            kubelet_root,
            pull_secret,
            image_credential_provider_config,
            image_credential_provider_bin_dir,
            cloud_credentials,
        } = self;
        let docker_config = or_twin(docker_config, "PREPULL_DOCKER_CONFIG");
        let pull_secret = or_twin(pull_secret, "PREPULL_PULL_SECRET");
        let node_configs = if docker_config.is_empty() {
            NodeConfigs::Search(SearchFolders::of_this_process(kubelet_root))
        } else {
            NodeConfigs::Named(docker_config)
        };
        let plugins = image_credential_provider_config
            .zip(image_credential_provider_bin_dir)
            .map(|(config, bin_dir)| PluginOptions { config, bin_dir, limits: Limits::default() });
        let clouds: Option<Arc<dyn CloudLookup>> = match cloud_credentials {
            // variables that are no text are none of the clouds'
            CloudCredentials::Auto => {
                let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
                Some(Arc::new(Clouds::new(CloudOptions { env: env.collect(), ..CloudOptions::default() })))
            }
            CloudCredentials::Off => None,
        };
        Credentials::new(Options { node_configs, pull_secret_files: pull_secret, plugins, clouds })
    }
}

/// Whether clouds are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CloudCredentials {
    /// For their own registries, where no plugin does it.
    Auto,
    /// Never.
    Off,
}

/// How data is printed.
#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// How to print
    #[arg(short, long, env = "PREPULL_OUTPUT", value_name = "FORMAT", default_value = "table")]
    pub(super) output: Format,
}
