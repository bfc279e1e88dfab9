//! Minutes of churn on a real runtime: lists are edited, images removed, registries fail and runtimes end, over and over.
//! Memory and open files stay flat, the loop answers, and in the end everything is there.

use std::{collections::BTreeSet, env, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    stage::{PATIENCE, canaries, list, pinning_first, program},
    support::{
        agent::{Agent, AgentOptions},
        containerd::Containerd,
        images::{Content, Image, Layer},
        parts::ContainerdPart,
        pin_labels::until_pinned_alone,
        registry::{Registry, RegistryKind},
        sources::{docker_config, entry, flag, secret_yaml, write},
        stand_in::{Fault, StandIn, Target},
        tcp_proxy::TcpProxy,
        trials::on_every_containerd,
    },
    watcher::{Needs, Seen, Store, Watcher, search},
};

const IMAGES: usize = 8;
const LAYER: usize = 150_000;
/// What the memory of a debug build may differ between the second and the last fifth of the time.
const MOST_GROWTH: u64 = 3 << 20;
const MORE_FILES: usize = 4;

/// How long it is to go on, where somebody said so.
fn asked() -> Option<Duration> {
    let seconds = env::var("PREPULL_TEST_SOAK_SECONDS").ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// How long it goes on.
fn time() -> Duration {
    asked().unwrap_or(Duration::from_mins(1))
}

/// One on each runtime; on the newest alone where nobody asked for more than a minute.
pub(crate) fn trials() -> Vec<Trial> {
    let mut all = on_every_containerd("soak::minutes_of_churn", on);
    match asked() {
        Some(_) => all,
        None => all.split_off(all.len().saturating_sub(1)),
    }
}

#[derive(Debug, Default)]
struct Happened {
    edits: usize,
    removals: usize,
    faults: usize,
    restarts: usize,
}

async fn on(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::htpasswd("robot", super::stage::CANARY)).await?;
    let front = StandIn::before(&registry.host(), Fault::None)?;
    let network = TcpProxy::start(front.host())?;
    network.change(|c| c.bytes_per_second = Some(500_000));
    let host = network.host().to_owned();
    let mut images = Vec::new();
    for n in 0..IMAGES {
        let name = format!("app-{n}");
        registry
            .push(&format!("team/{name}:1"), &Image::new(&name, &[Layer::new(30 + n as u64, LAYER, Content::Random)?]))
            .await?;
        images.push(format!("{host}/team/{name}:1"));
    }
    let mut containerd = Containerd::start(&part, &[]).await?;
    containerd.route(&host, &network.upstream())?;
    let folder = tempfile::tempdir()?;
    let secret = secret_yaml("pull", &docker_config(&host, &entry("robot", super::stage::CANARY)));
    let mut flags = flag("pull-secret", &write(folder.path(), "secret.yaml", &secret)?);
    flags.extend(["--resync".to_owned(), "2s".to_owned()]);
    let options = AgentOptions { flags, ..AgentOptions::default() };
    let mut agent =
        Agent::start(&program(), &containerd.socket(), &pinning_first(&list("20s", &images), &images), &options)?;
    agent.until_warm(PATIENCE).await?;
    // images are removed behind the agent's back, so that its status may be late by a look: the faults show that it is true
    let store: Store = Arc::new(|| Box::pin(async { None::<BTreeSet<String>> }));
    let watcher = Watcher::start(agent.port(), agent.pid(), store, &canaries());
    let (mut happened, mut needs, began) = (Happened::default(), Vec::new(), Instant::now());
    while began.elapsed() < time() {
        something(&mut happened, &agent, &mut containerd, &front, &network, &images).await?;
        sleep(Duration::from_millis(fastrand::u64(100..900))).await;
        front.set(Fault::None);
        needs.push((began.elapsed(), Needs::of(agent.pid())?));
        ensure!(agent.ended().is_none(), "the agent ended: {}", agent.log());
    }
    // an empty list ends every back-off and cool-down
    agent.edit("images: []\n")?;
    agent.until(PATIENCE, "the list is empty", |s| s["images"].as_array().is_some_and(Vec::is_empty)).await?;
    agent.edit(&pinning_first(&list("5m", &images), &images))?;
    // the empty list is warm too
    let all = |s: &Value| s["images"].as_array().is_some_and(|i| i.len() == IMAGES) && s["warm"] == true;
    agent.until(PATIENCE, "everything is there", all).await?;
    let there = containerd.images().await?;
    ensure!(images.iter().all(|image| there.contains(image)), "images are lost: {there:?}");
    until_pinned_alone(&containerd, PATIENCE, &images[0]).await?;
    let seen = watcher.finish().await?;
    let mut log = Seen::default();
    search("the log", &agent.log(), &canaries(), &mut log);
    log.done()?;
    let (early, late) = (fifth(&needs, 1)?, fifth(&needs, 4)?);
    eprintln!(
        "{}: {:.0} s of churn, {happened:?}; /healthz answered {} times, the slowest in {} ms; {} KiB resident early and {} late, at most {} and {} open files",
        part.name(),
        began.elapsed().as_secs_f64(),
        seen.answers,
        seen.slowest.as_millis(),
        early.resident / 1024,
        late.resident / 1024,
        early.files,
        late.files
    );
    ensure!(late.resident <= early.resident + MOST_GROWTH, "{early:?} early, {late:?} late");
    ensure!(late.files <= early.files + MORE_FILES, "{early:?} early, {late:?} late");
    agent.terminate(PATIENCE).await?;
    Ok(())
}

/// The median memory and the most files in one fifth of the time, counted from 0.
fn fifth(needs: &[(Duration, Needs)], which: u32) -> Result<Needs> {
    let (from, to) = (time() * which / 5, time() * (which + 1) / 5);
    let within: Vec<Needs> = needs.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, needs)| *needs).collect();
    let mut resident: Vec<u64> = within.iter().map(|needs| needs.resident).collect();
    resident.sort_unstable();
    let resident = *resident.get(resident.len() / 2).context("nothing was measured in this part of the time")?;
    Ok(Needs { resident, files: within.iter().map(|needs| needs.files).max().unwrap_or_default() })
}

async fn something(
    happened: &mut Happened,
    agent: &Agent,
    containerd: &mut Containerd,
    front: &StandIn,
    network: &TcpProxy,
    images: &[String],
) -> Result<()> {
    match fastrand::u32(0..100) {
        0..30 => {
            let some: Vec<&String> = images.iter().filter(|_| fastrand::bool()).collect();
            agent.edit(&pinning_first(&list(["20s", "21s"][fastrand::usize(0..2)], &some), &images[..1]))?;
            happened.edits += 1;
        }
        30..65 => {
            for image in images.iter().filter(|_| fastrand::u32(0..3) == 0) {
                containerd.remove(image).await?;
                happened.removals += 1;
            }
        }
        65..90 => {
            let status = [404, 401, 404, 403, 503][fastrand::usize(0..5)];
            match fastrand::u32(0..4) {
                0 => network.reset(),
                1 => front.set(Fault::ChangedLayers),
                _ => front.set(Fault::Status {
                    target: Target::Manifests,
                    status,
                    headers: Vec::new(),
                    body: String::new(),
                }),
            }
            happened.faults += 1;
        }
        90..95 => {
            containerd.pause().await?;
            sleep(Duration::from_millis(500)).await;
            containerd.resume()?;
            happened.faults += 1;
        }
        _ => {
            containerd.kill()?;
            sleep(Duration::from_millis(300)).await;
            containerd.restart().await?;
            happened.restarts += 1;
        }
    }
    Ok(())
}
