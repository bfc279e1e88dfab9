//! An idle agent: resident memory and CPU with 200 listed images that are all there, over a minute; the same with 10,000 of
//! 10,000; and how soon it acts: from its start to the first pull, and from an edit of its list to the pull of what was added.
//!
//! `PREPULL_BIN` names the binary that is measured, `PREPULL_BENCH_IDLE_SECONDS` how long (60).
#![allow(clippy::print_stdout, reason = "this is for people to read")]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use tokio::time::{Instant, sleep};

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
    agent::{Agent, AgentOptions},
    fake_cri::FakeCri,
    journal::{Method, Pages},
};

/// So many images are listed, and all of them are there.
const FEW: usize = 200;
const MANY: usize = 10_000;
/// What a start leaves behind settles before it is measured.
const SETTLE: Duration = Duration::from_secs(3);
/// The image's own setting (Dockerfile): memory that a long list needed for a moment goes back to the node.
const TRIM: (&str, &str) = ("MALLOC_TRIM_THRESHOLD_", "131072");
/// How often the time to a pull is taken.
const ROUNDS: usize = 11;
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let seconds: u64 = std::env::var("PREPULL_BENCH_IDLE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let binary = std::env::var_os("PREPULL_BIN").map_or_else(|| env!("CARGO_BIN_EXE_prepull").into(), PathBuf::from);
    println!("binary {:.2} MB", std::fs::metadata(&binary)?.len() as f64 / 1e6);
    idle(&binary, FEW, seconds, as_in_the_image()).await?;
    idle(&binary, MANY, seconds.min(10), as_in_the_image()).await?;
    println!("without the setting of the image's environment ({}):", TRIM.0);
    idle(&binary, MANY, seconds.min(10), AgentOptions::default()).await?;
    to_a_pull(&binary).await
}

fn name(n: usize) -> String {
    format!("registry.example.com/team/app-{n}:v1")
}

fn list(images: impl Iterator<Item = String>) -> String {
    images.fold("images:\n".to_owned(), |list, image| list + "  - " + &image + "\n")
}

fn as_in_the_image() -> AgentOptions {
    AgentOptions { environment: vec![(TRIM.0.to_owned(), TRIM.1.to_owned())], ..AgentOptions::default() }
}

async fn idle(binary: &Path, count: usize, seconds: u64, options: AgentOptions) -> Result<()> {
    let fake = FakeCri::start()?;
    let images: Vec<_> = (0..count).map(name).collect();
    fake.put(images.iter().map(String::as_str))?;
    let agent = Agent::start(binary, &fake.socket(), &list(images.into_iter()), &options)?;
    agent.until_warm(PATIENCE).await?;
    sleep(SETTLE).await;
    let (cpu, calls) = (agent.cpu_seconds()?, fake.journal().read(|j| j.calls.len()));
    sleep(Duration::from_secs(seconds)).await;
    let (used, more) = (agent.cpu_seconds()? - cpu, fake.journal().read(|j| j.calls.len()) - calls);
    println!(
        "{count} images, {seconds} s idle: {:.1} MiB resident, {:.3} % of a core, {more} calls to the runtime",
        agent.resident_bytes()? as f64 / 1_048_576.0,
        used / seconds as f64 * 100.0,
    );
    let warm = agent.metric("prepull_time_to_warm_seconds").await?;
    let looked = fake.journal().count(Method::ListImages);
    println!("warm {:.0} ms after its start, after {looked} look at the store", warm * 1000.0);
    Ok(())
}

/// The first pull after a start, and the pull of what an edit added.
async fn to_a_pull(binary: &Path) -> Result<()> {
    let (mut starts, mut edits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let fake = FakeCri::start()?;
        let pulled = |count| move |pages: &Pages| pages.of(Method::PullImage).count() >= count;
        let began = Instant::now();
        let agent = Agent::start(binary, &fake.socket(), &list([name(1)].into_iter()), &AgentOptions::default())?;
        fake.journal().wait_until(PATIENCE, pulled(1)).await?;
        starts.push(began.elapsed());
        agent.until_warm(PATIENCE).await?;
        let edited = Instant::now();
        agent.edit(&list([name(1), name(2)].into_iter()))?;
        fake.journal().wait_until(PATIENCE, pulled(2)).await?;
        edits.push(edited.elapsed());
    }
    for (what, mut times) in [("start of the process", starts), ("edit of the list's file", edits)] {
        times.sort_unstable();
        let (median, most) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        println!("from the {what} to PullImage: median {} ms, most {} ms", median.as_millis(), most.as_millis());
    }
    Ok(())
}
