//! Pins on real runtimes: the labels of containerd's records, and what CRI makes of them.

mod support;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::Value;
use support::{
    agent::{Agent, AgentOptions},
    containerd::Containerd,
    fake_cri::FakeCri,
    images::Image,
    parts::ContainerdPart,
    pin_labels::{self, OURS, PINNED, UNABLE, labels},
    registry::{Registry, RegistryKind},
    trials::{on_every_containerd, trial},
};
use tokio::time::{Instant, sleep};

/// Long enough for a busy machine, and never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let able = [
        on_every_containerd("pinned_and_unpinned_as_the_list_says", follows_the_list),
        on_every_containerd("a_killed_agent_leaves_nothing_behind", survives_a_kill),
        on_every_containerd("an_image_without_its_digest_is_pinned_by_its_id_too", without_a_digest),
        on_every_containerd("what_somebody_else_pinned_is_left_alone", foreign),
        on_every_containerd("max_pinned_size_goes_by_priority_and_order", capped),
        on_every_containerd("a_moved_tag_takes_its_pin_along", moved),
        on_every_containerd("a_tag_that_somebody_else_moves_takes_its_pin_along", moved_past_the_agent),
        on_every_containerd("a_pull_by_somebody_else_unpins_nothing", pulled_past_the_agent),
        on_every_containerd("a_runtime_that_starts_again_is_pinned_again", runtime_restarts),
        on_every_containerd("cleanup_takes_pins_away", cleaned),
    ];
    let is_able = |trial: &Trial| !trial.name().starts_with(UNABLE);
    let unable = on_every_containerd("a_label_without_effect_is_told_and_taken_back", without_effect);
    let trials = able.into_iter().flatten().filter(is_able);
    let trials = trials.chain(unable.into_iter().filter(|trial| !is_able(trial)));
    let trials = trials.chain([
        trial("fake_cri::a_runtime_that_is_not_containerd_is_told", Ok(()), |()| not_containerd()),
        trial("fake_cri::cleanup_has_nothing_to_do_there", Ok(()), |()| nothing_to_clean()),
    ]);
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn agent(containerd: &Containerd, list: &str) -> Result<Agent> {
    start(containerd, list, &[])
}

fn start(containerd: &Containerd, list: &str, flags: &[&str]) -> Result<Agent> {
    let flags = flags.iter().map(|f| (*f).to_owned()).collect();
    let options = AgentOptions { flags, ..AgentOptions::default() };
    Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &containerd.socket(), list, &options)
}

fn pins<S: AsRef<str>>(images: &[S]) -> String {
    images.iter().fold("images:\n".to_owned(), |list, image| list + "- {pin: true, image: '" + image.as_ref() + "'}\n")
}

/// Pinned, as the status says.
fn shown(status: &Value) -> Vec<&str> {
    let images = status["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    images.iter().filter(|i| i["pinned"] == true).filter_map(|i| i["image"].as_str()).collect()
}

async fn until_labelled(containerd: &Containerd, wanted: &[(&str, (bool, bool))]) -> Result<()> {
    pin_labels::until_labelled(containerd, PATIENCE, wanted).await
}

async fn id_of(containerd: &Containerd, image: &str) -> Result<String> {
    Ok(containerd.client().status(image).await?.context("the image is not there")?.id)
}

/// What CRI says about an image.
async fn is_pinned(containerd: &Containerd, image: &str) -> Result<bool> {
    Ok(containerd.client().status(image).await?.context("the image is not there")?.pinned)
}

async fn until_pinned(agent: &Agent, images: &[&str]) -> Result<Value> {
    agent.until(PATIENCE, &format!("pinned are {images:?}"), |s| s["warm"] == true && shown(s) == images).await
}

async fn follows_the_list(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let pulled = registry.push("pulled:1", &Image::small("pulled")?).await?.by_tag;
    let there = registry.push("there:1", &Image::small("there")?).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    containerd.pull(&there.by_digest).await?;
    let agent = agent(&containerd, &pins(&[&pulled, &there.by_digest]))?;
    let status = until_pinned(&agent, &[&pulled, &there.by_digest]).await?;
    ensure!(status["lists"][0]["problems"] == Value::Array(Vec::new()), "{status:#}");
    ensure!(status["lists"][0]["notes"] == Value::Array(Vec::new()), "{status:#}");
    let (_, metrics) = agent.get("/metrics").await?;
    ensure!(metrics.contains("\nprepull_pinned_images 2\n"), "the metric tells otherwise");
    let (first, second) = (id_of(&containerd, &pulled).await?, id_of(&containerd, &there.by_digest).await?);
    let both = (true, true);
    let of_second = [(there.by_digest.as_str(), both), (&second, both)];
    until_labelled(&containerd, &[&of_second[..], &[(&pulled, both), (&first, both)]].concat()).await?;
    // the flag is dropped
    agent.edit(&format!("images: ['{pulled}', {{image: '{}', pin: true}}]", there.by_digest))?;
    until_pinned(&agent, &[&there.by_digest]).await?;
    until_labelled(&containerd, &of_second).await?;
    ensure!(!is_pinned(&containerd, &pulled).await?);
    // an entry with a mistake unpins nothing, in a round that pins what was edited with it
    let pinned = format!("{{image: '{pulled}', pin: true}}");
    agent.edit(&format!("images: [{pinned}, {{image: '{}', pin: true, priority: high}}]", there.by_digest))?;
    agent.until_image(PATIENCE, &there.by_digest, "Invalid").await?;
    until_labelled(&containerd, &[&of_second[..], &[(&pulled, both), (&first, both)]].concat()).await?;
    agent.edit(&pins(&[&pulled]))?;
    until_pinned(&agent, &[&pulled]).await?;
    until_labelled(&containerd, &[(&pulled, both), (&first, both)]).await?;
    // the entry goes
    agent.edit("images: []")?;
    until_labelled(&containerd, &[]).await?;
    ensure!(!is_pinned(&containerd, &pulled).await?);
    Ok(())
}

/// A pull that is cut off at the last moment leaves an image that CRI knows by its name and its ID alone.
async fn without_a_digest(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    containerd.pull(&image).await?;
    let listed = containerd.ctr(&["images", "ls", "-q"]).await?;
    let by_digest = listed.lines().find(|name| name.contains("@sha256:")).context("no record by digest")?.to_owned();
    containerd.ctr(&["images", "rm", &by_digest]).await?;
    let end = Instant::now() + PATIENCE;
    while !containerd.client().status(&image).await?.context("the image is not there")?.repo_digests.is_empty() {
        ensure!(Instant::now() < end, "CRI still knows its digest");
        sleep(Duration::from_millis(50)).await;
    }
    let agent = agent(&containerd, &pins(&[&image]))?;
    until_pinned(&agent, &[&image]).await?;
    let id = id_of(&containerd, &image).await?;
    until_labelled(&containerd, &[(&image, (true, true)), (&id, (true, true))]).await
}

async fn survives_a_kill(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let other = registry.push("other:1", &Image::small("other")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let first = agent(&containerd, &pins(&[&image]))?;
    until_pinned(&first, &[&image]).await?;
    // dropping an agent kills it
    drop(first);
    ensure!(is_pinned(&containerd, &image).await?, "a pin outlives its agent");
    let second = agent(&containerd, &pins(&[&other]))?;
    until_pinned(&second, &[&other]).await?;
    let (id, both) = (id_of(&containerd, &other).await?, (true, true));
    until_labelled(&containerd, &[(&other, both), (&id, both)]).await?;
    drop(second);
    let third = agent(&containerd, "images: []")?;
    until_labelled(&containerd, &[]).await?;
    ensure!(!is_pinned(&containerd, &image).await? && !is_pinned(&containerd, &other).await?);
    drop(third);
    Ok(())
}

async fn foreign(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let other = registry.push("other:1", &Image::small("other")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    containerd.pull(&image).await?;
    containerd.ctr(&["images", "label", &image, PINNED]).await?;
    let theirs = [(image.as_str(), (true, false))];
    let agent = agent(&containerd, &pins(&[&image, &other]))?;
    until_pinned(&agent, &[&image, &other]).await?;
    let (id, both) = (id_of(&containerd, &other).await?, (true, true));
    until_labelled(&containerd, &[&theirs[..], &[(&other, both), (&id, both)]].concat()).await?;
    agent.edit("images: []")?;
    until_labelled(&containerd, &theirs).await?;
    ensure!(is_pinned(&containerd, &image).await?);
    Ok(())
}

async fn capped(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let mut names = Vec::new();
    for name in ["one", "two", "three"] {
        names.push(registry.push(&format!("{name}:1"), &Image::small(name)?).await?.by_tag);
    }
    let [one, two, three] = [&names[0], &names[1], &names[2]];
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let mut sizes = Vec::new();
    for name in &names {
        containerd.pull(name).await?;
        sizes.push(containerd.client().status(name).await?.context("the image is not there")?.size);
    }
    let list = |cap: u64| {
        format!(
            "limits: {{maxPinnedSize: {cap}}}\nimages:\n- {{image: '{one}', pin: true}}\n- {{image: '{two}', pin: true}}\n- {{image: '{three}', pin: true, priority: 1}}\n"
        )
    };
    let agent = agent(&containerd, &list(sizes[0] + sizes[2]))?;
    let status = until_pinned(&agent, &[one, three]).await?;
    let problems = status["lists"][0]["problems"].to_string();
    ensure!(problems.contains("limits.maxPinnedSize") && problems.contains(two.as_str()), "{problems}");
    let row = agent.image(two).await?;
    ensure!(row["pinProblem"].as_str().is_some_and(|p| p.starts_with("not pinned: ")), "{row:#}");
    let (_, page) = agent.get("/").await?;
    ensure!(page.contains("not pinned: it has"), "the page does not say why");
    // the whole of it fits, and then hardly anything
    agent.edit(&list(sizes.iter().sum()))?;
    let status = until_pinned(&agent, &[one, two, three]).await?;
    ensure!(status["lists"][0]["problems"] == Value::Array(Vec::new()), "{status:#}");
    agent.edit(&list(sizes[2]))?;
    until_pinned(&agent, &[three]).await?;
    let (id, both) = (id_of(&containerd, three).await?, (true, true));
    until_labelled(&containerd, &[(three, both), (&id, both)]).await?;
    // a typing mistake in the cap keeps the last good one, and an agent that never knew one changes nothing
    let mistyped = list(7).replace(": 7", ": 20GB");
    agent.edit(&mistyped)?;
    until_problem(&agent, "not in force").await?;
    until_pinned(&agent, &[three]).await?;
    drop(agent);
    let agent = start(&containerd, &mistyped, &["--resync", "200ms"])?;
    agent
        .until(PATIENCE, "it says why nothing is pinned", |s| {
            s["lists"][0]["problems"].to_string().contains("neither pinned nor unpinned")
        })
        .await?;
    sleep(Duration::from_secs(1)).await;
    until_pinned(&agent, &[three]).await?;
    until_labelled(&containerd, &[(three, both), (&id, both)]).await
}

async fn moved(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let old = registry.push("app:latest", &Image::small("old")?).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let list = format!("images: [{{image: '{}', pin: true, refreshInterval: 1s}}]", old.by_tag);
    let agent = agent(&containerd, &list)?;
    until_pinned(&agent, &[&old.by_tag]).await?;
    let before = id_of(&containerd, &old.by_tag).await?;
    let new = registry.push("app:latest", &Image::small("new")?).await?;
    agent
        .until(PATIENCE, "the moved tag is pinned", |s| {
            s["images"][0]["digest"] == new.digest.as_str() && s["images"][0]["pinned"] == true
        })
        .await?;
    let id = id_of(&containerd, &new.by_tag).await?;
    ensure!(id != before && !is_pinned(&containerd, &old.by_digest).await?, "the old image stays pinned");
    let found = labels(&containerd).await?;
    ensure!(found.contains_key(&id) && !found.contains_key(&before), "{found:?}");
    Ok(())
}

async fn moved_past_the_agent(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("old")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    // by its own look the agent would miss it for five minutes
    let agent = agent(&containerd, &pins(&[&image]))?;
    until_pinned(&agent, &[&image]).await?;
    let (old, both) = (id_of(&containerd, &image).await?, (true, true));
    until_labelled(&containerd, &[(&image, both), (&old, both)]).await?;
    registry.push("app:1", &Image::small("new")?).await?;
    containerd.pull(&image).await?;
    let new = id_of(&containerd, &image).await?;
    ensure!(new != old, "the tag did not move");
    until_labelled(&containerd, &[(&image, both), (&new, both)]).await?;
    ensure!(is_pinned(&containerd, &image).await?);
    Ok(())
}

async fn pulled_past_the_agent(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let agent = start(&containerd, &pins(&[&image]), &["--resync", "1s"])?;
    until_pinned(&agent, &[&image]).await?;
    let (id, both) = (id_of(&containerd, &image).await?, (true, true));
    until_labelled(&containerd, &[(&image, both), (&id, both)]).await?;
    for _ in 0..3 {
        containerd.pull(&image).await?;
        ensure!(is_pinned(&containerd, &image).await?, "the image is not pinned after a pull");
        until_labelled(&containerd, &[(&image, both), (&id, both)]).await?;
    }
    Ok(())
}

async fn runtime_restarts(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let mut containerd = Containerd::start(&part, &[&registry]).await?;
    let agent = agent(&containerd, &pins(&[&image]))?;
    until_pinned(&agent, &[&image]).await?;
    let id = id_of(&containerd, &image).await?;
    containerd.stop().await?;
    agent.until(PATIENCE, "the runtime is missed", |s| s["runtimeProblem"].is_string()).await?;
    containerd.restart().await?;
    containerd.ctr(&["images", "label", &id, "io.cri-containerd.pinned="]).await?;
    containerd.ctr(&["images", "label", &image, "io.cri-containerd.pinned=", "prepull.dev/pinned="]).await?;
    agent.until(PATIENCE, "the runtime is back", |s| s["runtimeProblem"].is_null()).await?;
    agent.edit(&format!("# edited\n{}", pins(&[&image])))?;
    until_labelled(&containerd, &[(&image, (true, true)), (&id, (true, true))]).await?;
    until_pinned(&agent, &[&image]).await?;
    ensure!(is_pinned(&containerd, &image).await?);
    Ok(())
}

async fn cleaned(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let other = registry.push("other:1", &Image::small("other")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    containerd.pull(&other).await?;
    containerd.ctr(&["images", "label", &other, PINNED]).await?;
    let first = agent(&containerd, &pins(&[&image]))?;
    until_pinned(&first, &[&image]).await?;
    drop(first);
    // with a list in a file no API server is contacted
    let cleanup = start(&containerd, "images: []", &["--cleanup"])?;
    until_ready(&cleanup).await?;
    until_labelled(&containerd, &[(&other, (true, false))]).await?;
    ensure!(!is_pinned(&containerd, &image).await? && is_pinned(&containerd, &other).await?);
    Ok(())
}

async fn until_ready(agent: &Agent) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match agent.get("/readyz").await {
            Ok((200, _)) => return Ok(()),
            Ok((_, why)) => ensure!(Instant::now() < end, "not ready: {why}"),
            Err(error) => ensure!(Instant::now() < end, "no answer: {error:#}; {}", agent.log()),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a problem with these words, and gives it.
async fn until_problem(agent: &Agent, words: &str) -> Result<String> {
    let of = |status: &Value| status["lists"][0]["problems"][0].as_str().map(ToOwned::to_owned);
    let has = |status: &Value| of(status).is_some_and(|problem| problem.contains(words));
    let status = agent.until(PATIENCE, words, has).await?;
    of(&status).context("the problem is gone again")
}

async fn without_effect(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let other = registry.push("other:1", &Image::small("other")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let agent = agent(&containerd, &pins(&[&image]))?;
    let problem = until_problem(&agent, "pin has no effect on this node: containerd 1.6").await?;
    ensure!(problem.ends_with("containerd does from 1.7 on"), "{problem}");
    until_labelled(&containerd, &[]).await?;
    let status = agent.status().await?;
    ensure!(status["warm"] == true && shown(&status).is_empty(), "{status:#}");
    let (_, page) = agent.get("/").await?;
    ensure!(page.contains("pin has no effect on this node"), "the page does not say so");
    // told once, also where more is to be pinned
    agent.edit(&pins(&[&image, &other]))?;
    agent.until_image(PATIENCE, &other, "Present").await?;
    agent.edit(&format!("images: ['{image}']"))?;
    agent.until(PATIENCE, "no problem any more", |s| s["lists"][0]["problems"] == Value::Array(Vec::new())).await?;
    let told = agent.log().matches("pin has no effect on this node").count();
    ensure!(told == 1, "told {told} times:\n{}", agent.log());
    until_labelled(&containerd, &[]).await?;
    drop(agent);
    // one that was killed before it could take its label back
    containerd.ctr(&["images", "label", &image, PINNED, OURS]).await?;
    let agent = self::agent(&containerd, &pins(&[&image]))?;
    until_problem(&agent, "pin has no effect on this node").await?;
    until_labelled(&containerd, &[]).await
}

async fn not_containerd() -> Result<()> {
    let cri = FakeCri::start()?;
    let image = "q.io/app:1";
    let options = AgentOptions::default();
    let agent = Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &cri.socket(), &pins(&[image]), &options)?;
    let problem = until_problem(&agent, "pin has no effect on this node").await?;
    ensure!(problem.contains("has no image service of containerd"), "{problem}");
    let status = agent.until_warm(PATIENCE).await?;
    ensure!(shown(&status).is_empty(), "{status:#}");
    agent.edit(&format!("images: ['{image}']"))?;
    agent.until(PATIENCE, "no problem any more", |s| s["lists"][0]["problems"] == Value::Array(Vec::new())).await?;
    ensure!(agent.log().matches("has no image service of containerd").count() == 1, "{}", agent.log());
    Ok(())
}

async fn nothing_to_clean() -> Result<()> {
    let cri = FakeCri::start()?;
    let options = AgentOptions { flags: vec!["--cleanup".to_owned()], ..AgentOptions::default() };
    let agent = Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &cri.socket(), "images: []", &options)?;
    until_ready(&agent).await
}
