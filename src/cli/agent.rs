//! `prepull agent`.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;

use super::options::{CredentialArgs, RuntimeArgs};
use crate::{
    agent::{self, ReadyWhen},
    list::{affinity::NodeFacts, units},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The list, a file; no API server is contacted. An edit takes effect at once
    #[arg(long, env = "PREPULL_IMAGES", value_name = "FILE")]
    images: PathBuf,
    /// This node's name [default: NODE_NAME, else the host name]
    #[arg(long, env = "PREPULL_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Where /, /api/v1/images, /metrics, /healthz and /readyz are served
    #[arg(long, env = "PREPULL_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9797")]
    listen: SocketAddr,
    /// How often the runtime's store is looked at without a reason
    #[arg(long, env = "PREPULL_RESYNC", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    resync: Duration,
    /// When /readyz answers 200
    #[arg(long, env = "PREPULL_READY_WHEN", value_name = "STATE", default_value = "warm")]
    ready_when: ReadyWhen,
    /// How log lines look
    #[arg(long, env = "PREPULL_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// Least level that is logged: error, warn, info, debug or trace
    #[arg(long, env = "PREPULL_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    credentials: CredentialArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// A duration above zero, for clap.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = units::duration(text).map_err(|e| format!("{}; {}", e.message, e.remedy))?;
    if duration.is_zero() { Err("write a duration above zero, such as 5m".to_owned()) } else { Ok(duration) }
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { images, node_name, listen, resync, ready_when, log_format, log_level, runtime, credentials } = args;
    start_logging(log_format, log_level);
    let node = local_node(node_name);
    let credentials = credentials.into_credentials();
    let runtime_endpoint = runtime.runtime_endpoint;
    agent::run(agent::Options { runtime_endpoint, images, node, listen, resync, ready_when, credentials }).await?;
    Ok(ExitCode::SUCCESS)
}

/// What this machine knows about itself without a cluster: its name, and the labels that every kubelet sets.
pub(super) fn local_node(name: Option<String>) -> NodeFacts {
    let name = name
        .or_else(|| std::env::var("NODE_NAME").ok())
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().to_lowercase());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let labels = [
        ("kubernetes.io/hostname", name.as_str()),
        ("kubernetes.io/os", std::env::consts::OS),
        ("kubernetes.io/arch", architecture),
    ];
    let labels: BTreeMap<_, _> = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    NodeFacts { name, labels }
}

fn start_logging(format: LogFormat, level: LevelFilter) {
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
