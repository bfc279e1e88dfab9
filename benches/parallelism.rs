//! How many pulls at once are best, and how near the agent's `parallelPulls: auto` comes to it: whole warmings of an
//! empty containerd by bare CRI pulls at every fixed number, and by the agent with its defaults, over networks that are
//! near, far, lossy and limited. All of a round take turns, so that a noisy machine disturbs all alike.
//!
//! | variable | meaning |
//! |---|---|
//! | `PREPULL_BIN` | the binary that is measured |
//! | `PREPULL_BENCH_ROUNDS` | how often (3) |
//! | `PREPULL_BENCH_OUTPUT` | file that gets one line of JSON for each warming, beside what is printed |
//! | `PREPULL_BENCH_ONLY` | cells `PROFILE/SET` with commas (all): `fast/family,slow/*` |
//! | `PREPULL_BENCH_CONTAINERD` | generations with commas (all) |
//! | `PREPULL_BENCH_PARALLEL` | the fixed numbers with commas (1,2,3,4,6,8,12,16) |
#![allow(clippy::print_stdout, reason = "this is for people to read")]

use std::{
    fmt::Write as _,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;

#[path = "parallelism/cells.rs"]
mod cells;
#[path = "../tests/support/mod.rs"]
mod support;

use cells::Cell;
use support::{
    containerd::Containerd,
    parts::{self, ContainerdPart},
    registry::{Registry, RegistryKind},
    warming::{self, Warming},
};

/// What `auto` may choose, and a list may name.
const NUMBERS: &str = "1,2,3,4,6,8,12,16";

/// Who warms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    /// Bare CRI pulls, so many at once.
    Bare(usize),
    /// The agent with its defaults.
    Auto,
}

impl std::fmt::Display for Contender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bare(n) => write!(f, "bare-{n}"),
            Self::Auto => write!(f, "auto"),
        }
    }
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let rounds: usize = variable("PREPULL_BENCH_ROUNDS", "3").parse()?;
    let numbers: Vec<usize> = variable("PREPULL_BENCH_PARALLEL", NUMBERS)
        .split(',')
        .map(|n| n.trim().parse().context("PREPULL_BENCH_PARALLEL is no list of numbers"))
        .collect::<Result<_>>()?;
    let only = variable("PREPULL_BENCH_ONLY", "*/*");
    let generations = variable("PREPULL_BENCH_CONTAINERD", "");
    let binary = std::env::var_os("PREPULL_BIN").map_or_else(|| env!("CARGO_BIN_EXE_prepull").into(), PathBuf::from);
    let mut output = std::env::var_os("PREPULL_BENCH_OUTPUT")
        .map(|path| File::options().create(true).append(true).open(path))
        .transpose()
        .context("PREPULL_BENCH_OUTPUT cannot be written")?;
    let registry = Registry::start(RegistryKind::Plain).await?;
    let cells = cells::of(&only, &registry).await?;
    let mut containerds = Vec::new();
    for part in parts::containerds() {
        match part {
            Ok(part) if generations.is_empty() || generations.split(',').any(|g| g == part.generation) => {
                containerds.push(part);
            }
            Ok(_) => {}
            Err(missing) => println!("left out: {}", missing.sentence),
        }
    }
    for round in 1..=rounds {
        for cell in &cells {
            for part in &containerds {
                let mut line = format!("{round} {:<14} {:<16}", part.name(), cell.name());
                for contender in contenders(&numbers, cell.images.len(), round) {
                    let (warming, refused) = match warm(part, cell, &registry, contender, &binary, round).await {
                        Ok(came) => came,
                        Err(error) => {
                            write!(line, " {contender} did not end: {error:#};")?;
                            continue;
                        }
                    };
                    write!(line, " {contender} {:.2}", warming.seconds)?;
                    if warming.failures > 0 || refused > 0 {
                        write!(line, " ({} failed, {} refused)", warming.failures, refused)?;
                    }
                    if let Some(file) = &mut output {
                        let record = json!({
                            "containerd": part.generation, "version": part.version, "profile": cell.network.name(),
                            "set": cell.set, "images": cell.images.len(), "contender": contender.to_string(),
                            "round": round, "seconds": warming.seconds, "failures": warming.failures, "refused": refused,
                        });
                        writeln!(file, "{record}")?;
                    }
                }
                println!("{line}");
            }
        }
    }
    Ok(())
}

/// More at once than there are images is the same again. The order turns from round to round.
fn contenders(numbers: &[usize], images: usize, round: usize) -> Vec<Contender> {
    let enough = numbers.iter().position(|n| *n >= images).map_or(numbers.len(), |at| at + 1);
    let mut all: Vec<_> = numbers[..enough].iter().copied().map(Contender::Bare).chain([Contender::Auto]).collect();
    let turn = (round - 1) * 3 % all.len();
    all.rotate_left(turn);
    all
}

async fn warm(
    part: &ContainerdPart,
    cell: &Cell,
    registry: &Registry,
    contender: Contender,
    binary: &Path,
    round: usize,
) -> Result<(Warming, u64)> {
    let front = cell.network.before(registry, round as u64)?;
    let containerd = Containerd::start(part, &[]).await?;
    let upstream = front.upstream(registry);
    containerd.route(cells::HOST, &upstream)?;
    let warming = match contender {
        Contender::Bare(n) => warming::bare(&containerd, &cell.images, n).await?,
        Contender::Auto => warming::by_agent(&containerd, &cell.images, binary).await?,
    };
    let there = containerd.images().await?;
    ensure!(cell.images.iter().all(|image| there.contains(image)), "not all images are there");
    Ok((warming, front.refused()))
}

fn variable(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}
