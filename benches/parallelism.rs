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
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

#[path = "parallelism/cells.rs"]
mod cells;
#[path = "../tests/support/mod.rs"]
mod support;

use cells::Cell;
use support::{
    agent::{Agent, AgentOptions},
    containerd::Containerd,
    parts::{self, ContainerdPart},
    registry::{Registry, RegistryKind},
};

/// What `auto` may choose, and a list may name.
const NUMBERS: &str = "1,2,3,4,6,8,12,16";
/// A pull that failed is made again after so long, as the kubelet does; twice as long each time.
const BACK_OFF: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 6;
const PATIENCE: Duration = Duration::from_mins(5);

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

/// One warming.
struct Warming {
    seconds: f64,
    /// Pulls that failed on the way.
    failures: u32,
    /// Requests that were answered with 429.
    refused: u64,
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
                    let warming = warm(part, cell, &registry, contender, &binary, round).await?;
                    write!(line, " {contender} {:.2}", warming.seconds)?;
                    if warming.failures > 0 || warming.refused > 0 {
                        write!(line, " ({} failed, {} refused)", warming.failures, warming.refused)?;
                    }
                    if let Some(file) = &mut output {
                        let record = json!({
                            "containerd": part.generation, "version": part.version, "profile": cell.network.name(),
                            "set": cell.set, "images": cell.images.len(), "contender": contender.to_string(),
                            "round": round, "seconds": warming.seconds, "failures": warming.failures, "refused": warming.refused,
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
) -> Result<Warming> {
    let front = cell.network.before(registry, round as u64)?;
    let containerd = Containerd::start(part, &[]).await?;
    let upstream = front.upstream(registry);
    containerd.route(cells::HOST, &upstream)?;
    let mut warming = match contender {
        Contender::Bare(n) => bare(&containerd, &cell.images, n).await?,
        Contender::Auto => by_agent(&containerd, &cell.images, binary).await?,
    };
    let there = containerd.images().await?;
    ensure!(cell.images.iter().all(|image| there.contains(image)), "not all images are there");
    warming.refused = front.refused();
    Ok(warming)
}

async fn bare(containerd: &Containerd, images: &[String], at_once: usize) -> Result<Warming> {
    let places = Arc::new(Semaphore::new(at_once));
    let mut pulls = JoinSet::new();
    let began = Instant::now();
    for image in images {
        let (client, places, image) = (containerd.client().clone(), places.clone(), image.clone());
        pulls.spawn(async move {
            for failures in 0..ATTEMPTS {
                let place = places.acquire().await?;
                match client.pull(&image).await {
                    Ok(_) => return Ok(failures),
                    Err(status) => tell(&image, &status),
                }
                drop(place);
                sleep(BACK_OFF * 2_u32.pow(failures)).await;
            }
            anyhow::bail!("{image} cannot be pulled in {ATTEMPTS} attempts")
        });
    }
    let mut failures = 0;
    while let Some(pull) = pulls.join_next().await {
        failures += pull??;
    }
    Ok(Warming { seconds: began.elapsed().as_secs_f64(), failures, refused: 0 })
}

fn tell(image: &str, status: &tonic::Status) {
    if std::env::var_os("PREPULL_BENCH_ERRORS").is_some() {
        println!("{image}: {}", status.message());
    }
}

/// From the start of the process until it says that all is there: its start-up counts.
async fn by_agent(containerd: &Containerd, images: &[String], binary: &Path) -> Result<Warming> {
    let list = images.iter().fold("images:\n".to_owned(), |list, image| list + "  - " + image + "\n");
    let began = Instant::now();
    let agent = Agent::start(binary, &containerd.socket(), &list, &AgentOptions::default())?;
    // the probe's answer costs the agent least
    while !agent.get("/readyz").await.is_ok_and(|(code, _)| code == 200) {
        ensure!(began.elapsed() < PATIENCE, "the agent does not get warm; its log:\n{}", agent.log());
        sleep(Duration::from_millis(5)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let (_, page) = agent.get("/metrics").await?;
    let failed = page.lines().filter(|l| l.starts_with("prepull_pulls_total{") && l.contains("result=\"failure\""));
    let failures = failed.filter_map(|l| l.rsplit_once(' ')?.1.parse::<u32>().ok()).sum();
    if std::env::var_os("PREPULL_BENCH_ERRORS").is_some() {
        println!("{}", agent.log());
    }
    Ok(Warming { seconds, failures, refused: 0 })
}

fn variable(name: &str, otherwise: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| otherwise.to_owned())
}
