//! The agent on real runtimes and registries.

#[path = "agent/disk.rs"]
mod disk;
#[path = "agent/edges.rs"]
mod edges;
mod support;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Arguments;
use serde_json::Value;
use support::{
    agent::{Agent, AgentOptions},
    containerd::Containerd,
    cri_proxy::CriProxy,
    fake_cri::FakeCri,
    images::{Content, Image, Index, Layer, Platform},
    journal::Method,
    parts::ContainerdPart,
    registry::{Registry, RegistryKind},
    script::Rule,
    trials::{on_every_containerd, trial},
};
use tokio::time::{Instant, sleep};

/// Long enough for a busy machine, and never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let trials = [
        on_every_containerd("present_skips_and_missing_pulls", present_and_missing),
        on_every_containerd("always_asks_again_and_follows_a_moved_tag", always),
        on_every_containerd("never_is_never_pulled", never),
        on_every_containerd("names_by_tag_digest_both_and_index", names),
        on_every_containerd("failures_have_their_class", failures),
        on_every_containerd("an_unreachable_registry_comes_back", unreachable),
        on_every_containerd("the_runtime_dies_in_a_pull", runtime_dies),
        on_every_containerd("a_removed_image_comes_back", removed),
        on_every_containerd("edits_take_effect_during_a_pull", edit_during_pull),
        on_every_containerd("sigterm_ends_a_pull", sigterm),
        on_every_containerd("limits_are_never_exceeded", limits),
        on_every_containerd("pulls_stop_and_go_on_at_the_marks_of_the_disk", disk::marks),
        on_every_containerd("a_collected_image_waits_until_it_fits", disk::collected),
        on_every_containerd("pull_warns_of_a_full_disk", disk::pull_warns),
        vec![
            trial("fake_cri::an_image_removed_again_and_again_waits", Ok(()), |()| disk::contested()),
            trial("fake_cri::a_disk_that_cannot_be_seen_is_told_once", Ok(()), |()| disk::unseen()),
            trial("fake_cri::busy_disks_hold_pulls_up", Ok(()), |()| disk::busy()),
            trial("fake_cri::two_thousand_listed_five_hundred_present", Ok(()), |()| many()),
            trial("fake_cri::a_full_store_is_warm_at_once", Ok(()), |()| edges::warm_at_once()),
            trial("fake_cri::a_connection_that_ends_closes_the_registry_where_nobody_knows_of_bytes", Ok(()), |()| {
                edges::reset_without_bytes()
            }),
            trial("fake_cri::an_edit_of_what_is_there_tells_nothing_missing", Ok(()), |()| {
                edges::edit_of_what_is_there()
            }),
            trial("fake_cri::bad_lists_never_lose_the_last_good_one", Ok(()), |()| edges::bad_lists()),
            trial("fake_cri::a_swapped_link_is_seen_within_a_second", Ok(()), |()| edges::swapped_link()),
            trial("fake_cri::a_swapped_parent_folder_is_seen_within_a_second", Ok(()), |()| edges::swapped_parent()),
            trial("fake_cri::empty_variables_are_none", Ok(()), |()| edges::empty_variables()),
            trial("fake_cri::a_closed_log_pipe_ends_nothing", Ok(()), |()| edges::closed_log_pipe()),
            trial("fake_cri::the_first_socket_that_answers_is_found", Ok(()), |()| found_socket()),
            trial("fake_cri::a_look_that_fails_is_told_and_costs_little", Ok(()), |()| failing_look()),
            trial("fake_cri::an_image_that_cannot_be_looked_for_is_not_missed", Ok(()), |()| failing_status()),
            trial("fake_cri::a_runtime_that_hangs_up_is_left_alone", Ok(()), |()| flapping_runtime()),
            trial("fake_cri::an_image_that_ends_its_runtime_waits", Ok(()), |()| deadly_image()),
            trial("fake_cri::one_text_for_several_entries_is_present_if_any_is", Ok(()), |()| several_entries()),
            trial("fake_cri::an_edit_is_spread", Ok(()), |()| spread_edit()),
            trial("fake_cri::the_agent_waits_for_its_runtime", Ok(()), |()| late_runtime()),
            trial("fake_cri::a_second_signal_ends_at_once", Ok(()), |()| edges::second_signal()),
            trial("fake_cri::what_came_is_asked_beside_the_next_pull", Ok(()), |()| edges::asked_beside()),
            trial("fake_cri::runtime_handler_is_in_every_call", Ok(()), |()| edges::runtime_handler()),
            trial("fake_cri::a_runtime_without_a_list_is_asked_image_by_image", Ok(()), |()| edges::no_list()),
            trial("fake_cri::one_log_line_for_each_change", Ok(()), |()| edges::log_lines()),
        ],
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_prepull").into()
}

fn agent(socket: &Path, list: &str) -> Result<Agent> {
    Agent::start(&program(), socket, list, &AgentOptions::default())
}

fn agent_with(socket: &Path, list: &str, flags: &[&str]) -> Result<Agent> {
    let flags = flags.iter().map(|f| (*f).to_owned()).collect();
    Agent::start(&program(), socket, list, &AgentOptions { flags, ..AgentOptions::default() })
}

fn list<S: AsRef<str>>(images: &[S]) -> String {
    images.iter().fold("images:\n".to_owned(), |list, image| list + "  - \"" + image.as_ref() + "\"\n")
}

fn of<'a>(status: &'a Value, image: &str) -> Option<&'a Value> {
    status["images"].as_array()?.iter().find(|i| i["image"] == image)
}

async fn present_and_missing(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let first = registry.push("team/first:1", &Image::small("first")?).await?.by_tag;
    let second = registry.push("team/second:1", &Image::small("second")?).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    containerd.pull(&first).await?;
    let proxy = CriProxy::start(&containerd.socket())?;
    let agent = agent(&proxy.socket(), &list(&[&first, &second.by_tag]))?;
    let status = agent.until_warm(PATIENCE).await?;
    let pulled: Vec<_> = proxy.journal().calls(Method::PullImage).into_iter().map(|c| c.image).collect();
    ensure!(pulled == [second.by_tag.clone()], "PullImage was called for {pulled:?}");
    let image = of(&status, &second.by_tag).context("no row")?;
    ensure!(image["state"] == "Present" && image["digest"] == second.digest.as_str(), "{image:#}");
    ensure!(image["sizeBytes"].as_u64().is_some_and(|n| n > 0), "{image:#}");
    ensure!(agent.get("/readyz").await?.0 == 200 && agent.get("/healthz").await?.0 == 200);
    ensure!(containerd.images().await?.contains(&second.by_tag));
    Ok(())
}

async fn always(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let old = registry.push("app:latest", &Image::small("old")?).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let proxy = CriProxy::start(&containerd.socket())?;
    let text = format!("images: [{{image: '{}', refreshInterval: 1s}}]", old.by_tag);
    let agent = agent(&proxy.socket(), &text)?;
    agent.until_warm(PATIENCE).await?;
    let pulls = |journal: &support::journal::Pages| journal.of(Method::PullImage).count();
    let (_, before) = registry.blob_downloads("app").await?;
    proxy.journal().wait_until(PATIENCE, |j| pulls(j) >= 3).await?;
    let (_, after) = registry.blob_downloads("app").await?;
    ensure!(before == after, "an unchanged tag was downloaded again: {before} bytes, then {after}");
    let new = registry.push("app:latest", &Image::small("new")?).await?;
    ensure!(new.digest != old.digest);
    let digest = new.digest.clone();
    let status = agent
        .until(PATIENCE, "the moved tag is there", |s| {
            of(s, &new.by_tag).is_some_and(|i| i["digest"] == digest.as_str())
        })
        .await?;
    ensure!(status["warm"] == true, "a refresh keeps the node warm: {status:#}");
    Ok(())
}

async fn never(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let proxy = CriProxy::start(&containerd.socket())?;
    let text = format!("images: [{{image: '{image}', imagePullPolicy: Never}}]");
    let agent = agent_with(&proxy.socket(), &text, &["--resync", "300ms"])?;
    let row = agent.until_image(PATIENCE, &image, "Missing").await?;
    ensure!(row["reason"] == "ErrImageNeverPull", "{row:#}");
    ensure!(agent.get("/readyz").await?.0 == 503, "a missing image is not warm");
    containerd.pull(&image).await?;
    agent.until_image(PATIENCE, &image, "Present").await?;
    ensure!(proxy.journal().count(Method::PullImage) == 0);
    Ok(())
}

async fn names(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let app = registry.push("app:1", &Image::small("app")?).await?;
    let index = Index::new(vec![
        Image::for_platform("here", &[Layer::new(5, 2000, Content::Random)?], Platform::here()),
        Image::for_platform("there", &[Layer::new(6, 2000, Content::Random)?], Platform::foreign()),
    ]);
    let index = registry.push("multi:1", &index).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let both = format!("{}@{}", app.by_tag, app.digest);
    let wanted = [&app.by_tag, &app.by_digest, &both, &index.by_tag, &index.by_digest];
    let proxy = CriProxy::start(&containerd.socket())?;
    let first = agent(&proxy.socket(), &list(&wanted))?;
    let status = first.until_warm(PATIENCE).await?;
    for image in wanted {
        let row = of(&status, image).context("no row")?;
        ensure!(row["state"] == "Present", "{row:#}");
    }
    drop(first);
    // all of these names are found again by a new agent, without a pull
    proxy.journal().clear();
    let second = agent(&proxy.socket(), &list(&wanted))?;
    second.until_warm(PATIENCE).await?;
    ensure!(proxy.journal().count(Method::PullImage) == 0, "{:?}", proxy.journal().calls(Method::PullImage));
    Ok(())
}

async fn failures(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let private = Registry::start(RegistryKind::htpasswd("user", "pass")).await?;
    let foreign =
        Index::new(vec![Image::for_platform("there", &[Layer::new(6, 2000, Content::Random)?], Platform::foreign())]);
    let foreign = registry.push("foreign:1", &foreign).await?.by_tag;
    let secret = private.push("app:1", &Image::small("app")?).await?.by_tag;
    let absent = registry.image("absent:1");
    let unknown_host = "no-such-host.invalid/app:1".to_owned();
    let bad = "Not//valid".to_owned();
    let containerd = Containerd::start(&part, &[&registry, &private]).await?;
    let agent = agent(&containerd.socket(), &list(&[&foreign, &secret, &absent, &unknown_host, &bad]))?;
    for (image, class) in [
        (&foreign, "NoMatchingPlatform"),
        (&secret, "Unauthorized"),
        (&absent, "NotFound"),
        (&unknown_host, "RegistryUnavailable"),
    ] {
        let row = agent.until_image(PATIENCE, image, "BackOff").await?;
        ensure!(row["class"] == class, "{row:#}");
        ensure!(row["reason"] == "ImagePullBackOff" && row["attempt"] == 1, "{row:#}");
        ensure!(row["remedy"].as_str().is_some_and(|r| !r.is_empty()) && row["nextAttempt"].is_string(), "{row:#}");
        let registry = image.split('/').next().unwrap_or_default();
        let series = format!("prepull_pulls_total{{class=\"{class}\",registry=\"{registry}\",result=\"failure\"}}");
        ensure!((agent.metric(&series).await? - 1.0).abs() < f64::EPSILON, "{series}");
    }
    let row = agent.image(&bad).await?;
    ensure!(row["state"] == "Invalid" && row["reason"] == "InvalidImageName" && row["canonical"].is_null(), "{row:#}");
    let (code, why) = agent.get("/readyz").await?;
    ensure!(code == 503 && why.contains("0 of 5 required images are present"), "{code} {why}");
    Ok(())
}

async fn unreachable(part: ContainerdPart) -> Result<()> {
    let mut registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let other = registry.push("other:1", &Image::small("other")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    registry.stop()?;
    let text = format!("limits: {{parallelPulls: 1}}\n{}", list(&[&image, &other]));
    let agent = agent(&containerd.socket(), &text)?;
    let row = agent.until_image(PATIENCE, &image, "BackOff").await?;
    ensure!(row["class"] == "RegistryUnavailable", "{row:#}");
    let row = agent.image(&other).await?;
    ensure!(row["state"] == "Pending" && row["reason"] == "cooldown", "the registry is left alone by all: {row:#}");
    let (_, page) = agent.get("/metrics").await?;
    let cooldown = format!("prepull_registry_cooldown_seconds{{registry=\"{}\"}} ", registry.host());
    let left = page.lines().find_map(|l| l.strip_prefix(cooldown.as_str())).context("no cool-down metric")?;
    ensure!(left.parse::<f64>()? > 1.0, "{left} s left");
    registry.restart().await?;
    // the back-off and the cool-down end by themselves, after 10 to 12 s
    agent.until_warm(PATIENCE).await?;
    Ok(())
}

/// An image whose pull takes a while, because its registry's network is slow.
async fn slow_image(name: &str) -> Result<(Registry, support::tcp_proxy::TcpProxy, String)> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    registry.push(&format!("{name}:1"), &Image::new(name, &[Layer::new(9, 3_000_000, Content::Random)?])).await?;
    let slow = support::tcp_proxy::TcpProxy::start(&registry.host())?;
    slow.change(|c| c.bytes_per_second = Some(400_000));
    let image = format!("{}/{name}:1", slow.host());
    Ok((registry, slow, image))
}

async fn runtime_dies(part: ContainerdPart) -> Result<()> {
    let (_registry, slow, image) = slow_image("app").await?;
    let mut containerd = Containerd::start(&part, &[]).await?;
    containerd.route(slow.host(), &slow.upstream())?;
    let agent = agent(&containerd.socket(), &list(&[&image]))?;
    agent.until_image(PATIENCE, &image, "Pulling").await?;
    sleep(Duration::from_millis(500)).await;
    containerd.kill()?;
    let row = agent.until_image(PATIENCE, &image, "Pending").await?;
    ensure!(row["reason"] == "runtime" && row["attempt"] == 0, "the runtime's end is nobody's failure: {row:#}");
    ensure!(agent.get("/healthz").await?.0 == 200, "the loop turns without a runtime");
    slow.change(|c| c.bytes_per_second = None);
    containerd.restart().await?;
    let began = Instant::now();
    agent.until_warm(PATIENCE).await?;
    ensure!(began.elapsed() < Duration::from_secs(9), "no back-off is served for it: {:?}", began.elapsed());
    Ok(())
}

async fn removed(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let image = registry.push("app:1", &Image::small("app")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let agent = agent_with(&containerd.socket(), &list(&[&image]), &["--resync", "500ms"])?;
    agent.until_warm(PATIENCE).await?;
    containerd.remove(&image).await?;
    ensure!(!containerd.images().await?.contains(&image));
    let end = Instant::now() + PATIENCE;
    while !containerd.images().await?.contains(&image) {
        ensure!(Instant::now() < end, "the image did not come back\n{}", agent.log());
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn edit_during_pull(part: ContainerdPart) -> Result<()> {
    let (_registry, slow, image) = slow_image("app").await?;
    let fast = Registry::start(RegistryKind::Plain).await?;
    let other = fast.push("other:1", &Image::small("other")?).await?.by_tag;
    let containerd = Containerd::start(&part, &[&fast]).await?;
    containerd.route(slow.host(), &slow.upstream())?;
    let proxy = CriProxy::start(&containerd.socket())?;
    let agent = agent(&proxy.socket(), &list(&[&image]))?;
    proxy.journal().wait_until(PATIENCE, |j| j.pulling() == 1).await?;
    let began = Instant::now();
    agent.edit(&list(&[&other]))?;
    proxy.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).any(|c| c.image == other)).await?;
    let reaction = began.elapsed();
    ensure!(reaction < Duration::from_secs(1), "the edit took {reaction:?} to take effect");
    agent.until_warm(PATIENCE).await?;
    let cancelled =
        |c: &support::journal::Call| c.image == image && c.outcome() == Some(&support::journal::Outcome::Cancelled);
    proxy.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).any(cancelled)).await?;
    ensure!(!containerd.images().await?.contains(&image), "the pull of a removed entry is ended");
    Ok(())
}

async fn sigterm(part: ContainerdPart) -> Result<()> {
    let (_registry, slow, image) = slow_image("app").await?;
    let containerd = Containerd::start(&part, &[]).await?;
    containerd.route(slow.host(), &slow.upstream())?;
    let proxy = CriProxy::start(&containerd.socket())?;
    let mut agent = agent(&proxy.socket(), &list(&[&image]))?;
    proxy.journal().wait_until(PATIENCE, |j| j.pulling() == 1).await?;
    let (status, took) = agent.terminate(PATIENCE).await?;
    ensure!(status.success(), "{status}\n{}", agent.log());
    ensure!(took < Duration::from_secs(2), "the end took {took:?}");
    let cancelled = |c: &support::journal::Call| c.outcome() == Some(&support::journal::Outcome::Cancelled);
    proxy.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).any(cancelled)).await?;
    Ok(())
}

async fn limits(part: ContainerdPart) -> Result<()> {
    let registries = [Registry::start(RegistryKind::Plain).await?, Registry::start(RegistryKind::Plain).await?];
    let mut images = Vec::new();
    for n in 0..12u64 {
        let layer = Layer::new(100 + n, 200_000, Content::Random)?;
        let name = format!("app-{n}:1");
        let at = usize::from(n >= 8);
        images.push(registries[at].push(&name, &Image::new(&name, &[layer])).await?.by_tag);
    }
    let containerd = Containerd::start(&part, &[&registries[0], &registries[1]]).await?;
    let proxy = CriProxy::start(&containerd.socket())?;
    // a pull that takes a while makes a breach of the limits visible
    proxy.script().add(Rule::delay(Method::PullImage, Duration::from_millis(100)));
    let text = format!("limits: {{parallelPulls: 3, parallelPullsPerRegistry: 2}}\n{}", list(&images));
    let agent = agent(&proxy.socket(), &text)?;
    agent.until_warm(PATIENCE).await?;
    let most = proxy.journal().read(|j| {
        (j.most_pulling(), j.most_pulling_from(&registries[0].host()), j.most_pulling_from(&registries[1].host()))
    });
    ensure!(most.0 == 3, "{} pulls at once, 3 are allowed and possible", most.0);
    ensure!(most.1 <= 2 && most.2 <= 2, "{most:?} pulls at once");
    ensure!(proxy.journal().count(Method::PullImage) == 12, "each image is pulled once");
    Ok(())
}

async fn many() -> Result<()> {
    let fake = FakeCri::start()?;
    let images: Vec<_> = (0..2000).map(|n| format!("registry.example.com/app-{n}:1")).collect();
    fake.put(images.iter().take(500).map(String::as_str))?;
    let agent = agent(&fake.socket(), &format!("limits: {{parallelPulls: 16}}\n{}", list(&images)))?;
    let status = agent.until_warm(PATIENCE).await?;
    ensure!(status["images"].as_array().is_some_and(|a| a.len() == 2000));
    let pulls = fake.journal().calls(Method::PullImage);
    ensure!(pulls.len() == 1500, "{} pulls", pulls.len());
    // those that begin together reach the server in any order
    let mut first: Vec<_> = pulls.iter().take(16).map(|c| c.image.as_str()).collect();
    first.sort_unstable();
    let mut wanted: Vec<_> = images[500..516].iter().map(String::as_str).collect();
    wanted.sort_unstable();
    ensure!(first == wanted, "list order: these came first: {first:?}");
    ensure!(fake.journal().read(support::journal::Pages::most_pulling) <= 16);
    Ok(())
}

async fn found_socket() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let silent = folder.path().join("silent.sock");
    let _accepts_and_says_nothing = std::os::unix::net::UnixListener::bind(&silent)?;
    let fake = FakeCri::start()?;
    let sockets = [folder.path().join("absent.sock"), silent, fake.socket()];
    let observer: prepull::runtime::Observer = std::sync::Arc::new(|_, _, _| {});
    let began = Instant::now();
    let found = prepull::runtime::find_among(&sockets, &observer).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
    ensure!(found.endpoint().path() == fake.socket(), "{found:?}");
    ensure!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    let none = prepull::runtime::find_among(&sockets[..1], &observer).await;
    ensure!(none.as_ref().is_err_and(Vec::is_empty), "{none:?}");
    let reasons = prepull::runtime::find_among(&sockets[..2], &observer).await.err().context("one was found")?;
    ensure!(reasons.len() == 1 && reasons[0].contains("gives no answer within 2 s"), "{reasons:?}");
    Ok(())
}

async fn failing_look() -> Result<()> {
    let fake = FakeCri::start()?;
    fake.script().add(Rule::fail(Method::ListImages, tonic::Code::Internal, "database is locked"));
    let agent = agent(&fake.socket(), &list(&["registry.example.com/a:1"]))?;
    let told = |s: &Value| s["runtimeProblem"].as_str().is_some_and(|p| p.contains("database is locked"));
    agent.until(PATIENCE, "the failure is told", told).await?;
    ensure!(agent.get("/readyz").await?.1.contains("database is locked"));
    sleep(Duration::from_secs(4)).await;
    let looks = fake.journal().count(Method::ListImages);
    ensure!((2..=4).contains(&looks), "{looks} looks in 4 s");
    let lines = agent.log().lines().filter(|l| l.contains("database is locked")).count();
    ensure!(lines == 1, "{lines} log lines");
    fake.script().clear();
    agent.until_warm(PATIENCE).await?;
    Ok(())
}

async fn failing_status() -> Result<()> {
    let fake = FakeCri::start()?;
    fake.put(["docker.io/library/short:1"])?;
    let agent = agent_with(&fake.socket(), &list(&["short:1"]), &["--resync", "300ms"])?;
    agent.until_warm(PATIENCE).await?;
    fake.script().add(Rule::fail(Method::ImageStatus, tonic::Code::Internal, "database is locked"));
    let asked = fake.journal().count(Method::ImageStatus);
    fake.journal().wait_until(PATIENCE, |j| j.of(Method::ImageStatus).count() >= asked + 3).await?;
    ensure!(agent.image("short:1").await?["state"] == "Present");
    ensure!(fake.journal().count(Method::PullImage) == 0, "what cannot be looked for is not absent");
    Ok(())
}

async fn flapping_runtime() -> Result<()> {
    let mut fake = FakeCri::start()?;
    let agent = agent(&fake.socket(), "images: []")?;
    agent.until_warm(PATIENCE).await?;
    for _ in 0..5 {
        let seen = fake.journal().count(Method::Version);
        fake.close();
        fake.open()?;
        fake.journal().wait_until(PATIENCE, |j| j.of(Method::Version).count() > seen).await?;
    }
    // the sixth connection comes after more than a second
    let began = Instant::now();
    let seen = fake.journal().count(Method::Version);
    fake.close();
    fake.open()?;
    fake.journal().wait_until(PATIENCE, |j| j.of(Method::Version).count() > seen).await?;
    ensure!(began.elapsed() > Duration::from_secs(1), "connected again after {:?}", began.elapsed());
    Ok(())
}

async fn deadly_image() -> Result<()> {
    let mut fake = FakeCri::start()?;
    let image = "registry.example.com/deadly:1";
    fake.script().add(Rule::hang(Method::PullImage));
    let agent = agent(&fake.socket(), &list(&[image]))?;
    for _ in 0..2 {
        fake.journal().wait_until(PATIENCE, |j| j.pulling() == 1).await?;
        fake.close();
        fake.journal().wait_until(PATIENCE, |j| j.pulling() == 0).await?;
        fake.open()?;
    }
    let row = agent.until_image(PATIENCE, image, "BackOff").await?;
    ensure!(row["class"] == "RuntimeUnavailable", "{row:#}");
    ensure!(fake.journal().count(Method::PullImage) == 2);
    Ok(())
}

async fn several_entries() -> Result<()> {
    let fake = FakeCri::start()?;
    let image = "registry.example.com/a:1";
    let entry = |os: &str| format!("  - {{image: '{image}', nodeSelector: {{kubernetes.io/os: {os}}}}}\n");
    let agent = agent(&fake.socket(), &format!("images:\n{}{}", entry("linux"), entry("windows")))?;
    agent.until_warm(PATIENCE).await?;
    let present = agent.metric(&format!("prepull_image_present{{image=\"{image}\"}}")).await?;
    ensure!((present - 1.0).abs() < f64::EPSILON, "{present}");
    Ok(())
}

async fn spread_edit() -> Result<()> {
    let fake = FakeCri::start()?;
    let list = |image: &str| format!("limits: {{spread: 3s}}\nimages: ['{image}']\n");
    let agent = agent(&fake.socket(), &list("registry.example.com/a:1"))?;
    agent.until_warm(PATIENCE).await?;
    let first = agent.metric("prepull_time_to_warm_seconds").await?;
    ensure!(first < 1.0, "a node that starts does not wait: {first} s");
    let (edited, began) = (list("registry.example.com/b:1"), Instant::now());
    agent.edit(&edited)?;
    fake.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).count() == 2).await?;
    let own = prepull::spread::moment("test-node", &prepull::list::revision(&edited), Duration::from_secs(3));
    ensure!(began.elapsed() >= own, "it began after {:?}, before its moment at {own:?}", began.elapsed());
    ensure!(began.elapsed() < own + Duration::from_secs(2), "it began after {:?}", began.elapsed());
    Ok(())
}

async fn late_runtime() -> Result<()> {
    let mut fake = FakeCri::start()?;
    fake.close();
    let agent = agent(&fake.socket(), &list(&["registry.example.com/a:1"]))?;
    let status = agent.until(PATIENCE, "the list is read", |s| s["images"][0]["state"] == "Pending").await?;
    ensure!(status["runtime"] == "" && status["images"][0]["reason"] == "runtime", "{status:#}");
    ensure!(agent.get("/healthz").await?.0 == 200);
    ensure!(agent.get("/readyz").await?.0 == 503);
    fake.open()?;
    agent.until_warm(PATIENCE).await?;
    Ok(())
}
