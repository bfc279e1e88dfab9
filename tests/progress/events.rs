//! What happens to images behind the agent's back.

use std::time::Duration;

use anyhow::{Result, ensure};
use prepull::cri::Image as Stored;
use tokio::time::{Instant, sleep};

use super::{
    PATIENCE, agent,
    bytes::{Stage, random},
    support::{
        agent::Agent,
        containerd::Containerd,
        fake_cri::FakeCri,
        images::{Content, Layer},
        parts::ContainerdPart,
    },
};

/// How often an image is deleted.
const ROUNDS: usize = 5;
const LOOKS: &str = "prepull_cri_request_duration_seconds_count{code=\"OK\",method=\"ListImages\"}";

pub(super) async fn deleted(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let image = stage.push("team/app:1", &[random(1, 1)?]).await?;
    let other = stage.push("team/other:1", &[random(2, 1)?]).await?;
    let agent = agent(&stage.containerd.socket(), &format!("images: ['{image}', '{other}']\n"))?;
    let mut longest = Duration::ZERO;
    for round in 0..ROUNDS {
        agent.until_warm(PATIENCE).await?;
        // past the look that the pull before it may have caused, and in the middle of it in one round
        sleep(Duration::from_millis(if round == 0 { 0 } else { 1500 })).await;
        stage.line.change(|line| line.frozen = true);
        stage.containerd.ctr(&["images", "rm", &image]).await?;
        let began = Instant::now();
        agent
            .until(PATIENCE, "it is missed", |status| {
                matches!(status["images"][0]["state"].as_str(), Some("Pending" | "Pulling"))
            })
            .await?;
        longest = longest.max(began.elapsed());
        stage.line.change(|line| line.frozen = false);
    }
    println!("{}: in the queue after at most {longest:?}", part.name());
    ensure!(longest < Duration::from_secs(1), "only after {longest:?}\n{}", agent.log());
    Ok(())
}

pub(super) async fn pulled_by_others(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    stage.push("team/other:1", &[random(1, 1)?]).await?;
    let image = "registry.test/team/app:1";
    let agent = agent(&stage.containerd.socket(), &format!("images: ['{image}']\n"))?;
    agent.until_image(PATIENCE, image, "BackOff").await?;
    stage.push("team/app:1", &[random(2, 1)?]).await?;
    stage.containerd.pull(image).await?;
    let began = Instant::now();
    let present = agent.until_image(PATIENCE, image, "Present").await?;
    println!("{}: present after {:?}", part.name(), began.elapsed());
    // the next attempt would come after ten seconds
    ensure!(present["credential"].is_null() && began.elapsed() < Duration::from_secs(3), "after {:?}", began.elapsed());
    let pulls = "prepull_pulls_total{class=\"\",registry=\"registry.test\",result=\"success\"}";
    ensure!(agent.metric(pulls).await? == 0.0, "the agent pulled it");
    Ok(())
}

async fn looks(agent: &Agent) -> Result<f64> {
    agent.metric(LOOKS).await
}

pub(super) async fn burst(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let kept = stage.push("team/kept:1", &[random(1, 1)?]).await?;
    let mut names = Vec::new();
    for n in 0..20 {
        let name = stage.push(&format!("team/old:{n}"), &[Layer::new(n + 10, 100, Content::Random)?]).await?;
        stage.containerd.pull(&name).await?;
        names.push(name);
    }
    let agent = agent(&stage.containerd.socket(), &format!("images: ['{kept}']\n"))?;
    agent.until_warm(PATIENCE).await?;
    sleep(Duration::from_secs(1)).await;
    let before = looks(&agent).await?;
    // as the kubelet's garbage collector does: one by one, three names each
    for name in &names {
        stage.containerd.remove(name).await?;
    }
    sleep(Duration::from_secs(6)).await;
    let caused = looks(&agent).await? - before;
    println!("{}: {caused} looks for {} images", part.name(), names.len());
    ensure!((1.0..=6.0).contains(&caused), "{caused} looks");
    // and none without a reason
    sleep(Duration::from_secs(2)).await;
    ensure!(looks(&agent).await? - before <= caused, "it goes on looking");
    let left: Vec<Stored> = stage.containerd.client().list().await?;
    ensure!(left.len() == 1, "{left:?}");
    Ok(())
}

pub(super) async fn unimplemented() -> Result<()> {
    let mut fake = FakeCri::start()?;
    let list =
        |n| (0..n).fold("images:\n".to_owned(), |list, n| list + &format!("- registry.example.com/team/app:{n}\n"));
    let agent = agent(&fake.socket(), &list(5))?;
    agent.until_warm(PATIENCE).await?;
    fake.close();
    agent.until(PATIENCE, "the runtime is gone", |status| status["runtime"] == "").await?;
    fake.open()?;
    agent.edit(&list(8))?;
    let status =
        agent.until(PATIENCE, "all are there", |s| s["warm"] == true && s["images"][7]["state"] == "Present").await?;
    agent.until_image(PATIENCE, "registry.example.com/team/app:7", "Present").await?;
    ensure!(status["progress"].is_null(), "{status}");
    let said = agent.log().matches("has not containerd's own services").count();
    ensure!(said == 1, "said {said} times:\n{}", agent.log());
    Ok(())
}
