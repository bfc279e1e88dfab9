//! The test support itself, against every runtime that is here.

mod support;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Arguments;
use support::{
    containerd::{Containerd, Options},
    cri::{self, Client},
    cri_proxy::CriProxy,
    fake_cri::{FakeCri, Offer},
    images::{Artifact, Content, Image, Index, Layer, Platform},
    journal::{Method, Outcome, registry_of},
    parts::{self, ContainerdPart},
    rate_limit::RateLimit,
    registry::{Registry, RegistryKind, Upstream},
    script::Rule,
    stand_in::{Fault, StandIn, Target},
    tcp_proxy::{Loss, TcpProxy},
    trials::{on_every_containerd, trial},
};
use tokio::time::{Instant, timeout};
use tonic::Code;

/// Long enough for a busy machine, and never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_secs(30);
/// Set in the process that is to leave children behind.
const ORPHANS: &str = "PREPULL_TEST_LEAVE_ORPHANS";

fn main() -> Result<ExitCode> {
    if std::env::var_os(ORPHANS).is_some() {
        leave_orphans()?;
    }
    let trials = [
        on_every_containerd("image_is_pulled_listed_and_removed", pull_list_remove),
        on_every_containerd("index_is_pulled_by_tag_and_by_digest", index),
        on_every_containerd("logins_are_needed_and_seen", logins),
        on_every_containerd("registries_refuse_and_come_back", refusals),
        on_every_containerd("tags_move_and_manifests_go", moving_tags),
        on_every_containerd("runtime_is_killed_paused_and_restarted", restarts),
        on_every_containerd("cri_proxy_counts_fails_and_cancels", proxy),
        on_every_containerd("network_is_slow_frozen_and_broken", network),
        on_every_containerd("stand_in_answers_wrongly", stand_in),
        on_every_containerd("nothing_is_left_behind", leaves_nothing),
        vec![
            trial("fake_cri::holds_thousands_of_images", Ok(()), |()| fake_cri()),
            trial("fake_cri::answers_by_credential_and_by_rule", Ok(()), |()| fake_cri_rules()),
            trial("network::loses_and_limits", parts::docker_registry(), |_| misfortune()),
            trial("children_end_with_the_process", parts::docker_registry(), |_| orphans()),
        ],
    ];
    let trials = trials.into_iter().flatten().collect();
    Ok(libtest_mimic::run(&Arguments::from_args(), trials).exit_code())
}

/// A front refuses what comes too fast, and a lossy line stalls and breaks.
async fn misfortune() -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let limit = RateLimit::before(&registry.host(), 2.0, 3.0)?;
    let line = TcpProxy::start(limit.host())?;
    let ask = async |address: &str| support::http::get(address, "/v2/").await.map(|answer| answer.status.as_u16());
    for expected in [200, 200, 200, 429] {
        ensure!(ask(line.host()).await? == expected, "the front refused {} requests", limit.refused());
    }
    ensure!(limit.refused() == 1, "one was refused");
    tokio::time::sleep(Duration::from_millis(600)).await;
    ensure!(ask(line.host()).await? == 200, "the front lets requests through again");

    let line = TcpProxy::start(&registry.host())?;
    let loss = Loss { seed: 7, bytes_to_stall: 1, stall: Duration::from_millis(300), bytes_to_reset: u64::MAX };
    line.change(|line| (line.bytes_per_second, line.loss) = (Some(2000), Some(loss)));
    let start = Instant::now();
    ensure!(ask(line.host()).await? == 200, "a stall is no failure");
    ensure!(start.elapsed() > loss.stall, "nothing stalled");
    line.change(|line| line.loss = Some(Loss { bytes_to_reset: 1, ..loss }));
    ensure!(ask(line.host()).await.is_err(), "the line does not break");
    Ok(())
}

async fn pull_list_remove(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let base = Layer::new(1, 300_000, Content::Random)?;
    let image = Image::new("first", &[base.clone(), Layer::new(2, 50_000, Content::Compressible)?]);
    let pushed = registry.push("team/app:1", &image).await?;
    let sibling = registry.push("team/sibling:1", &Image::new("second", &[base])).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    ensure!(containerd.images().await?.is_empty(), "a new containerd has images already");

    containerd.pull(&pushed.by_tag).await?;
    let names = containerd.images().await?;
    ensure!(names == [pushed.by_tag.clone(), pushed.by_digest], "the store has {names:?}");
    let (blobs, bytes) = registry.blob_downloads("team/app").await?;
    ensure!(blobs == 3 && bytes > 300_000, "{blobs} blobs of {bytes} bytes were downloaded");
    ensure!(registry.manifest_requests("team/app").await? > 0, "no manifest was asked for");
    ensure!(containerd.ctr(&["images", "list", "-q"]).await?.contains(&pushed.by_tag), "ctr does not see the image");

    containerd.pull(&sibling.by_tag).await?;
    let (_, bytes) = registry.blob_downloads("team/sibling").await?;
    ensure!(bytes < 10_000, "the shared layer was downloaded again: {bytes} bytes");

    containerd.remove(&pushed.by_tag).await?;
    ensure!(!containerd.images().await?.contains(&pushed.by_tag), "the image is still there");
    Ok(())
}

async fn index(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let layer = Layer::new(3, 1000, Content::Compressible)?;
    let foreign = Image::for_platform("multi", std::slice::from_ref(&layer), Platform::foreign());
    let here = Image::new("multi", &[layer]);
    let multi = registry.push("multi:1", &Index::new(vec![foreign.clone(), here.clone()])).await?;
    let other = registry.push("other:1", &Index::new(vec![foreign])).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;

    let id = containerd.pull(&multi.by_tag).await?;
    ensure!(id == here.config().digest, "the ID is {id}, not the configuration's digest");
    containerd.pull(&multi.by_digest).await?;
    ensure!(multi.digest != here.digest(), "the index has its image's digest");
    let names = containerd.images().await?;
    ensure!(names == [multi.by_tag, multi.by_digest], "the store has {names:?}");
    refused(containerd.client(), &other.by_tag, None, Code::NotFound, "no match for platform").await
}

async fn logins(part: ContainerdPart) -> Result<()> {
    let basic = Registry::start(RegistryKind::htpasswd("user", "right")).await?;
    let token = Registry::start(RegistryKind::token("user", "right")).await?;
    let containerd = Containerd::start(&part, &[&basic, &token]).await?;
    let client = containerd.client();
    for registry in [&basic, &token] {
        let pushed = registry.push("private/app:1", &Image::small("private")?).await?;
        // 1.6 repeats only what a registry without tokens answered
        let bare = part.generation == "1.6" && registry.tokens().is_none();
        let text = if bare { "401 Unauthorized" } else { "authorization failed" };
        refused(client, &pushed.by_tag, None, Code::Unknown, text).await?;
        refused(client, &pushed.by_tag, Some(("user", "wrong")), Code::Unknown, "401 Unauthorized").await?;
        client.pull_with(&pushed.by_tag, Some(("user", "right"))).await?;
    }
    let public = token.push("public/app:1", &Image::small("public")?).await?;
    client.pull(&public.by_tag).await?;

    let asked = token.tokens().context("a token registry has no token server")?.requests();
    let with = |password: &str| {
        let login = Some(("user".to_owned(), password.to_owned()));
        asked.iter().filter(|request| request.login == login).map(|request| request.granted).collect::<Vec<_>>()
    };
    ensure!(with("wrong").first() == Some(&false) && with("right").contains(&true), "the server saw {asked:?}");
    ensure!(asked.iter().any(|request| request.scopes.concat() == "repository:public/app:pull"), "it saw {asked:?}");
    Ok(())
}

async fn refusals(part: ContainerdPart) -> Result<()> {
    let mut plain = Registry::start(RegistryKind::Plain).await?;
    let secure = Registry::start(RegistryKind::Tls).await?;
    let containerd = Containerd::start(&part, &[&plain, &secure]).await?;
    let client = containerd.client();
    let image = Image::small("app")?;
    let (pushed, secret) = (plain.push("app:1", &image).await?, secure.push("app:1", &image).await?);

    refused(client, &plain.image("app:2"), None, Code::NotFound, "not found").await?;
    plain.stop()?;
    refused(client, &pushed.by_tag, None, Code::Unknown, "connection refused").await?;
    plain.restart().await?;
    client.pull(&pushed.by_tag).await?;

    containerd.route(&secure.host(), &Upstream::https(&secure.host()))?;
    refused(client, &secret.by_tag, None, Code::Unknown, "x509: certificate signed by unknown authority").await?;
    containerd.route(&secure.host(), &Upstream { skip_verify: true, ..Upstream::https(&secure.host()) })?;
    client.pull(&secret.by_tag).await?;
    containerd.remove(&secret.by_tag).await?;
    containerd.route(&secure.host(), &secure.upstream())?;
    client.pull(&secret.by_tag).await?;
    Ok(())
}

async fn moving_tags(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let old = registry.push("app:stable", &Image::small("old")?).await?;
    let new = registry.push("app:next", &Image::small("new")?).await?;
    let before = containerd.pull(&old.by_tag).await?;
    registry.retag("app:next", "app:stable").await?;
    let after = containerd.pull(&old.by_tag).await?;
    ensure!(before != after, "the tag did not move");

    registry.delete("app", &new.digest).await?;
    containerd.remove(&new.by_tag).await?;
    refused(containerd.client(), &new.by_tag, None, Code::NotFound, "not found").await
}

async fn restarts(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let pushed = registry.push("app:1", &Image::small("app")?).await?;
    let mut containerd = Containerd::start(&part, &[&registry]).await?;
    containerd.pull(&pushed.by_tag).await?;

    let lasting = containerd.client().clone();
    containerd.kill()?;
    let gone = lasting.version().await.err().context("a killed containerd answers")?;
    ensure!(matches!(gone.code(), Code::Unavailable | Code::Unknown), "a killed containerd gives {gone:?}");
    containerd.restart().await?;
    ensure!(lasting.status(&pushed.by_tag).await?.is_some(), "a restart lost the image");

    containerd.pause().await?;
    let answer = timeout(Duration::from_millis(300), lasting.version()).await;
    ensure!(answer.is_err(), "a paused containerd answers {answer:?}");
    containerd.resume()?;
    let version = timeout(PATIENCE, lasting.version()).await??.runtime_version;
    ensure!(version.trim_start_matches('v').starts_with(&part.version), "{version} runs, not {}", part.version);
    containerd.stop().await
}

async fn proxy(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::htpasswd("user", "right")).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    let mut proxy = CriProxy::start(&containerd.socket())?;
    let client = Client::ready(&proxy.socket(), PATIENCE).await?;
    let mut images = Vec::new();
    for name in ["a", "b", "c"] {
        images.push(registry.push(&format!("{name}:1"), &Image::small(name)?).await?.by_tag);
    }

    let hold = proxy.script().add(Rule::hang(Method::PullImage));
    let pulls: Vec<_> = images
        .iter()
        .cloned()
        .map(|image| {
            let client = client.clone();
            tokio::spawn(async move { client.pull_with(&image, Some(("user", "right"))).await })
        })
        .collect();
    proxy.journal().wait_until(PATIENCE, |pages| pages.pulling() == 3).await?;
    ensure!(containerd.images().await?.is_empty(), "a held pull went on");
    proxy.script().remove(hold);
    for pull in pulls {
        pull.await??;
    }
    let from = registry_of(&images[0]);
    let most = proxy.journal().read(|pages| (pages.pulling(), pages.most_pulling(), pages.most_pulling_from(&from)));
    ensure!(most == (0, 3, 3), "in flight now, at most, and from {from}: {most:?}");
    let calls = proxy.journal().calls(Method::PullImage);
    let complete = calls.iter().all(|call| {
        let login = call.login.as_ref().map(|login| (login.username.as_str(), login.password.as_str()));
        images.contains(&call.image) && login == Some(("user", "right")) && call.outcome() == Some(&Outcome::Answered)
    });
    ensure!(calls.len() == 3 && complete, "the journal has {calls:?}");

    proxy.script().add(Rule::fail(Method::PullImage, Code::Unavailable, "on purpose").image(&images[1]).times(1));
    refused(&client, &images[1], None, Code::Unavailable, "on purpose").await?;
    client.pull_with(&images[1], Some(("user", "right"))).await?;

    // a client that goes away takes its call to the runtime with it
    let slow = StandIn::start(Image::new("slow", &[Layer::new(9, 200_000, Content::Random)?]), Fault::SilentLayers)?;
    containerd.route(slow.host(), &slow.upstream())?;
    proxy.journal().clear();
    let given_up = timeout(Duration::from_secs(1), client.pull(&format!("{}/slow:1", slow.host()))).await;
    ensure!(given_up.is_err(), "a pull without an end ended: {given_up:?}");
    let is_over = |pages: &support::journal::Pages| pages.calls.iter().all(|call| call.ended.is_some());
    proxy.journal().wait_until(PATIENCE, is_over).await?;
    let calls = proxy.journal().calls(Method::PullImage);
    ensure!(calls.len() == 1 && calls[0].outcome() == Some(&Outcome::Cancelled), "the journal has {calls:?}");

    proxy.close();
    ensure!(client.version().await.is_err(), "a closed proxy answers");
    proxy.open()?;
    timeout(PATIENCE, client.version()).await??;
    Ok(())
}

async fn network(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let line = TcpProxy::start(&registry.host())?;
    let containerd = Containerd::start(&part, &[]).await?;
    containerd.route(line.host(), &line.upstream())?;
    for (seed, name) in [(21, "slow"), (22, "frozen"), (23, "broken")] {
        registry.push(&format!("{name}:1"), &Image::new(name, &[Layer::new(seed, 400_000, Content::Random)?])).await?;
    }
    let name = |image: &str| format!("{}/{image}:1", line.host());

    line.change(|line| (line.bytes_per_second, line.latency) = (Some(400_000), Duration::from_millis(20)));
    let start = Instant::now();
    containerd.pull(&name("slow")).await?;
    let took = start.elapsed();
    ensure!(took > Duration::from_millis(900), "400 kB at 400 kB/s took only {took:?}");
    let traffic = line.traffic();
    ensure!(traffic.down > 400_000 && traffic.up > 0 && traffic.connections > 0, "the proxy saw {traffic:?}");

    let down = line.traffic().down;
    let client = containerd.client().clone();
    let image = name("frozen");
    let pull = tokio::spawn(async move { client.pull(&image).await });
    line.wait_until(PATIENCE, |traffic| traffic.down > down + 100_000).await?;
    line.change(|line| line.frozen = true);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let still = line.traffic();
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(line.traffic().down == still.down && !pull.is_finished(), "a frozen network moves");
    line.change(|line| *line = support::tcp_proxy::Conditions::default());
    timeout(PATIENCE, pull).await???;

    line.change(|line| line.bytes_per_second = Some(100_000));
    let down = line.traffic().down;
    let client = containerd.client().clone();
    let image = name("broken");
    let pull = tokio::spawn(async move { client.pull(&image).await });
    line.wait_until(PATIENCE, |traffic| traffic.down > down + 50_000).await?;
    line.reset();
    line.change(|line| line.bytes_per_second = None);
    // some generations fail, others ask for the rest
    let _ = timeout(PATIENCE, pull).await??;
    line.wait_until(PATIENCE, |traffic| traffic.down > down + 50_000).await?;
    containerd.pull(&name("broken")).await?;
    Ok(())
}

async fn stand_in(part: ContainerdPart) -> Result<()> {
    let image = Image::new("stand-in", &[Layer::new(31, 100_000, Content::Random)?]);
    let server = StandIn::start(image, Fault::TruncatedLayers)?;
    let containerd = Containerd::start(&part, &[]).await?;
    containerd.route(server.host(), &server.upstream())?;
    let client = containerd.client();
    let name = format!("{}/app:1", server.host());

    refused(client, &name, None, Code::Unknown, "unexpected EOF").await?;
    let status = |status| Fault::Status { target: Target::Manifests, status, headers: Vec::new(), body: String::new() };
    for (code, text) in [(429, "429 Too Many Requests"), (503, "503 Service Unavailable")] {
        server.set(status(code));
        refused(client, &name, None, Code::Unknown, text).await?;
    }
    server.set(Fault::None);
    client.pull(&name).await?;
    Ok(())
}

async fn leaves_nothing(part: ContainerdPart) -> Result<()> {
    let options = Options { disk: Some(32 << 20), ..Options::default() };
    let containerd = Containerd::start_with(&part, &[], options).await?;
    let folder = containerd.folder().to_path_buf();
    let process = format!("/proc/{}", containerd.pid().context("containerd has no process")?);
    ensure!(fs::read_to_string("/proc/self/mountinfo")?.contains(&*folder.to_string_lossy()), "the disk is not there");
    ensure!(Path::new(&process).exists(), "there is no {process}");
    drop(containerd);
    ensure!(!folder.exists() && !Path::new(&process).exists(), "{} or {process} is left", folder.display());
    ensure!(!fs::read_to_string("/proc/self/mountinfo")?.contains(&*folder.to_string_lossy()), "a mount is left");
    Ok(())
}

async fn fake_cri() -> Result<()> {
    let fake = FakeCri::start()?;
    let names: Vec<String> = (0..3000).map(|number| format!("registry.test/app-{number}:1")).collect();
    fake.put(names.iter().map(String::as_str))?;
    let client = Client::ready(&fake.socket(), PATIENCE).await?;
    ensure!(client.list().await?.len() == 3000, "images are missing");
    ensure!(client.status("registry.test/app-77:1").await?.is_some(), "an image that is there is not found");
    ensure!(client.status("registry.test/app-77:2").await?.is_none(), "an image that is not there is found");
    client.remove("registry.test/app-77:1").await?;
    fake.take("registry.test/app-78:1");
    ensure!(client.list().await?.len() == 2998 && fake.images().len() == 2 * 2998, "removed images are there");

    client.pull("busybox").await?;
    let id = client.pull("registry.test/app-1:1").await?;
    let found = client.status("docker.io/library/busybox:latest").await?.context("a pulled image is not there")?;
    ensure!(found.repo_tags == ["docker.io/library/busybox:latest"], "it is called {:?}", found.repo_tags);
    ensure!(client.list().await?.len() == 2999, "a pull of what is there added something");
    ensure!(client.status(&id).await?.is_some(), "an image is not found by its ID");
    Ok(())
}

async fn fake_cri_rules() -> Result<()> {
    let fake = FakeCri::start()?;
    let client = Client::ready(&fake.socket(), PATIENCE).await?;
    let logins = vec![("user".to_owned(), "right".to_owned())];
    fake.offer("registry.test/private:1", Offer { logins, ..Offer::default() });
    refused(&client, "registry.test/private:1", Some(("user", "wrong")), Code::Unknown, "access denied").await?;
    client.pull_with("registry.test/private:1", Some(("user", "right"))).await?;

    fake.script().add(Rule::fail(Method::ImageFsInfo, Code::Unimplemented, "not here"));
    let info = client.images.clone().image_fs_info(prepull::cri::ImageFsInfoRequest {}).await;
    ensure!(info.err().map(|status| status.code()) == Some(Code::Unimplemented), "a failing method answers");

    let takes = Duration::from_millis(300);
    fake.offer("registry.test/slow:1", Offer { takes, ..Offer::default() });
    let mut request = tonic::Request::new(cri::pull_request("registry.test/slow:1", None));
    request.set_timeout(Duration::from_millis(50));
    ensure!(client.images.clone().pull_image(request).await.is_err(), "a deadline was not kept");
    fake.journal().wait_until(PATIENCE, |pages| pages.pulling() == 0).await?;
    let last = fake.journal().calls(Method::PullImage).pop().context("no pull was written down")?;
    ensure!(last.outcome() == Some(&Outcome::Cancelled), "the pull ended so: {:?}", last.outcome());
    ensure!(!fake.images().iter().any(|image| image.contains("slow")), "a cancelled pull arrived");

    let moved = Offer { digest: Some(support::images::digest(b"moved")), ..Offer::default() };
    let before = client.pull("registry.test/app:1").await?;
    fake.offer("registry.test/app:1", moved);
    ensure!(client.pull("registry.test/app:1").await? != before, "the tag did not move");
    Ok(())
}

/// A process that starts a registry, says its id, and ends without any of its destructors.
#[expect(clippy::print_stdout, reason = "the process that waits for it reads this")]
fn leave_orphans() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let registry = runtime.block_on(Registry::start(RegistryKind::Plain))?;
    println!("{}", registry.pid().context("the registry has no process")?);
    std::process::abort()
}

async fn orphans() -> Result<()> {
    // what it leaves on disk goes with this folder
    let folder = tempfile::tempdir()?;
    let output = tokio::process::Command::new(std::env::current_exe()?)
        .env(ORPHANS, "1")
        .env("TMPDIR", folder.path())
        .output()
        .await?;
    let text = String::from_utf8(output.stdout)?;
    let pid: u32 = text.trim().parse().with_context(|| format!("the process said {text:?}"))?;
    let end = Instant::now() + PATIENCE;
    while Path::new(&format!("/proc/{pid}/exe")).exists() {
        if Instant::now() > end {
            bail!("the registry {pid} outlived the process that started it");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A pull that must fail so.
async fn refused(client: &Client, image: &str, login: Option<(&str, &str)>, code: Code, text: &str) -> Result<()> {
    match client.pull_with(image, login).await {
        Err(status) if status.code() == code && status.message().contains(text) => Ok(()),
        other => bail!("{image} should have failed with {code:?} and “{text}”, but: {other:?}"),
    }
}
