//! The agent itself.
#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{coordination::v1::Lease, events::v1::Event};
use kube::api::ListParams;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    slots::{all_free, slots},
    support::{
        cluster::{Place, image, list},
        fake_cri::{FakeCri, Offer},
        tenant::wait_for,
    },
};

const PATIENCE: Duration = Duration::from_mins(3);

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_prepull").into()
}

fn capped(cap: u32, images: &[&str]) -> String {
    format!("limits: {{pullingNodes: {cap}}}\n{}", list(images))
}

fn message(status: &Value) -> &str {
    status["images"][0]["message"].as_str().unwrap_or_default()
}

/// A cap that cannot be kept lets nothing begin, and says so everywhere; what is missing is found when it comes.
pub(crate) async fn without_component(place: Place) -> Result<()> {
    let tenant = place.tenant("no-slots").await?;
    let fake = FakeCri::start()?;
    tenant.list(&capped(4, &["a"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    let told = |status: &Value| message(status).contains("component cluster-wide-cap");
    let status = agent.until(PATIENCE, "the component is named", told).await?;
    ensure!(status["images"][0]["reason"] == "budget", "{status:#}");
    ensure!(message(&status).contains("prepull-slot-0") && message(&status).contains("forbidden"), "{status:#}");
    ensure!(status["lists"][0]["problems"][0].as_str().is_some_and(|p| p.contains("cluster-wide-cap")), "{status:#}");
    ensure!(status["notWarmReason"].as_str().is_some_and(|r| r.contains("cluster-wide-cap")), "{status:#}");
    ensure!(agent.metric("prepull_pulls_waiting{why=\"budget\"}").await? == 1.0);
    ensure!(agent.log().matches("cluster-wide-cap").count() == 1, "told once: {}", agent.log());
    let event = wait_for(PATIENCE, "an Event tells it", async || {
        let events = tenant.api::<Event>().list(&ListParams::default()).await?.items;
        Ok(events.into_iter().find(|e| e.note.as_deref().is_some_and(|note| note.contains("cluster-wide-cap"))))
    })
    .await?;
    ensure!(event.reason.as_deref() == Some("InvalidList"), "{event:?}");
    slots(&tenant, 3).await?;
    agent.until_warm(PATIENCE).await.with_context(|| agent.log())?;
    let status = agent.status().await?;
    let problem = status["lists"][0]["problems"][0].as_str().unwrap_or_default();
    ensure!(problem.contains("pullingNodes is 4 and 3 slots exist"), "{status:#}");
    tenant.list(&capped(3, &["a"])).await?;
    let solved = |status: &Value| status["lists"][0]["problems"].as_array().is_some_and(Vec::is_empty);
    agent.until(PATIENCE, "the problem is gone", solved).await.map(drop)
}

pub(crate) async fn one_after_another(place: Place) -> Result<()> {
    let tenant = place.tenant("one-slot").await?;
    slots(&tenant, 1).await?;
    let fake = FakeCri::start()?;
    fake.offer(&image("a"), Offer { takes: Duration::from_secs(3), ..Offer::default() });
    fake.offer(&image("c"), Offer { takes: Duration::from_mins(10), ..Offer::default() });
    let holder = async || -> Result<Option<String>> {
        let lease = tenant.api::<Lease>().get("prepull-slot-0").await?;
        Ok(lease.spec.and_then(|spec| spec.holder_identity))
    };
    tenant.list(&capped(1, &["a", "b"])).await?;
    let mut agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    agent.until_image(PATIENCE, &image("a"), "Pulling").await?;
    ensure!(holder().await?.as_deref() == Some("one-slot"), "the holder is the node");
    agent.until_warm(PATIENCE).await?;
    wait_for(PATIENCE, "the slot is given back", async || Ok(holder().await?.is_none().then_some(()))).await?;
    ensure!(all_free(&tenant).await? == 1, "one slot for all pulls");
    // a warm agent asks for nothing: one that waited would look within 30 seconds
    let mark = tenant.server.audit_mark()?;
    sleep(Duration::from_secs(35)).await;
    let asked = tenant.server.requests_since(mark, &tenant.user())?;
    ensure!(asked.iter().all(|a| !a.uri.contains("/leases/")), "{asked:?}");
    // one that ends in a pull gives back too
    tenant.list(&capped(1, &["a", "b", "c"])).await?;
    agent.until_image(PATIENCE, &image("c"), "Pulling").await?;
    let began = Instant::now();
    let (status, _) = agent.terminate(PATIENCE).await?;
    ensure!(status.success() && began.elapsed() < Duration::from_secs(5), "{status} after {:?}", began.elapsed());
    ensure!(holder().await?.is_none(), "an agent that ends gives its slot back");
    Ok(())
}
