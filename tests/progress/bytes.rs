//! Bytes, phases and speed.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    PATIENCE, agent,
    support::{
        containerd::Containerd,
        images::{Content, Image, Index, Layer},
        parts::ContainerdPart,
        process,
        registry::{Registry, RegistryKind},
        tcp_proxy::TcpProxy,
    },
};

/// As it stands in names.
pub(super) const HOST: &str = "registry.test";

/// A registry behind a line that is as slow as a test wants, and a runtime that reaches it so.
pub(super) struct Stage {
    pub(super) registry: Registry,
    pub(super) line: TcpProxy,
    pub(super) containerd: Containerd,
}

impl Stage {
    pub(super) async fn set(containerd: Containerd) -> Result<Self> {
        let registry = Registry::start(RegistryKind::Plain).await?;
        let line = TcpProxy::start(&registry.host())?;
        containerd.route(HOST, &line.upstream())?;
        Ok(Self { registry, line, containerd })
    }

    pub(super) async fn push(&self, name: &str, layers: &[Layer]) -> Result<String> {
        self.registry.push(name, &Image::new(name, layers)).await?;
        Ok(format!("{HOST}/{name}"))
    }

    /// Starts `prepull pull`, which writes into `pull.err` of a folder of its own.
    pub(super) fn pull_once(&self, image: &str, folder: &Path) -> Result<process::Running> {
        let mut command = process::command(env!("CARGO_BIN_EXE_prepull").as_ref());
        command.arg("pull").arg(image).arg("--runtime-endpoint").arg(self.containerd.socket());
        command.env("PREPULL_KUBELET_ROOT", folder).env("HOME", folder);
        process::Running::start("pull", command, folder)
    }

    /// Leases end beside what goes on.
    pub(super) async fn until_no_lease_is_left(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.containerd.ctr(&["leases", "ls", "-q"]).await?;
            if left.trim().is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < end, "these are left: {left}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Bytes that the registry sent as answers to reads below `/v2/`, all repositories together.
    async fn sent(&self) -> Result<u64> {
        let reads = self.registry.requests().await?;
        Ok(reads.iter().filter(|access| access.method == "GET" && access.status < 300).map(|access| access.bytes).sum())
    }
}

pub(super) fn random(seed: u64, mib: usize) -> Result<Layer> {
    Layer::new(seed, mib << 20, Content::Random)
}

fn images(status: &Value) -> impl Iterator<Item = &Value> {
    status["images"].as_array().into_iter().flatten()
}

/// Everything that the agent said until the node was warm.
async fn follow(agent: &super::support::agent::Agent) -> Result<Vec<Value>> {
    let mut seen = Vec::new();
    let end = Instant::now() + PATIENCE;
    loop {
        if let Ok(status) = agent.status().await {
            let warm = status["warm"] == true;
            seen.push(status);
            if warm {
                return Ok(seen);
            }
        }
        ensure!(
            Instant::now() < end,
            "the node does not get warm: {:#}\n{}",
            seen.last().unwrap_or(&Value::Null),
            agent.log()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// An index with foreign images, a shared base, a layer that is there already, a small image, one that is unchanged.
pub(super) async fn agree(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let (base, old) = (random(1, 9)?, random(2, 2)?);
    let mut names = vec![
        stage.push("shop/web:1", &[base.clone(), random(3, 3)?, random(4, 3)?, random(5, 3)?, random(6, 1)?]).await?,
        stage.push("shop/worker:1", &[base.clone(), old.clone(), random(7, 4)?]).await?,
        stage.push("shop/tiny:1", &[Layer::new(8, 300, Content::Random)?]).await?,
    ];
    let many = Index::new(vec![Image::new("many", &[base.clone(), random(9, 2)?])]);
    stage.registry.push("shop/many:1", &many).await?;
    names.push(format!("{HOST}/shop/many:1"));
    // what was there before is not pulled, and not counted
    stage.containerd.pull(&stage.push("shop/before:1", &[old]).await?).await?;
    let before = stage.sent().await?;

    stage.line.change(|line| line.bytes_per_second = Some(2 << 20));
    let list = names.iter().fold("images:\n".to_owned(), |list, name| list + &format!("- {name}\n"));
    let agent = agent(&stage.containerd.socket(), &list)?;
    let seen = follow(&agent).await?;

    let sent = stage.sent().await? - before;
    let counted = agent.metric(&format!("prepull_pulled_bytes_total{{registry=\"{HOST}\"}}")).await?;
    let ratio = counted / sent as f64;
    println!("{}: counted {counted}, the registry sent {sent}: {ratio:.4}", part.name());
    ensure!((0.99..=1.01).contains(&ratio), "counted {counted}, the registry sent {sent}");

    let mut totals = BTreeMap::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let (mut phases, mut speeds) = (Vec::new(), Vec::new());
    let mut node_total = 0;
    for status in &seen {
        node_total = node_total.max(status["progress"]["totalBytes"].as_u64().unwrap_or(0));
        for image in images(status).filter(|image| image["state"] == "Pulling") {
            let name = image["image"].as_str().context("no name")?.to_owned();
            if let (Some(done), Some(total)) = (image["downloadedBytes"].as_u64(), image["totalBytes"].as_u64()) {
                ensure!(done <= total, "{image}");
                ensure!(last.get(&name).is_none_or(|before| *before <= done), "it goes back: {image}");
                last.insert(name.clone(), done);
                totals.insert(name, total);
            }
            phases.extend(image["phase"].as_str().map(str::to_owned));
            speeds.extend(image["bytesPerSecond"].as_u64());
        }
    }
    // what unpacks in less than a second is seen by chance only
    ensure!(phases.iter().any(|seen| seen == "downloading"), "{phases:?}");
    ensure!(speeds.iter().any(|speed| *speed > 100 << 10), "no speed: {speeds:?}");
    let size = |name: &str| {
        images(seen.last().unwrap_or(&Value::Null)).find(|i| i["image"] == name).and_then(|i| i["sizeBytes"].as_u64())
    };
    for name in &names[..2] {
        let (total, stored) = (totals[name], size(name).context("no size")?);
        ensure!(total.abs_diff(stored) * 100 <= stored, "{name} has {total} bytes in all, and {stored} in the store");
    }
    // three at a time: web, worker and tiny or many, and the base but once
    let most: u64 = totals.values().sum();
    ensure!(node_total > 0 && node_total + (9 << 20) <= most, "{node_total} for the node, {totals:?}");
    // what is pulled again unchanged costs what it costs
    let again = stage.sent().await?;
    agent.edit(
        &list.replace(&format!("- {}", names[0]), &format!("- {{image: '{}', imagePullPolicy: Always}}", names[0])),
    )?;
    let pulls = format!("prepull_pulls_total{{class=\"\",registry=\"{HOST}\",result=\"success\"}}");
    let end = Instant::now() + PATIENCE;
    while agent.metric(&pulls).await? < 5.0 {
        ensure!(Instant::now() < end, "it is not pulled again");
        sleep(Duration::from_millis(50)).await;
    }
    let after = agent.metric(&format!("prepull_pulled_bytes_total{{registry=\"{HOST}\"}}")).await?;
    let sent = stage.sent().await? - again;
    ensure!(after - counted <= sent as f64 + 1000.0, "{} counted for {sent}", after - counted);
    Ok(())
}

pub(super) async fn told_apart(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let small = stage.push("team/app:small", &[random(1, 4)?]).await?;
    let large = stage.push("team/app:large", &[random(2, 12)?]).await?;
    stage.line.change(|line| line.bytes_per_second = Some(1 << 20));
    let agent = agent(&stage.containerd.socket(), &format!("images: ['{small}', '{large}']\n"))?;
    let total = |status: &Value, name: &str| {
        images(status).find(|i| i["image"] == name).and_then(|i| i["totalBytes"].as_u64()).unwrap_or(0) >> 20
    };
    agent
        .until(PATIENCE, "both totals are known", |status| total(status, &small) == 4 && total(status, &large) == 12)
        .await?;
    Ok(())
}

pub(super) async fn no_lease_left(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let good = stage.push("team/good:1", &[random(1, 2)?]).await?;
    let slow = stage.push("team/slow:1", &[random(2, 30)?]).await?;
    let mut agent = agent(&stage.containerd.socket(), &format!("images: ['{good}', '{HOST}/team/none:1']\n"))?;
    agent.until_image(PATIENCE, &good, "Present").await?;
    agent.until_image(PATIENCE, &format!("{HOST}/team/none:1"), "BackOff").await?;
    let leases = async || stage.containerd.ctr(&["leases", "ls", "-q"]).await;
    let left = leases().await?;
    ensure!(left.trim().is_empty(), "after the end: {left}");
    // given up because it is no longer wanted, and because the agent ends
    stage.line.change(|line| line.bytes_per_second = Some(1 << 20));
    for ended in [false, true] {
        agent.edit(&format!("images: ['{slow}']\n"))?;
        agent
            .until(PATIENCE, "it is downloaded", |status| images(status).any(|image| image["phase"] == "downloading"))
            .await?;
        let held = leases().await?;
        ensure!(held.lines().count() == 1 && held.starts_with("prepull-"), "while it runs: {held:?}");
        if ended {
            agent.terminate(PATIENCE).await?;
        } else {
            agent.edit("images: []\n")?;
        }
        stage.until_no_lease_is_left().await?;
    }
    Ok(())
}

/// Two agents are killed in pulls that may take a year; what they leave is removed when they were silent for an hour, by others only.
pub(super) async fn of_the_killed(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    stage.line.change(|line| line.bytes_per_second = Some(1 << 20));
    let leases = async || stage.containerd.ctr(&["leases", "ls"]).await;
    let mut instances = Vec::new();
    for name in ["team/a:1", "team/b:1"] {
        let image = stage.push(name, &[random(1, 30)?]).await?;
        let list = format!("images: [{{image: '{image}', pullTimeout: 8760h}}]\n");
        let mut agent = agent(&stage.containerd.socket(), &list)?;
        let downloads = |status: &Value| images(status).any(|image| image["phase"] == "downloading");
        agent.until(PATIENCE, "it is downloaded", downloads).await?;
        agent.kill()?;
        let left = leases().await?;
        let own = left.lines().find(|line| line.contains(&format!("prepull.dev/image={image}")));
        let id = own.and_then(|line| line.split_whitespace().next()).context(left.clone())?;
        instances.push(id.rsplit_once('-').context(id.to_owned())?.0.to_owned());
    }
    let observer: prepull::runtime::Observer = std::sync::Arc::new(|_, _, _| {});
    let found = prepull::runtime::find_among(&[stage.containerd.socket()], &observer).await;
    let runtime = found.map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let removed = async |minutes: u64, instance: &str| -> Result<usize> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + Duration::from_mins(minutes);
        Ok(runtime.remove_stale_leases(instance, now).await?)
    };
    ensure!(removed(0, "prepull-other").await? == 0 && removed(58, "prepull-other").await? == 0, "they may be alive");
    ensure!(removed(61, &instances[0]).await? == 1, "not its own");
    let left = leases().await?;
    ensure!(left.contains(&instances[0]) && !left.contains(&instances[1]), "{left}");
    ensure!(removed(61, "prepull-other").await? == 1);
    stage.until_no_lease_is_left().await
}

/// Plain lines, where there is no terminal.
pub(super) async fn pull_tells(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let image = stage.push("team/app:1", &[random(1, 16)?]).await?;
    stage.line.change(|line| line.bytes_per_second = Some(1 << 20));
    let folder = tempfile::tempdir()?;
    let mut running = stage.pull_once(&image, folder.path())?;
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = running.ended() {
            break status;
        }
        ensure!(Instant::now() < end, "it does not end");
        sleep(Duration::from_millis(50)).await;
    };
    let said = std::fs::read_to_string(folder.path().join("pull.err"))?;
    ensure!(status.success(), "{said}");
    let told: Vec<_> = said.lines().filter(|line| line.contains("downloading")).collect();
    ensure!(!told.is_empty() && told.len() < 5, "{said}");
    ensure!(told[0].contains(&image) && told[0].contains(" % of 16.0 MiB") && told[0].contains("/s"), "{said}");
    let left = stage.containerd.ctr(&["leases", "ls", "-q"]).await?;
    ensure!(left.trim().is_empty(), "{left}");
    Ok(())
}
