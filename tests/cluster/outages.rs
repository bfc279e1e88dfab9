//! What may break under the agents: the API server, their pods, a node's runtime.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep_until};

use crate::{
    installation::{NAMESPACE, list},
    kube::{self, Kube, NODES, REGISTRY},
    lists::{pushed, pushed_big},
    parts::ClusterPart,
    render::Overlay,
    support::tcp_proxy::TcpProxy,
};

const OUTAGE: Duration = Duration::from_secs(30);
const BIG: usize = 24 << 20;

impl Kube {
    /// Tells every node's runtime that a registry speaks plain HTTP.
    pub(crate) fn trust(&self, registry: &str) -> Result<()> {
        for node in NODES {
            let folder = self.dir().join(node).join("certs.d").join(registry);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("hosts.toml"), format!("server = \"http://{registry}\"\n"))?;
        }
        Ok(())
    }
}

/// The cluster's registry behind a slow line of its own.
fn slow(kube: &Kube, bytes_per_second: u64) -> Result<TcpProxy> {
    let proxy = TcpProxy::start(REGISTRY)?;
    proxy.change(|line| line.bytes_per_second = Some(bytes_per_second));
    kube.trust(proxy.host())?;
    Ok(proxy)
}

/// A pull that is under way goes on without an API server, and the agents are back on their lists when it is.
pub(crate) async fn api_server(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let after = pushed("outage/after").await?;
    let line = slow(kube, 2 << 20)?;
    let big = format!("{}/{}", line.host(), pushed_big("outage/big", 11, BIG).await?);
    kube.install_warm(&Overlay::default(), &list::<&str>(&[])).await?;
    kube.edit(&list(&[&big]))?;
    line.wait_until(kube::PATIENCE, |traffic| traffic.down > 1 << 20).await?;
    // without an API server nobody tells where the pods are
    let pod = kube.agent_on(NAMESPACE, "node1").await?;
    for node in NODES {
        ensure!(!kube.images_on(node).await?.contains(&big), "the line is too fast for this test");
    }
    kube.api_down()?;
    let end = Instant::now() + OUTAGE;
    let pulled = kube.until_everywhere(&big).await;
    sleep_until(end).await;
    kube.api_up()?;
    pulled.context("a pull that had begun")?;
    kube.edit(&list(&[&big, &after]))?;
    kube.until_everywhere(&after).await?;
    kube.rollout(NAMESPACE)?;
    let same = kube.agent_on(NAMESPACE, "node1").await?;
    ensure!(same["metadata"]["uid"] == pod["metadata"]["uid"], "the agent was replaced");
    ensure!(same["status"]["containerStatuses"][0]["restartCount"] == 0, "the agent was started again: {same:#}");
    Ok(())
}

/// Another agent takes up what the one before it was at.
pub(crate) async fn pod_deleted(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let line = slow(kube, 1 << 20)?;
    let big = format!("{}/{}", line.host(), pushed_big("deleted/big", 12, BIG).await?);
    kube.install_warm(&Overlay::default(), &list::<&str>(&[])).await?;
    kube.edit(&list(&[&big]))?;
    kube.until_state("node1", &big, &["Pulling"]).await?;
    let old = kube.agent_on(NAMESPACE, "node1").await?;
    let asked = Instant::now();
    let name = old["metadata"]["name"].as_str().context("a pod without a name")?;
    kube.kubectl(&format!("delete pod {name} -n {NAMESPACE} --wait"))?;
    eprintln!("the pod was gone after {:.1} s", asked.elapsed().as_secs_f64());
    ensure!(!kube.images_on("node1").await?.contains(&big), "the pull had ended before the pod did");
    let new = kube.agent_on(NAMESPACE, "node1").await?;
    ensure!(new["metadata"]["uid"] != old["metadata"]["uid"]);
    line.change(|line| line.bytes_per_second = None);
    kube.until_everywhere(&big).await?;
    kube.rollout(NAMESPACE)
}

/// The agent connects to the new runtime through the folder that it has mounted.
pub(crate) async fn runtime(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("restart/after").await?;
    kube.install_warm(&Overlay::default(), &list::<&str>(&[])).await?;
    for node in NODES {
        let before = kube.agent_on(NAMESPACE, node).await?;
        kube.restart_runtime(node)?;
        kube.runtime_of(node).await?;
        kube.edit(&list(&[&image]))?;
        kube.until_state(node, &image, &["Present"]).await?;
        let after = kube.agent_on(NAMESPACE, node).await?;
        ensure!(after["metadata"]["uid"] == before["metadata"]["uid"], "the agent on {node} was replaced");
        ensure!(after["status"]["containerStatuses"][0]["restartCount"] == 0, "{after:#}");
    }
    kube.until_everywhere(&image).await
}
