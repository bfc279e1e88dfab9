//! A whole store warmed once, by bare CRI pulls or by the agent, as benches compare them.
#![allow(clippy::print_stderr, reason = "where a bench asks for it by PREPULL_BENCH_ERRORS")]

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    agent::{Agent, AgentOptions},
    containerd::Containerd,
};

/// A pull that failed is made again after so long, as the kubelet does; twice as long each time.
const BACK_OFF: Duration = Duration::from_secs(10);
const ATTEMPTS: u32 = 6;
const PATIENCE: Duration = Duration::from_mins(5);
/// How often the agent is asked whether all is there: seldom, because the answer takes processor time as well.
const ASK: Duration = Duration::from_millis(50);

/// One warming.
pub struct Warming {
    pub seconds: f64,
    /// Pulls that failed on the way.
    pub failures: u32,
}

/// By bare CRI pulls, so many at once.
pub async fn bare(containerd: &Containerd, images: &[String], at_once: usize) -> Result<Warming> {
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
    Ok(Warming { seconds: began.elapsed().as_secs_f64(), failures })
}

fn tell(image: &str, status: &tonic::Status) {
    if std::env::var_os("PREPULL_BENCH_ERRORS").is_some() {
        eprintln!("{image}: {}", status.message());
    }
}

/// From the start of the process until all is there, as its own metric says: its start-up counts. Only the disk guard's
/// mark differs from the defaults, so that a machine whose disk is fuller than that measures the same.
pub async fn by_agent(containerd: &Containerd, images: &[String], binary: &Path) -> Result<Warming> {
    let list = images
        .iter()
        .fold("limits: {maxDiskUsage: 99%}\nimages:\n".to_owned(), |list, image| list + "  - " + image + "\n");
    let began = Instant::now();
    let agent = Agent::start(binary, &containerd.socket(), &list, &AgentOptions::default())?;
    while !agent.get("/readyz").await.is_ok_and(|(code, _)| code == 200) {
        ensure!(began.elapsed() < PATIENCE, "the agent does not get warm; its log:\n{}", agent.log());
        sleep(ASK).await;
    }
    let seconds = agent.metric("prepull_time_to_warm_seconds").await?;
    let (_, page) = agent.get("/metrics").await?;
    let failed = page.lines().filter(|l| l.starts_with("prepull_pulls_total{") && l.contains("result=\"failure\""));
    let failures = failed.filter_map(|l| l.rsplit_once(' ')?.1.parse::<u32>().ok()).sum();
    if std::env::var_os("PREPULL_BENCH_ERRORS").is_some() {
        eprintln!("{}", agent.log());
    }
    Ok(Warming { seconds, failures })
}
