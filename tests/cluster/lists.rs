//! The main job on three nodes: lists, edits, labels, and what comes and goes under them.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    installation::{NAMESPACE, list},
    kube::{self, Kube, NODES, REGISTRY},
    parts::ClusterPart,
    render::Overlay,
    support::{
        images::{Content, Image, Layer},
        push::Pusher,
    },
};

/// Puts a small image into the cluster's registry.
pub(crate) async fn pushed(name: &str) -> Result<String> {
    Pusher::new(REGISTRY.to_owned(), None).push(name, "1", &Image::small(name)?).await?;
    Ok(format!("{REGISTRY}/{name}:1"))
}

/// Puts an image of so many bytes into the cluster's registry, and gives its name without the registry. Another run has other bytes, so
/// that a cluster that stays up has nothing of it yet.
pub(crate) async fn pushed_big(name: &str, seed: u64, bytes: usize) -> Result<String> {
    let seed = seed << 32 | u64::from(std::process::id());
    let image = Image::new(name, &[Layer::new(seed, bytes, Content::Random)?]);
    Pusher::new(REGISTRY.to_owned(), None).push(name, "1", &image).await?;
    Ok(format!("{name}:1"))
}

/// The row of an image in what an agent says.
pub(crate) fn row<'a>(status: &'a Value, image: &str) -> Option<&'a Value> {
    status["images"].as_array()?.iter().find(|row| row["image"] == image)
}

impl Kube {
    /// Waits until a node's agent says that an image is in one of the states.
    pub(crate) async fn until_state(&self, node: &str, image: &str, states: &[&str]) -> Result<Value> {
        self.until(&format!("{image} is {states:?} on {node}"), async || {
            let status = self.status(NAMESPACE, node).await?;
            let row = row(&status, image).with_context(|| format!("no row in {status:#}"))?;
            Ok(states.iter().any(|state| row["state"] == *state).then(|| row.clone()))
        })
        .await
    }
}

/// From nothing: apply, then `kubectl rollout status`, and everything is everywhere without any further wait.
pub(crate) async fn rollout(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.installed().await.take();
    kube.uninstall()?;
    let big = format!("{REGISTRY}/{}", pushed_big("rollout/big", 1, 30 << 20).await?);
    let images = [big, pushed("rollout/one").await?, pushed("rollout/two").await?];
    kube.install(&Overlay::default(), &list(&images)).await?;
    kube.rollout(NAMESPACE)?;
    for node in NODES {
        let there = kube.images_on(node).await?;
        for image in &images {
            ensure!(there.contains(image), "{node} has no {image}, only {there:?}");
        }
    }
    let daemon_set = kube.json(&format!("get daemonset prepull -n {NAMESPACE}"))?;
    ensure!(daemon_set["status"]["numberReady"] == 3, "{daemon_set:#}");
    Ok(())
}

/// uid 65532 and group 0, no capability, seccomp on, nothing writable, no token but its own, and it pulls.
pub(crate) async fn hardened(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("hardened/image").await?;
    kube.install_warm(&Overlay::default(), &list(&[&image])).await?;
    kube.until_everywhere(&image).await?;
    let mut found = 0;
    for entry in fs::read_dir("/proc")? {
        let folder = entry?.path();
        let command = fs::read(folder.join("cmdline")).unwrap_or_default();
        if !command.starts_with(b"/prepull\0agent\0") {
            continue;
        }
        found += 1;
        let status = fs::read_to_string(folder.join("status"))?;
        let field = |name: &str| -> Vec<String> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect()
        };
        ensure!(field("Uid:") == ["65532"; 4] && field("Gid:") == ["0"; 4], "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            ensure!(field(set) == ["0000000000000000"], "{set} {status}");
        }
        ensure!(field("NoNewPrivs:") == ["1"] && field("Seccomp:") == ["2"], "{status}");
        let mounts = fs::read_to_string(folder.join("mountinfo"))?;
        for mount in ["/", "/run/containerd", "/var/lib/containerd"] {
            let options = mounts.lines().find_map(|line| {
                let fields: Vec<_> = line.split(' ').collect();
                (fields.get(4) == Some(&mount)).then(|| fields.get(5).copied().unwrap_or_default().to_owned())
            });
            let options = options.with_context(|| format!("{mount} is not mounted: {mounts}"))?;
            ensure!(options.split(',').any(|o| o == "ro"), "{mount} is {options}");
        }
    }
    ensure!(found == NODES.len(), "{found} agents run");
    Ok(())
}

/// An edit is followed; one that is no list is told and ignored; so is the deletion, until there is a list again.
pub(crate) async fn edited(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let (first, second, third) =
        (pushed("edit/first").await?, pushed("edit/second").await?, pushed("edit/third").await?);
    kube.install_warm(&Overlay::default(), &list(&[&first])).await?;
    kube.edit(&list(&[&first, &second]))?;
    kube.until_everywhere(&second).await?;
    kube.rollout(NAMESPACE)?;

    kube.edit("images: [\n")?;
    for node in NODES {
        let status = kube
            .until("the list's problem is told", async || {
                let status = kube.status(NAMESPACE, node).await?;
                let problems = status["lists"][0]["problems"].as_array().map_or(0, Vec::len);
                Ok((problems > 0).then_some(status))
            })
            .await?;
        ensure!(status["warm"] == true && row(&status, &second).is_some(), "the last good list stays: {status:#}");
    }
    kube.kubectl(&format!("delete configmap prepull -n {NAMESPACE}"))?;
    sleep(Duration::from_secs(2)).await;
    for node in NODES {
        let status = kube.status(NAMESPACE, node).await?;
        ensure!(row(&status, &first).is_some(), "a list that is deleted stays in force: {status:#}");
    }
    kube.kubectl_with(
        &format!("create configmap prepull -n {NAMESPACE} --from-literal"),
        &format!("images.yaml={}", list(&[&third])),
    )?;
    kube.until_everywhere(&third).await
}

/// The kubelet's garbage collector, or anybody: what is listed comes back.
pub(crate) async fn removed(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("removed/image").await?;
    let overlay = Overlay::default().container("env: [{name: PREPULL_RESYNC, value: 2s}]");
    kube.install_warm(&overlay, &list(&[&image])).await?;
    let runtime = kube.runtime_of("node2").await?;
    runtime.remove(&image).await?;
    ensure!(!kube.images_on("node2").await?.contains(&image), "it is not removed");
    kube.until_everywhere(&image).await
}

/// A label of a node takes an entry there, and takes it away again.
pub(crate) async fn labelled(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("labelled/image").await?;
    let text = format!("images: [{{image: '{image}', nodeSelector: {{team.example/colour: red}}}}]");
    kube.kubectl("label nodes --all team.example/colour-")?;
    kube.install_warm(&Overlay::with(&["components/node-selection"]), &text).await?;
    for node in NODES {
        kube.until_state(node, &image, &["NotForThisNode"]).await?;
    }
    kube.kubectl("label node node2 team.example/colour=red")?;
    kube.until_state("node2", &image, &["Present"]).await?;
    ensure!(kube.images_on("node2").await?.contains(&image));
    for node in ["node1", "node3"] {
        ensure!(!kube.images_on(node).await?.contains(&image), "{node} is not red");
    }
    kube.kubectl("label node node2 team.example/colour-")?;
    kube.until_state("node2", &image, &["NotForThisNode"]).await.map(drop)
}

/// Failures are told by Events: about the agent's own Pod, and with node-writes about the Node as well.
pub(crate) async fn events(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.install(&Overlay::with(&["components/node-writes"]), &list(&["127.0.0.1:5000/nowhere/told:1"])).await?;
    for (namespace, kind) in [(NAMESPACE, "Pod"), ("default", "Node")] {
        for node in NODES {
            let subject = match kind {
                "Node" => Value::from(node),
                _ => kube.agent_on(NAMESPACE, node).await?["metadata"]["name"].clone(),
            };
            kube.until(&format!("an Event tells about {kind} {subject}"), async || {
                let events = kube.json(&format!("get events.events.k8s.io -n {namespace}"))?;
                let told = events["items"].as_array().into_iter().flatten().any(|event| {
                    event["reportingController"] == "prepull.dev/agent"
                        && event["regarding"]["kind"] == kind
                        && event["regarding"]["name"] == subject
                        && event["type"] == "Warning"
                        && event["note"].as_str().is_some_and(|note| note.contains("nowhere/told"))
                });
                Ok(told.then_some(()))
            })
            .await?;
        }
    }
    Ok(())
}
