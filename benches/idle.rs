//! An idle agent: resident memory and CPU with 200 listed images that are all there, over a minute.
//!
//! `PREPULL_BIN` names the binary that is measured, `PREPULL_BENCH_IDLE_SECONDS` how long (60).
#![allow(clippy::print_stdout, reason = "this is for people to read")]

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use tokio::time::sleep;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
    agent::{Agent, AgentOptions},
    fake_cri::FakeCri,
    journal::Method,
};

const IMAGES: usize = 200;
/// What a start leaves behind settles before it is measured.
const SETTLE: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(measure())
}

async fn measure() -> Result<()> {
    let seconds: u64 = std::env::var("PREPULL_BENCH_IDLE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let binary = std::env::var_os("PREPULL_BIN").map_or_else(|| env!("CARGO_BIN_EXE_prepull").into(), PathBuf::from);
    let fake = FakeCri::start()?;
    let images: Vec<_> = (0..IMAGES).map(|n| format!("registry.example.com/team/app-{n}:v1")).collect();
    fake.put(images.iter().map(String::as_str))?;
    let list = images.iter().fold("images:\n".to_owned(), |list, image| list + "  - " + image + "\n");
    let agent = Agent::start(&binary, &fake.socket(), &list, &AgentOptions::default())?;
    agent.until_warm(Duration::from_mins(1)).await?;
    sleep(SETTLE).await;
    let (cpu, calls) = (agent.cpu_seconds()?, fake.journal().read(|j| j.calls.len()));
    sleep(Duration::from_secs(seconds)).await;
    let (used, more) = (agent.cpu_seconds()? - cpu, fake.journal().read(|j| j.calls.len()) - calls);
    println!(
        "{IMAGES} images, {seconds} s idle: {:.1} MiB resident, {:.3} % of a core, {more} calls to the runtime, binary {:.2} MB",
        agent.resident_bytes()? as f64 / 1_048_576.0,
        used / seconds as f64 * 100.0,
        std::fs::metadata(&binary)?.len() as f64 / 1e6,
    );
    let warm = agent.metric("prepull_time_to_warm_seconds").await?;
    let looked = fake.journal().count(Method::ListImages);
    println!("warm {:.0} ms after its start, after {looked} look at the store", warm * 1000.0);
    Ok(())
}
