//! The component monitoring on the cluster: a real Prometheus finds the agents by the PodMonitor, every alert fires for a
//! reason that is really there, every panel has something to show, and all is quiet when the reasons are gone.

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    installation::{NAMESPACE, list},
    kube::{self, Kube, NODES, REGISTRY},
    lists::pushed,
    parts::ClusterPart,
    prometheus::{Prometheus, hurried},
    render::Overlay,
    support::{
        agent::undisturbed,
        monitoring::{self, Use},
        operator::Definitions,
        tcp_proxy::TcpProxy,
    },
};

/// What the trial needs: a cluster, the operator's definitions, promtool and Prometheus.
pub(crate) type Parts = (ClusterPart, Definitions, (PathBuf, PathBuf));

impl Kube {
    /// Lets the API server know the operator's kinds that the component has.
    pub(crate) async fn define(&self, definitions: &Definitions) -> Result<()> {
        for plural in ["podmonitors", "prometheusrules"] {
            self.kubectl_with("apply --server-side -f", &definitions.file(plural).display().to_string())?;
            // `kubectl wait` gives up on a definition that has no conditions yet
            self.until(&format!("{plural} are established"), async || {
                let definition = self.json(&format!("get crd {plural}.monitoring.coreos.com"))?;
                let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
                Ok(conditions.any(|c| c["type"] == "Established" && c["status"] == "True").then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// The agent of a node, stopped; it goes on when this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn agent_of(node: &str) -> Result<Self> {
        for entry in fs::read_dir("/proc")? {
            let folder = entry?.path();
            let read = |file: &str| fs::read(folder.join(file)).unwrap_or_default();
            let here = format!("NODE_NAME={node}");
            if read("cmdline").starts_with(b"/prepull\0agent\0")
                && read("environ").split(|byte| *byte == 0).any(|variable| variable == here.as_bytes())
            {
                let pid = folder.file_name().and_then(|name| name.to_str()?.parse().ok());
                let pid = pid.and_then(Pid::from_raw).context("a process without a number")?;
                kill_process(pid, Signal::STOP)?;
                return Ok(Self(pid));
            }
        }
        anyhow::bail!("no agent runs on {node}")
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // the kubelet may have ended it meanwhile
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The alerts that fire, and the labels of each.
async fn firing(prometheus: &Prometheus) -> Result<Vec<Value>> {
    let series = prometheus.now("ALERTS{alertstate=\"firing\"}").await?;
    Ok(series.into_iter().map(|one| one["metric"].clone()).collect())
}

pub(crate) async fn observed((part, definitions, (_, program)): Parts) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.define(&definitions).await?;
    let good = pushed("monitoring/good").await?;
    let line = TcpProxy::start(REGISTRY)?;
    kube.trust(line.host())?;
    let some = pushed("monitoring/some").await?.replace(REGISTRY, line.host());
    // soon enough to miss what is removed, instead of in five minutes
    let overlay = Overlay::with(&["components/monitoring"])
        .container("env: [{name: PREPULL_RESYNC, value: 2s}]")
        .image_store(kube.dir());
    kube.install_warm(&overlay, &undisturbed(&list(&[&good, &some]))).await?;
    kube.until_everywhere(&some).await?;
    let stored = |kind: &str| kube.json(&format!("get {kind} prepull -n {NAMESPACE}"));
    let (monitor, rule) = (stored("podmonitor")?, stored("prometheusrule")?);
    let mut prometheus = Prometheus::start(&program, &kube.json("get pods -A")?, &monitor, &rule)?;
    let watched = watch(kube, &prometheus, line, [&good, &some]).await;
    for object in ["podmonitor prepull", "prometheusrule prepull", "configmap prepull-dashboard"] {
        kube.kubectl(&format!("delete {object} -n {NAMESPACE}"))?;
    }
    kube.installed().await.take();
    watched.with_context(|| format!("{}\n{}", prometheus.log(), kube.state()))
}

async fn watch(kube: &Kube, prometheus: &Prometheus, line: TcpProxy, [good, some]: [&str; 2]) -> Result<()> {
    kube.until("Prometheus has scraped all agents", async || {
        let warm = prometheus.now("prepull_node_warm{job=\"prepull\"} == 1").await?;
        Ok((warm.len() == NODES.len()).then_some(()))
    })
    .await?;
    // before it knew any agent, it missed them all
    quiet(kube, prometheus).await?;

    // an image that is nowhere, one that two nodes lose while its registry is down, and an entry that is no image
    let (registry, nowhere) = (line.host().to_owned(), format!("{REGISTRY}/monitoring/nowhere:1"));
    drop(line);
    for node in &NODES[1..] {
        kube.runtime_of(node).await?.remove(some).await?;
    }
    kube.edit(&undisturbed(&list(&[good, some, &nowhere, "Bad//"])))?;
    let wanted = [
        ("PrepullImageFailingEverywhere", "image", nowhere.as_str()),
        ("PrepullImageFailingEverywhere", "image", "Bad//"),
        ("PrepullImageFailingOnSomeNodes", "image", some),
        ("PrepullListInvalid", "namespace", NAMESPACE),
        ("PrepullRegistryCooldown", "registry", &registry),
        ("PrepullNodeNotWarm", "node", NODES[0]),
        ("PrepullNodeNotWarm", "node", NODES[1]),
        ("PrepullNodeNotWarm", "node", NODES[2]),
    ];
    let told = kube
        .until("the alerts fire", async || {
            let firing = firing(prometheus).await?;
            let told = |(alert, label, value): &(&str, &str, &str)| {
                firing.iter().any(|one| one["alertname"] == *alert && one[label] == *value)
            };
            Ok(wanted.iter().all(told).then_some(firing))
        })
        .await?;
    ensure!(told.len() == wanted.len(), "more fires than there is reason for: {told:#?}");
    everything_shows(prometheus).await?;

    // a disk that is too full for a list that wants it nearly empty
    let full = pushed("monitoring/full").await?;
    kube.edit(&format!("limits: {{maxDiskUsage: 1%}}\n{}", list(&[good, some, &nowhere, "Bad//", &full])))?;
    kube.until("a disk is too full", async || {
        let firing = firing(prometheus).await?;
        let full =
            |node: &&str| firing.iter().any(|one| one["alertname"] == "PrepullDiskFull" && one["node"] == **node);
        Ok(NODES.iter().all(full).then_some(()))
    })
    .await?;

    let stopped = Stopped::agent_of(NODES[1])?;
    kube.until("the agent is missed", async || {
        let firing = firing(prometheus).await?;
        Ok(firing.iter().any(|one| one["alertname"] == "PrepullAgentDown" && one["node"] == NODES[1]).then_some(()))
    })
    .await?;
    let fired = prometheus.until_now("ALERTS{alertstate=\"firing\"}").await?;
    let fired: BTreeSet<_> = fired.iter().filter_map(|one| one["metric"]["alertname"].as_str()).collect();
    for rule in monitoring::rules()?.iter().filter_map(|rule| rule["alert"].as_str()) {
        ensure!(fired.contains(rule), "{rule} did not fire, only {fired:?}");
    }
    drop(stopped);

    kube.edit(&undisturbed(&list(&[good])))?;
    quiet(kube, prometheus).await
}

async fn quiet(kube: &Kube, prometheus: &Prometheus) -> Result<()> {
    kube.until("no alert fires", async || Ok(firing(prometheus).await?.is_empty().then_some(()))).await
}

/// Every rule that records and every panel has series with numbers in them.
async fn everything_shows(prometheus: &Prometheus) -> Result<()> {
    let number = |sample: &Value| sample[1].as_str().is_some_and(|text| text.parse::<f64>().is_ok_and(|n| !n.is_nan()));
    let mut empty = Vec::new();
    for query in monitoring::queries()?.iter().filter(|query| query.used != Use::Alert) {
        // first the rules' own times, then the ones that Grafana would fill in
        let mut hasty = query.clone();
        hasty.expression = hurried(&query.expression);
        let expression = hasty.filled("30s", "60s");
        let shown = match query.used {
            Use::Panel { instant: false } => prometheus.until_now(&expression).await?,
            Use::Panel { instant: true } | Use::Record | Use::Alert => prometheus.now(&expression).await?,
        };
        let numbers =
            |one: &Value| number(&one["value"]) || one["values"].as_array().is_some_and(|v| v.iter().any(number));
        if !shown.iter().any(numbers) {
            empty.push(format!("{}: {expression}", query.name));
        }
    }
    ensure!(empty.is_empty(), "these show nothing: {empty:#?}");
    Ok(())
}
