//! The main job as a ratio: warming twelve images that share a base by the agent, against bare CRI pulls of the same
//! images one by one and with 2 to 12 at once. Each run has a containerd of its own with an empty store; the runs take turns, so
//! that a noisy machine disturbs all alike.
//!
//! `PREPULL_BIN` names the binary that is measured, `PREPULL_BENCH_ROUNDS` how often (5).
#![allow(clippy::print_stdout, reason = "this is for people to read")]

use std::path::PathBuf;

use anyhow::Result;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
    containerd::Containerd,
    images::{Content, Image, Layer},
    parts::{self, ContainerdPart},
    registry::{Registry, RegistryKind},
    warming,
};

const IMAGES: u64 = 12;
const BASE_BYTES: usize = 40_000_000;
const OWN_BYTES: usize = 20_000_000;
/// One by one is the kubelet's default; all at once leaves it to the runtime's own limit.
const PARALLEL: [usize; 6] = [1, 2, 3, 6, 8, 12];

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let rounds: usize = std::env::var("PREPULL_BENCH_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(5);
    let binary = std::env::var_os("PREPULL_BIN").map_or_else(|| env!("CARGO_BIN_EXE_prepull").into(), PathBuf::from);
    let registry = Registry::start(RegistryKind::Plain).await?;
    let base = Layer::new(1, BASE_BYTES, Content::Random)?;
    let mut images = Vec::new();
    for n in 0..IMAGES {
        let own = Layer::new(100 + n, OWN_BYTES, Content::Random)?;
        let name = format!("family/app-{n}:1");
        images.push(registry.push(&name, &Image::new(&name, &[base.clone(), own])).await?.by_tag);
    }
    println!(
        "{IMAGES} images of {} MB, {} MB of them shared, {rounds} rounds, median seconds",
        (BASE_BYTES + OWN_BYTES) / 1_000_000,
        BASE_BYTES / 1_000_000
    );
    for part in parts::containerds() {
        match part {
            Ok(part) => generation(&part, &registry, &images, &binary, rounds).await?,
            Err(missing) => println!("left out: {}", missing.sentence),
        }
    }
    Ok(())
}

async fn generation(
    part: &ContainerdPart,
    registry: &Registry,
    images: &[String],
    binary: &std::path::Path,
    rounds: usize,
) -> Result<()> {
    let mut bare = PARALLEL.map(|_| Vec::new());
    let mut agent = Vec::new();
    for _ in 0..rounds {
        for (n, times) in PARALLEL.iter().zip(&mut bare) {
            let containerd = Containerd::start(part, &[registry]).await?;
            times.push(warming::bare(&containerd, images, *n).await?.seconds);
        }
        let containerd = Containerd::start(part, &[registry]).await?;
        agent.push(warming::by_agent(&containerd, images, binary).await?.seconds);
    }
    let medians = bare.map(median);
    let best = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let ours = median(agent);
    let bare: Vec<_> = PARALLEL.iter().zip(medians).map(|(n, s)| format!("{n} at once {s:.2}")).collect();
    println!(
        "{:<16} bare: {}; agent {ours:.2}; {:.3} of the best, {:.2} times as fast as one by one",
        part.name(),
        bare.join(", "),
        ours / best,
        medians[0] / ours
    );
    Ok(())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
