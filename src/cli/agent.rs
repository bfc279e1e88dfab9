//! `prepull agent`.

mod lists;
mod values;
mod writes;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, process::ExitCode, time::Duration};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::{lists::ListArgs, writes::WriteArgs};
use super::{
    WRONG_USAGE,
    options::{CredentialArgs, RuntimeArgs},
    output,
};
use crate::{
    agent::{self, Lists},
    io_pressure,
    list::{affinity::NodeFacts, units},
    node_report::ReadyWhen,
    panics,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    lists: ListArgs,
    #[command(flatten)]
    writes: WriteArgs,
    /// Remove label, condition and start-up taint from this agent's Node and its pins from the runtime, then be ready and
    /// do nothing: for an uninstall
    #[arg(long, env = "PREPULL_CLEANUP")]
    cleanup: bool,
    /// This node's name [default: NODE_NAME, else the host name]
    #[arg(long, env = "PREPULL_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,
    /// Where /, /api/v1/images, /metrics, /healthz and /readyz are served
    #[arg(long, env = "PREPULL_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9797", value_parser = values::listen)]
    listen: SocketAddr,
    /// How often the runtime's store is looked at without a reason
    #[arg(long, env = "PREPULL_RESYNC", value_name = "DURATION", default_value = "5m", value_parser = values::resync)]
    resync: Duration,
    /// When /readyz answers 200
    #[arg(long, env = "PREPULL_READY_WHEN", value_name = "STATE", default_value = "warm")]
    ready_when: ReadyWhenArg,
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

/// `--ready-when` on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ReadyWhenArg {
    /// When every required image is in the store.
    Warm,
    /// As soon as the agent's loop runs.
    Running,
}

impl From<ReadyWhenArg> for ReadyWhen {
    fn from(arg: ReadyWhenArg) -> Self {
        match arg {
            ReadyWhenArg::Warm => Self::Warm,
            ReadyWhenArg::Running => Self::Running,
        }
    }
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
    // the daemon's alone: another command may run in the same container
    panics::tell_in(Path::new(panics::TERMINATION_LOG));
    let Args {
        lists,
        writes,
        cleanup,
        node_name,
        listen,
        resync,
        ready_when,
        log_format,
        log_level,
        runtime,
        credentials,
    } = args;
    let writes = writes.into_options();
    if cleanup {
        start_logging(log_format, log_level);
        agent::clean_up(agent::CleanUp {
            node: local_node(node_name).name,
            listen,
            runtime_endpoint: runtime.runtime_endpoint,
            startup_taint: lists.needs_api_server().then_some(writes.startup_taint),
        })
        .await?;
        return Ok(ExitCode::SUCCESS);
    }
    let lists = match lists.into_lists(writes) {
        Ok(lists) => lists,
        Err(wrong) => {
            output::note(&format!("prepull: {wrong}"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    start_logging(log_format, log_level);
    let mut node = local_node(node_name);
    if matches!(lists, Lists::Cluster { .. }) {
        // the API server knows better, and says so where an entry selects nodes
        node.labels = None;
    }
    let credentials = credentials.into_credentials();
    let runtime_endpoint = runtime.runtime_endpoint;
    let io_pressure = io_pressure::FILE.into();
    let options = agent::Options {
        runtime_endpoint,
        lists,
        node,
        listen,
        resync,
        ready_when: ready_when.into(),
        credentials,
        io_pressure,
    };
    agent::run(options).await?;
    Ok(ExitCode::SUCCESS)
}

/// What this machine knows about itself without a cluster: its name, and the labels that every kubelet sets.
pub(super) fn local_node(name: Option<String>) -> NodeFacts {
    let name = name
        .filter(|n| !n.is_empty())
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
    NodeFacts { name, labels: Some(labels) }
}

fn start_logging(format: LogFormat, level: LevelFilter) {
    // what kube has to say is told by this agent, once for each change instead of once for each try, and with what was asked
    let libraries = if level > LevelFilter::INFO { level } else { LevelFilter::OFF };
    let targets =
        Targets::new().with_default(level).with_targets([("kube_client", libraries), ("kube_runtime", libraries)]);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    // a pipe that nobody reads any more is no reason to end, and its own report of that would go to the same pipe
    let lines = lines.log_internal_errors(false);
    let registry = tracing_subscriber::registry();
    match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(lines.with_ansi(ansi).with_filter(targets)).init();
        }
        LogFormat::Json => registry.with(lines.json().flatten_event(true).with_filter(targets)).init(),
    }
}
