//! Nodes of one process.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config, api::ListParams, config::KubeConfigOptions};
use prepull::budget::{EXPIRY, GOOD};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    crowd::{Crowd, Mode, SPEED},
    support::{
        cluster::Place,
        tenant::{Tenant, create, wait_for},
    },
};

const PATIENCE: Duration = Duration::from_mins(5);

/// Makes slots, and lets the agents' account use them.
pub(crate) async fn slots(tenant: &Tenant<'_>, count: u32) -> Result<()> {
    let names: Vec<_> = (0..count).map(|slot| format!("prepull-slot-{slot}")).collect();
    let leases: Api<Lease> = tenant.api();
    for name in &names {
        create(&leases, json!({"metadata": {"name": name, "labels": {"kept": "yes"}}})).await?;
    }
    tenant
        .grant(json!([{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"], "resourceNames": names}]))
        .await
}

async fn client(tenant: &Tenant<'_>) -> Result<Client> {
    let config = kube::config::Kubeconfig::from_yaml(tenant.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Every slot is free, and has kept what others wrote there.
pub(crate) async fn all_free(tenant: &Tenant<'_>) -> Result<i32> {
    let leases = tenant.api::<Lease>().list(&ListParams::default()).await?.items;
    ensure!(leases.iter().all(|l| l.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key("kept"))));
    let specs: Vec<_> = leases.into_iter().filter_map(|l| l.spec).collect();
    ensure!(specs.iter().all(|spec| spec.holder_identity.is_none()), "{specs:#?}");
    Ok(specs.iter().filter_map(|spec| spec.lease_transitions).sum())
}

pub(crate) async fn crowded(place: Place) -> Result<()> {
    const NODES: usize = 200;
    const CAP: u32 = 5;
    let tenant = place.tenant("crowded").await?;
    slots(&tenant, CAP).await?;
    let (mark, began) = (tenant.server.audit_mark()?, Instant::now());
    let pulls = |_| vec![Duration::from_millis(fastrand::u64(2_000..8_000)); 2];
    let mut crowd = Crowd::start(&client(&tenant).await?, &tenant.name, "node", NODES, CAP, pulls);
    crowd.done(PATIENCE).await?;
    let took = began.elapsed() * SPEED;
    let tally = &crowd.tally;
    let load = |counter: &std::sync::atomic::AtomicUsize| counter.load(Ordering::SeqCst);
    ensure!(tally.most() <= CAP as usize, "{} nodes pulled at once", tally.most());
    ensure!(load(&tally.begun) == NODES * 2 && load(&tally.done) == NODES * 2, "{tally:?}");
    let handed = all_free(&tenant).await?;
    ensure!(usize::try_from(handed)? == NODES, "each node had one slot for both its pulls: {handed}");
    let asked = tenant.server.requests_since(mark, &tenant.user())?;
    let ideal = 10.0 * NODES as f64 / f64::from(CAP);
    eprintln!(
        "{NODES} nodes, {CAP} slots, 10 s each in the mean: {:.0} s, ideally {ideal:.0} s; {} pulled at once; each node {:.1} looks, {:.1} writes; {} conflicts; {:.1} requests a second in all",
        took.as_secs_f64(),
        tally.most(),
        load(&tally.looks) as f64 / NODES as f64,
        load(&tally.writes) as f64 / NODES as f64,
        load(&tally.conflicts),
        asked.len() as f64 / took.as_secs_f64(),
    );
    ensure!(
        asked.iter().all(|a| matches!(a.verb.as_str(), "get" | "update") && a.uri.contains("/leases/prepull-slot-")),
        "nothing but slots was asked for"
    );
    ensure!(asked.len() == load(&tally.looks) + load(&tally.writes), "{} requests in the audit log", asked.len());
    // a look each ten seconds at most, one to count the slots, and the first one
    let most = took.as_secs_f64() / 10.0 + 2.0;
    ensure!(load(&tally.looks) as f64 / NODES as f64 <= most, "{tally:?}");
    Ok(())
}

pub(crate) async fn killed_and_paused(place: Place) -> Result<()> {
    const CAP: u32 = 3;
    let tenant = place.tenant("killed").await?;
    slots(&tenant, CAP).await?;
    let client = client(&tenant).await?;
    let long = |_| vec![Duration::from_secs(5), Duration::from_hours(1)];
    let mut first = Crowd::start(&client, &tenant.name, "first", 3, CAP, long);
    wait_for(PATIENCE, "three nodes pull", async || Ok((first.tally.begun.load(Ordering::SeqCst) == 3).then_some(())))
        .await?;
    // two die, one is paused and comes back when its slot is another's
    first.modes[0].send_replace(Mode::Killed);
    first.modes[1].send_replace(Mode::Killed);
    first.modes[2].send_replace(Mode::Paused);
    let left = Instant::now();
    let mut late = Crowd::start(&client, &tenant.name, "late", 12, CAP, |_| vec![Duration::from_secs(4)]);
    late.done(PATIENCE).await?;
    let took = left.elapsed() * SPEED;
    ensure!(took > EXPIRY, "a slot was taken after {took:?}, which is before it expired");
    ensure!(late.tally.most() <= CAP as usize, "{:?}", late.tally);
    eprintln!("three slots left behind; twelve nodes had done their pulls of 4 s after {took:?}");
    let mark = tenant.server.audit_mark()?;
    first.modes[2].send_replace(Mode::Works);
    sleep(Duration::from_secs(2)).await;
    ensure!(first.tally.begun.load(Ordering::SeqCst) == 3, "its pull runs; another must not begin");
    let asked = tenant.server.requests_since(mark, &tenant.user())?;
    ensure!(asked.iter().any(|a| a.code == 409), "it tried to renew what is another's now: {asked:?}");
    first.modes[2].send_replace(Mode::Killed);
    first.done(PATIENCE).await
}

pub(crate) async fn cut_off(place: Place) -> Result<()> {
    let tenant = place.tenant("cut-off").await?;
    slots(&tenant, 1).await?;
    let client = client(&tenant).await?;
    // a pull that lasts beyond the slot, and three short ones that must wait then
    let work = |n: usize| match n {
        0 => vec![Duration::from_secs(2), Duration::from_secs(2), Duration::from_secs(2), EXPIRY * 3],
        _ => Vec::new(),
    };
    let mut first = Crowd::start(&client, &tenant.name, "first", 1, 1, work);
    wait_for(PATIENCE, "the first node pulls", async || {
        Ok((first.tally.begun.load(Ordering::SeqCst) == 1).then_some(()))
    })
    .await?;
    first.modes[0].send_replace(Mode::CutOff);
    let cut = Instant::now();
    let mut late = Crowd::start(&client, &tenant.name, "late", 1, 1, |_| vec![EXPIRY * 4]);
    wait_for(PATIENCE, "the second node takes the slot over", async || {
        Ok((late.tally.begun.load(Ordering::SeqCst) == 1).then_some(()))
    })
    .await?;
    let after = cut.elapsed() * SPEED;
    eprintln!("the slot of a node that was cut off was taken after {after:?}");
    ensure!(after > GOOD, "the first one counted on it for {GOOD:?}");
    wait_for(PATIENCE, "the first node's pull ends", async || {
        Ok((first.tally.done.load(Ordering::SeqCst) == 1).then_some(()))
    })
    .await?;
    sleep(Duration::from_secs(1)).await;
    ensure!(first.tally.begun.load(Ordering::SeqCst) == 1, "it is cut off and begins no other");
    first.modes[0].send_replace(Mode::Works);
    sleep(Duration::from_secs(1)).await;
    ensure!(late.tally.done.load(Ordering::SeqCst) == 0, "the second node still holds the slot");
    ensure!(first.tally.begun.load(Ordering::SeqCst) == 1, "it is back, and the slot is another's");
    late.done(PATIENCE).await?;
    first.done(PATIENCE).await?;
    ensure!(first.tally.done.load(Ordering::SeqCst) == 4);
    all_free(&tenant).await.map(drop)
}

pub(crate) async fn changed(place: Place) -> Result<()> {
    let tenant = place.tenant("changed").await?;
    slots(&tenant, 6).await?;
    let work = |_| vec![Duration::from_secs(6); 4];
    let mut crowd = Crowd::start(&client(&tenant).await?, &tenant.name, "node", 24, 6, work);
    let began = |crowd: &Crowd| crowd.tally.begun.load(Ordering::SeqCst);
    wait_for(PATIENCE, "pulls began", async || Ok((began(&crowd) >= 8).then_some(()))).await?;
    ensure!(crowd.tally.most() <= 6, "{:?}", crowd.tally);
    crowd.cap.send_replace(Some(2));
    // those that had begun may end; by then at most two may hold a slot
    sleep(Duration::from_secs(6) / SPEED * 3).await;
    for _ in 0..20 {
        let held = tenant.api::<Lease>().list(&ListParams::default()).await?.items;
        let held = held.iter().filter_map(|l| l.spec.as_ref()?.holder_identity.as_ref()).count();
        ensure!(held <= 2, "{held} nodes hold a slot under a cap of two");
        sleep(Duration::from_millis(100)).await;
    }
    crowd.cap.send_replace(Some(6));
    wait_for(PATIENCE, "more pulls began", async || Ok((began(&crowd) >= 60).then_some(()))).await?;
    ensure!(crowd.tally.most() <= 6, "{:?}", crowd.tally);
    crowd.cap.send_replace(None);
    crowd.done(PATIENCE).await?;
    ensure!(crowd.tally.done.load(Ordering::SeqCst) == 24 * 4);
    all_free(&tenant).await.map(drop)
}
