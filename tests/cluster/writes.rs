//! What agents write to their Nodes and Pods, and what they leave.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    installation::{NAMESPACE, list},
    kube::{self, Kube, NODES},
    lists::pushed,
    parts::ClusterPart,
    render::{Overlay, repository},
};

const COLD: &str = "127.0.0.1:5000/nowhere:1";
const TAINT: &str = "prepull.dev/not-warm";

fn condition(node: &Value, kind: &str) -> Option<Value> {
    node["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind).cloned()
}

/// Of a Node only what these trials look at, for the text of an error.
fn brief(node: &Value) -> String {
    format!("{:#}\n{:#}\n{:#}", node["metadata"]["labels"], node["spec"]["taints"], node["status"]["conditions"])
}

fn has_taint(node: &Value) -> bool {
    node["spec"]["taints"].as_array().into_iter().flatten().any(|taint| taint["key"] == TAINT)
}

impl Kube {
    async fn until_condition(&self, node: &str, status: &str) -> Result<Value> {
        self.until(&format!("{node} says ImagesPrepulled {status}"), async || {
            let node = self.json(&format!("get node {node}"))?;
            Ok(condition(&node, "ImagesPrepulled").is_some_and(|c| c["status"] == status).then_some(node))
        })
        .await
    }

    async fn until_untainted(&self, node: &str) -> Result<Value> {
        self.until(&format!("{node} has no start-up taint"), async || {
            let node = self.json(&format!("get node {node}"))?;
            Ok((!has_taint(&node)).then_some(node))
        })
        .await
    }

    /// As a node comes up that its provisioner tainted, before any agent has looked at it.
    async fn cold_nodes(&self) -> Result<()> {
        self.installed().await.take();
        self.uninstall()?;
        clean(self)?;
        self.kubectl(&format!("taint nodes --all --overwrite {TAINT}=:NoSchedule")).map(drop)
    }
}

/// Condition, label and taint follow the list; nothing of the Node is lost.
pub(crate) async fn warm(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("writes/image").await?;
    kube.cold_nodes().await?;
    kube.kubectl("taint node node1 --overwrite team.example/kept=1:PreferNoSchedule")?;
    kube.install(&Overlay::with(&["components/node-writes"]), &list(&[COLD, &image])).await?;
    for name in NODES {
        let node = kube.until_condition(name, "False").await?;
        ensure!(has_taint(&node), "{name} is not warm, and its taint is gone");
        ensure!(node["metadata"]["labels"]["prepull.dev/warm"] != "true", "{}", brief(&node));
    }
    kube.edit(&list(&[&image]))?;
    for name in NODES {
        let node = kube.until_condition(name, "True").await?;
        kube.until_untainted(name).await?;
        let node = kube
            .until("the label follows", async || {
                let node = kube.json(&format!("get node {name}"))?;
                Ok((node["metadata"]["labels"]["prepull.dev/warm"] == "true").then_some(node))
            })
            .await
            .with_context(|| brief(&node))?;
        ensure!(condition(&node, "Ready").is_some_and(|c| c["status"] == "True"), "{}", brief(&node));
        ensure!(node["metadata"]["labels"]["kubernetes.io/os"] == "linux", "{}", brief(&node));
    }
    let kept = kube.json("get node node1")?["spec"]["taints"].to_string();
    ensure!(kept.contains("team.example/kept"), "another's taint is gone: {kept}");
    kube.kubectl("taint node node1 team.example/kept-")?;
    kube.edit(&list(&[COLD]))?;
    for name in NODES {
        let node = kube.until_condition(name, "False").await?;
        ensure!(!has_taint(&node), "an edit taints no node");
    }
    Ok(())
}

/// A dead registry does not keep a new node out for ever.
pub(crate) async fn deadline(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.cold_nodes().await?;
    let overlay = Overlay::with(&["components/node-writes"])
        .container("env: [{name: PREPULL_STARTUP_TAINT_TIMEOUT, value: 15s}]");
    kube.install(&overlay, &list(&[COLD])).await?;
    for name in NODES {
        kube.until_condition(name, "False").await?;
        // these nodes are older than the time-out, so a taint from before the agent is overdue
        kube.until_untainted(name).await?;
    }
    // one that appears while the agent runs has its own time
    kube.kubectl(&format!("taint nodes --all --overwrite {TAINT}=:NoSchedule"))?;
    for name in NODES {
        let node = kube.json(&format!("get node {name}"))?;
        ensure!(has_taint(&node), "{name}: the taint is gone before its deadline");
    }
    for name in NODES {
        let node = kube.until_untainted(name).await?;
        ensure!(condition(&node, "ImagesPrepulled").is_some_and(|c| c["status"] == "False"), "{}", brief(&node));
    }
    Ok(())
}

/// An overlay that renames the account leaves the policy guarding nobody: the agent notices and writes nothing.
pub(crate) async fn unguarded(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.cold_nodes().await?;
    kube.namespace("images")?;
    let renamed = |transformers: &[&'static str]| Overlay {
        namespace: Some("images"),
        prefix: Some("acme-"),
        transformers: transformers.to_vec(),
        ..Overlay::with(&["components/node-writes"])
    };
    let half = Overlay {
        patches: "- target: {kind: DaemonSet}\n  patch: '[{\"op\": \"replace\", \"path\": \"/spec/template/spec/containers/0/args/1\", \
                  \"value\": \"--configmap=images/acme-prepull\"}]'\n\
                  - target: {kind: Role, name: prepull}\n  patch: '[{\"op\": \"replace\", \"path\": \"/rules/0/resourceNames\", \
                  \"value\": [\"acme-prepull\"]}]'\n"
            .to_owned(),
        ..renamed(&[])
    };
    kube.install(&half, &list::<&str>(&[])).await?;
    kube.rollout("images")?;
    kube.until("the agents say that nothing guards them", async || {
        let log = kube.kubectl("logs -n images -l app.kubernetes.io/name=prepull --tail=100")?;
        Ok(log.contains("no admission policy").then_some(()))
    })
    .await?;
    for name in NODES {
        let node = kube.json(&format!("get node {name}"))?;
        ensure!(
            condition(&node, "ImagesPrepulled").is_none() && has_taint(&node),
            "{name} was written to: {}",
            brief(&node)
        );
    }
    kube.install(&renamed(&["transformers/names"]), &list::<&str>(&[])).await?;
    for name in NODES {
        kube.until_condition(name, "True").await?;
        kube.until_untainted(name).await?;
    }
    kube.installed().await.take();
    kube.uninstall()
}

/// Takes away what agents may have written, by the administrator's hand.
fn clean(kube: &Kube) -> Result<()> {
    kube.kubectl("label nodes --all prepull.dev/warm-")?;
    for node in NODES {
        let patch = r#"{"status": {"conditions": [{"type": "ImagesPrepulled", "$patch": "delete"}]}}"#;
        kube.kubectl_with(&format!("patch node {node} --subresource=status --type=strategic -p"), patch)?;
    }
    Ok(())
}

/// Uninstalling leaves nothing on the Nodes.
pub(crate) async fn cleanup(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.install_warm(&Overlay::with(&["components/node-writes"]), &list::<&str>(&[])).await?;
    for name in NODES {
        kube.until_condition(name, "True").await?;
    }
    kube.kubectl(&format!("taint nodes --all --overwrite {TAINT}=:PreferNoSchedule"))?;
    // in place, as users do it: the rights stay until the Nodes are clean
    *kube.installed().await = None;
    let overlay = Overlay { base: Some("cleanup"), ..Overlay::default() };
    kube.replace(&overlay, &list::<&str>(&[]))?;
    kube.rollout(NAMESPACE)?;
    for name in NODES {
        let node = kube.json(&format!("get node {name}"))?;
        ensure!(condition(&node, "ImagesPrepulled").is_none(), "{name} has the condition: {}", brief(&node));
        ensure!(node["metadata"]["labels"]["prepull.dev/warm"].is_null(), "{name} has the label: {}", brief(&node));
        ensure!(!has_taint(&node), "{name} has the taint: {}", brief(&node));
    }
    kube.kubectl_with("delete --wait=true -k", &repository().join("manifests/cleanup").display().to_string())?;
    let left = kube.kubectl("get clusterroles,clusterrolebindings,validatingadmissionpolicies -o name")?;
    ensure!(!left.contains("prepull"), "{left}");
    Ok(())
}

/// Readiness by the gate: no probe fails, so no Event is written.
pub(crate) async fn gate(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("gate/image").await?;
    kube.install(&Overlay::with(&["components/readiness-gate"]), &list(&[COLD])).await?;
    for node in NODES {
        kube.until(&format!("the agent on {node} is alive and not warm"), async || {
            let pod = kube.agent_on(NAMESPACE, node).await?;
            let is = |kind: &str, status: &str| {
                let all = pod["status"]["conditions"].as_array().into_iter().flatten();
                all.into_iter().any(|c| c["type"] == kind && c["status"] == status)
            };
            Ok((is("ContainersReady", "True") && is("prepull.dev/Warm", "False") && is("Ready", "False")).then_some(()))
        })
        .await?;
    }
    kube.edit(&list(&[&image]))?;
    kube.rollout(NAMESPACE)?;
    for node in NODES {
        ensure!(kube.images_on(node).await?.contains(&image), "{node} was ready without {image}");
    }
    Ok(())
}
