//! A full disk: ext4 on a loop device, filled by somebody else.
#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use std::{fs, time::Duration};

use anyhow::{Result, bail, ensure};

use super::{
    matrix::{Came, Fault, On, Place},
    stage::{PATIENCE, Setting, Stage},
    support::{containerd, journal::Method},
};

/// Bytes of the file system.
const DISK: u64 = 48 << 20;

/// All of them.
pub(crate) fn all() -> Vec<Fault> {
    vec![Fault::new(
        "disk_is_full",
        On::Disk,
        "the ext4 of the images is filled up by somebody else (loop device, 48 MiB)",
        "BackOff NoSpace, every image that was there stays",
        full,
    )]
}

async fn full(place: Place) -> Result<Came> {
    let Place::Containerd(part) = place else { bail!("this fault needs a real runtime") };
    let options = containerd::Options { disk: Some(DISK), ext4: true, ..containerd::Options::default() };
    let stage = Stage::set(&part, Setting { containerd: options, ..Setting::default() }).await?;
    let root = stage.containerd.folder().join("root");
    let filler = root.join("filler");
    // the runtime's own database still finds its pages, and no layer finds room
    let free = rustix::fs::statvfs(&root)?;
    let room = free.f_bavail * free.f_frsize;
    rustix::fs::fallocate(
        fs::File::create(&filler)?,
        rustix::fs::FallocateFlags::empty(),
        0,
        room.saturating_sub(super::stage::LAYER as u64 / 2),
    )?;
    stage.want("5m")?;
    stage.until_failed(&["NoSpace"]).await?;
    // each finds out once that there is no space, and is not tried again until there is
    let tried = || stage.proxy.journal().count(Method::PullImage);
    stage
        .agent
        .until(PATIENCE, "all wait for space", |status| {
            status["images"].as_array().is_some_and(|rows| {
                rows.iter().filter(|row| row["nextAttempt"].is_null() && row["class"] == "NoSpace").count()
                    == stage.wanted.len()
            })
        })
        .await?;
    ensure!(stage.agent.metric("prepull_pulls_waiting{why=\"disk\"}").await? == stage.wanted.len() as f64);
    let before = tried();
    tokio::time::sleep(Duration::from_secs(12)).await;
    ensure!(tried() == before, "{} pulls while there was no space", tried() - before);
    let there = stage.containerd.images().await?;
    ensure!(there.contains(&stage.steady), "{there:?}");
    fs::remove_file(&filler)?;
    stage.recovered().await
}
