//! A download that breaks off goes on from where it was; one that gets nowhere waits for its back-off.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::{
    PATIENCE, agent,
    bytes::{HOST, Stage, random},
    support::{containerd::Containerd, parts::ContainerdPart},
};

/// Of each image here.
const MIB: usize = 12;

/// All connections are reset in the middle, twice.
pub(super) async fn resumed(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    // the first layer is there and unpacked before the second one breaks off, so that the next pull does not touch it
    let layers = [random(1, 2)?, random(2, MIB - 2)?];
    let image = stage.push("team/app:1", &layers).await?;
    stage.line.change(|line| line.bytes_per_second = Some(3 << 20));
    let agent = agent(&stage.containerd.socket(), &format!("images: ['{image}']\n"))?;
    for mebibytes in [6, 9] {
        stage.line.wait_until(PATIENCE, |traffic| traffic.down > mebibytes << 20).await?;
        stage.line.reset();
    }
    agent.until_warm(PATIENCE).await?;
    let of = async |name: &str| agent.metric(&format!("{name}{{registry=\"{HOST}\"}}")).await;
    let (resumed, counted) = (of("prepull_downloads_resumed_total").await?, of("prepull_pulled_bytes_total").await?);
    let sent = stage.line.traffic().down as f64;
    println!("{}: went on {resumed} times; counted {counted} bytes, {sent} came over the line", part.name());
    ensure!(resumed > 1.0 && resumed < 3.0, "{resumed}\n{}", agent.log());
    let size = (MIB << 20) as f64;
    // what was between registry and runtime at a reset comes again, and counts once
    ensure!(sent < size * 1.5, "{sent} bytes came over the line for {size}");
    ensure!((0.99..=1.01).contains(&(counted / size)), "{counted} of {size}");
    let (_, page) = agent.get("/metrics").await?;
    let ends: Vec<_> =
        page.lines().filter(|line| line.starts_with("prepull_pulls_total{") && !line.ends_with(" 0")).collect();
    ensure!(ends.len() == 1 && ends[0].contains("success") && ends[0].ends_with(" 1"), "{ends:?}");
    ensure!(agent.log().matches("goes on from where it was").count() == 2, "{}", agent.log());
    ensure!(agent.log().matches("could not be pulled").count() == 0, "{}", agent.log());
    stage.until_no_lease_is_left().await
}

/// Connections are reset in the middle, and then again and again before much more has come.
pub(super) async fn given_up(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let image = stage.push("team/app:1", &[random(1, MIB)?]).await?;
    stage.line.change(|line| line.bytes_per_second = Some(4 << 20));
    let agent = agent(&stage.containerd.socket(), &format!("images: ['{image}']\n"))?;
    stage.line.wait_until(PATIENCE, |traffic| traffic.down > 4 << 20).await?;
    // a MiB takes four seconds
    stage.line.change(|line| line.bytes_per_second = Some(1 << 18));
    let resetting = async {
        loop {
            stage.line.reset();
            sleep(Duration::from_millis(300)).await;
        }
    };
    let failed = tokio::select! {
        failed = agent.until_image(PATIENCE, &image, "BackOff") => failed?,
        () = resetting => anyhow::bail!("nobody ends the resets"),
    };
    ensure!(failed["class"] == "RegistryUnavailable" && failed["attempt"] == 1, "{failed:#}");
    let resumed = agent.metric(&format!("prepull_downloads_resumed_total{{registry=\"{HOST}\"}}")).await?;
    ensure!(resumed > 0.0 && resumed < 2.0, "{resumed}\n{}", agent.log());
    // the back-off is the kubelet's: for ten seconds nobody asks the registry, of which some have passed
    let before = stage.line.traffic().connections;
    let asked = stage.line.wait_until(Duration::from_secs(6), |traffic| traffic.connections > before).await;
    ensure!(asked.is_err(), "the registry was asked in the back-off");
    // what came before the back-off is not pulled again
    let (sent, size) = (stage.line.traffic().down, (MIB << 20) as u64);
    stage.line.change(|line| line.bytes_per_second = None);
    agent.until_warm(PATIENCE).await?;
    let rest = stage.line.traffic().down - sent;
    ensure!(rest < size - (2 << 20), "{rest} bytes came after the back-off of {size}");
    stage.until_no_lease_is_left().await
}

/// A pull without a cluster ends when its image fails, and its lease with it.
pub(super) async fn pulled_once(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let image = stage.push("team/app:1", &[random(1, MIB)?]).await?;
    stage.line.change(|line| line.bytes_per_second = Some(4 << 20));
    let folder = tempfile::tempdir()?;
    let mut running = stage.pull_once(&image, folder.path())?;
    stage.line.wait_until(PATIENCE, |traffic| traffic.down > 4 << 20).await?;
    stage.line.change(|line| line.bytes_per_second = Some(1 << 18));
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = running.ended() {
            break status;
        }
        ensure!(Instant::now() < end, "it does not end");
        stage.line.reset();
        sleep(Duration::from_millis(300)).await;
    };
    let said = std::fs::read_to_string(folder.path().join("pull.err"))?;
    ensure!(status.code() == Some(1) && said.contains("RegistryUnavailable"), "{status}: {said}");
    ensure!(said.contains(&format!("{image}: the download broke off and goes on from where it was: ")), "{said}");
    stage.until_no_lease_is_left().await
}
