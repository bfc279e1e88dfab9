//! The cap `pullingNodes` with the component's own Leases and rights, and three real nodes.

use anyhow::{Context, Result, ensure};

use crate::{
    installation::{NAMESPACE, list},
    kube::{self, NODES},
    lists::pushed,
    parts::ClusterPart,
    render::Overlay,
};

pub(crate) async fn one_after_another(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("cap/image").await?;
    let overlay = Overlay::with(&["components/cluster-wide-cap"]);
    kube.install_warm(&overlay, "images: []").await?;
    kube.edit(&format!("limits: {{pullingNodes: 1}}\n{}", list(&[&image])))?;
    let slot = || kube.json(&format!("-n {NAMESPACE} get lease prepull-slot-0"));
    let (mut holders, mut most) = (Vec::new(), 0);
    let nodes = kube
        .until("every node is warm, and the slot is free", async || {
            let holder = slot()?["spec"]["holderIdentity"].as_str().map(str::to_owned);
            let mut warm = 0;
            let mut pulling = 0;
            for node in NODES {
                let status = kube.status(NAMESPACE, node).await?;
                warm += usize::from(status["warm"] == true && status["images"][0]["state"] == "Present");
                pulling += usize::from(status["images"][0]["state"] == "Pulling");
            }
            most = most.max(pulling);
            holders.extend(holder.clone());
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            Ok((warm == NODES.len() && holder.is_none()).then_some(warm))
        })
        .await
        .with_context(|| format!("holders so far: {holders:?}"))?;
    ensure!(most <= 1, "{most} nodes pulled at once");
    let transitions = slot()?["spec"]["leaseTransitions"].as_u64().context("the slot never changed hands")?;
    ensure!(
        usize::try_from(transitions)? == nodes,
        "{transitions} nodes held the slot, which {nodes} needed once each"
    );
    ensure!(holders.iter().all(|holder| NODES.contains(&holder.as_str())), "{holders:?}");
    // applying again leaves the Leases as they are
    kube.replace(&overlay, &format!("limits: {{pullingNodes: 60}}\n{}", list(&[&image])))?;
    ensure!(slot()?["spec"]["leaseTransitions"].as_u64() == Some(transitions), "applying again emptied the slot");
    Ok(())
}
