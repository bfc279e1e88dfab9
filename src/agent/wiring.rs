//! Starts the tasks that lists, node and secrets come from, and hands out the keeper's ends.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kube::Client;
use tokio::sync::{mpsc, watch};

use super::{
    cluster::{Cluster, Ends},
    lists,
    sources::SourceNames,
    telling::ClusterReporter,
};
use crate::{
    kubernetes::{
        configmaps::{self, ConfigMapName, Selection},
        events::{self, Subjects},
        gate::{Gate, OwnPod},
        node, rotation,
        secrets::ClusterSecrets,
        slots,
        writes::Writer,
    },
    list_update::ListUpdate,
    node_report::ReadyWhen,
    node_view::NodeView,
    node_writes::{NodeWrites, Parts},
    process_clock::Clock,
};

/// Follows a file.
pub(super) fn file(path: PathBuf, updates: mpsc::Sender<ListUpdate>) -> SourceNames {
    let source: Arc<str> = path.display().to_string().into();
    tokio::spawn(lists::follow_file(path, source.clone(), updates));
    SourceNames { named: vec![source], selector: None }
}

/// Follows ConfigMaps, each named one by a watch of its own.
pub(super) fn lists(
    client: &Client,
    named: Vec<ConfigMapName>,
    selected: Option<Selection>,
    updates: &mpsc::Sender<ListUpdate>,
) -> SourceNames {
    let names = SourceNames {
        named: named.iter().map(|name| name.to_string().into()).collect(),
        selector: selected.as_ref().map(|s| s.source().into()),
    };
    for which in named {
        tokio::spawn(configmaps::follow_named(client.clone(), which, updates.clone()));
    }
    if let Some(selection) = selected {
        tokio::spawn(configmaps::follow_selected(client.clone(), selection, updates.clone()));
    }
    names
}

/// What the agent does in a cluster beside following lists.
#[derive(Debug)]
pub struct ClusterOptions {
    /// The Pod that it is, where it knows.
    pub pod: Option<OwnPod>,
    /// What it writes to its Node.
    pub writes: Parts,
    /// The start-up taint's key.
    pub startup_taint: String,
    /// How long after the Node's creation, or the node's boot, the start-up taint goes at the latest.
    pub startup_taint_timeout: Duration,
    /// Whether its Pod is known to have the readiness gate.
    pub readiness_gate: bool,
}

/// How long the node has been up. None if the kernel does not say so: then the Node's age alone counts.
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    Duration::try_from_secs_f64(text.split_whitespace().next()?.parse().ok()?).ok()
}

/// Tells the keeper about its node and about the objects that entries name, and the cluster about the keeper.
pub(super) fn cluster(
    client: &Client,
    node: &str,
    clock: Clock,
    ready_when: ReadyWhen,
    options: ClusterOptions,
) -> (Cluster, ClusterReporter) {
    let ClusterOptions { pod, writes, startup_taint, startup_taint_timeout, readiness_gate } = options;
    let secrets = ClusterSecrets::new(client.clone(), clock);
    let (cluster, Ends { news, needs, asks }) = Cluster::new(Arc::new(secrets.clone()));
    let (reporter, notices, reports) = ClusterReporter::new();
    let (seen, view) = watch::channel(NodeView::default());
    let namespace = pod.as_ref().map_or_else(|| client.default_namespace().to_owned(), |pod| pod.namespace.clone());
    tokio::spawn(slots::run(client.clone(), namespace, node.to_owned(), asks, news.clone()));
    tokio::spawn(rotation::follow(client.clone(), secrets, needs.clone(), news.clone()));
    tokio::spawn(node::follow(client.clone(), node.to_owned(), writes.any(), needs, news, seen));
    let subjects = Subjects { pod: pod.clone(), node: writes.any().then(|| (node.to_owned(), view.clone())) };
    tokio::spawn(events::run(client.clone(), subjects, node.to_owned(), clock, notices));
    if writes.any() {
        let writer = Writer::new(client.clone(), node.to_owned(), startup_taint.clone(), clock);
        let writes = NodeWrites::new(writes, startup_taint, startup_taint_timeout, clock.now(), uptime());
        tokio::spawn(writer.run(writes, reports.clone(), view));
    }
    if let Some(pod) = pod {
        let gate = Gate { pod, expected: readiness_gate, ready_when };
        tokio::spawn(gate.run(client.clone(), clock, reports));
    }
    (cluster, reporter)
}
