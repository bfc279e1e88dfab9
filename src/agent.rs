//! The daemon: wires list sources, runtime, keeper and HTTP together. ARCHITECTURE.md draws the tasks and channels.

mod attempt;
mod budget;
mod cleanup;
pub mod cluster;
mod disk;
pub mod inotify;
pub mod keeper;
pub mod link;
pub mod lists;
mod looks;
mod parallelism;
mod pins;
mod progress;
mod report;
mod rotation;
pub mod sources;
mod store_events;
mod telling;
mod wiring;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

pub use report::{LogReporter, Reporter};
pub use wiring::ClusterOptions;

use crate::{
    credentials::lookup::Credentials,
    http,
    kubernetes::{
        self,
        configmaps::{ConfigMapName, Selection},
    },
    list::affinity::NodeFacts,
    metrics::Metrics,
    node_report::ReadyWhen,
    process_clock::Clock,
    runtime::Endpoint,
};

/// Questions that may wait for the loop; more of them wait in their connections.
const QUERY_QUEUE: usize = 16;
/// List updates and link events that may wait. Their tasks wait when it is full, and read the newest afterwards.
const EVENT_QUEUE: usize = 4;

/// Where lists come from.
#[derive(Debug)]
pub enum Lists {
    /// A file; no API server is contacted.
    File(PathBuf),
    /// ConfigMaps, followed through the API server.
    Cluster {
        /// By name, in the order in which they merge.
        named: Vec<ConfigMapName>,
        /// By label, after those.
        selected: Option<Selection>,
        /// What else is done there.
        options: ClusterOptions,
    },
}

/// What the agent is to do, as its flags say.
pub struct Options {
    /// Socket of the runtime; none: the first of the usual ones that answers.
    pub runtime_endpoint: Option<Endpoint>,
    /// Where lists come from.
    pub lists: Lists,
    /// This node.
    pub node: NodeFacts,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// How often the store is looked at without a reason.
    pub resync: Duration,
    /// When the agent counts as ready.
    pub ready_when: ReadyWhen,
    /// Where credentials are looked for.
    pub credentials: Credentials,
    /// Where the kernel tells how busy the disks are.
    pub io_pressure: PathBuf,
}

/// Runs until SIGTERM or SIGINT. A second signal ends the process at once.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let clock = Clock::start();
    let metrics = Metrics::new()?;
    let queries = serve(options.listen, &options.node.name).await?;
    let (list_sender, lists) = mpsc::channel(EVENT_QUEUE);
    let (link_sender, link) = mpsc::channel(EVENT_QUEUE);
    let stop = on_signals()?;

    let (sources, cluster, reporter): (_, _, Box<dyn Reporter>) = match options.lists {
        Lists::File(path) => {
            (wiring::file(path, list_sender), cluster::Cluster::none(), Box::new(LogReporter::default()))
        }
        Lists::Cluster { named, selected, options: cluster } => {
            let client = kubernetes::client().await?;
            let sources = wiring::lists(&client, named, selected, &list_sender);
            let (cluster, reporter) = wiring::cluster(&client, &options.node.name, clock, options.ready_when, cluster);
            (sources, cluster, Box::new(reporter))
        }
    };
    tokio::spawn(link::keep_linked(options.runtime_endpoint, metrics.cri_observer(), link_sender));

    let inputs = keeper::Inputs { lists, link, queries, stop };
    let settings = keeper::Settings {
        node: options.node,
        resync: options.resync,
        ready_when: options.ready_when,
        sources,
        cluster,
        credentials: Arc::new(options.credentials),
        io_pressure: options.io_pressure,
        once: None,
    };
    keeper::Keeper::new(settings, metrics, clock, reporter).run(inputs).await;
    tracing::info!("prepull agent ends");
    Ok(())
}

/// What is to be cleaned before an uninstall.
#[derive(Debug)]
pub struct CleanUp {
    /// This node's name.
    pub node: String,
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Socket of the runtime; none: the first of the usual ones that answers.
    pub runtime_endpoint: Option<Endpoint>,
    /// The start-up taint's key; none where there is no API server, and so nothing on the Node.
    pub startup_taint: Option<String>,
}

/// Takes away what an agent wrote to its Node and to its runtime; then answers that it is ready, until SIGTERM or
/// SIGINT.
pub async fn clean_up(what: CleanUp) -> anyhow::Result<()> {
    let CleanUp { node, listen, runtime_endpoint, startup_taint } = what;
    let queries = serve(listen, &node).await?;
    let stop = on_signals()?;
    let metrics = Metrics::new()?;
    let (sender, pins) = watch::channel(Some("the container runtime has not answered yet".to_owned()));
    let mut left = vec![pins];
    tokio::spawn(cleanup::unpin(runtime_endpoint, metrics.cri_observer(), sender));
    if let Some(taint) = startup_taint {
        let client = kubernetes::client().await?;
        let (sender, on_node) = watch::channel(Some("the API server has not told about the node yet".to_owned()));
        tokio::spawn(kubernetes::cleanup::run(client, node.clone(), taint, Clock::start(), sender));
        left.push(on_node);
    }
    cleanup::answer(node, metrics, left, queries, stop).await;
    tracing::info!("prepull agent ends");
    Ok(())
}

/// Serves HTTP; the questions come out here.
async fn serve(listen: SocketAddr, node: &str) -> anyhow::Result<mpsc::Receiver<http::Query>> {
    let listener = http::bind(listen)
        .await
        .map_err(|e| anyhow::anyhow!("cannot listen on {listen}: {e}; choose another address with --listen"))?;
    tracing::info!(%listen, node, version = env!("CARGO_PKG_VERSION"), revision = env!("PREPULL_REVISION"), "prepull agent starts");
    let (sender, queries) = mpsc::channel(QUERY_QUEUE);
    tokio::spawn(http::serve(listener, sender));
    Ok(queries)
}

/// Turns true with the first SIGTERM or SIGINT; the second one ends the process.
pub fn on_signals() -> std::io::Result<watch::Receiver<bool>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        for round in 0.. {
            let code = tokio::select! {
                _ = term.recv() => 143,
                _ = int.recv() => 130,
            };
            if round > 0 {
                std::process::exit(code);
            }
            sender.send_replace(true);
        }
    });
    Ok(receiver)
}
