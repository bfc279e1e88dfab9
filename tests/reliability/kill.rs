//! SIGKILL at random moments while a node is stocked. Whatever was under way, the next agent ends it well, and nothing is
//! left behind: no file, no pull that goes on in the runtime, no download that nobody wants.

use std::{env, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    stage::{PATIENCE, canaries, list, pinning_first, program},
    support::{
        agent::{Agent, AgentOptions},
        containerd::Containerd,
        cri_proxy::CriProxy,
        images::{Content, Image, Layer},
        journal::{Method, Outcome, Pages},
        parts::ContainerdPart,
        pin_labels::{UNABLE, until_pinned_alone},
        registry::{Registry, RegistryKind},
        sources::{docker_config, entry, flag, secret_yaml, write},
        tcp_proxy::TcpProxy,
    },
    watcher::{Seen, search},
};

/// Images of the list.
const IMAGES: usize = 5;
/// Bytes of a layer that each image has for itself.
const LAYER: usize = 120_000;
/// About how long a node takes, in milliseconds: kills fall before, within and after.
const MOST_MS: u64 = 900;

/// How often the agent is killed on one runtime.
fn kills() -> usize {
    env::var("PREPULL_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10)
}

/// What the kills fell into.
#[derive(Debug, Default)]
struct Fell {
    before_a_pull: usize,
    in_pulls: usize,
    after_all: usize,
}

struct Node {
    containerd: Containerd,
    proxy: CriProxy,
    network: TcpProxy,
    images: Vec<String>,
    options: AgentOptions,
    text: String,
    /// Everything that an agent could leave behind is below it.
    folder: TempDir,
    _registry: Registry,
}

pub(crate) async fn at_random_moments(part: ContainerdPart) -> Result<()> {
    let node = Node::set(&part).await?;
    let (mut killed, mut rounds, mut fell) = (0, 0, Fell::default());
    while killed < kills() {
        node.empty().await?;
        // one agent after the other on what the last one left
        for _ in 0..fastrand::usize(1..=3).min(kills() - killed) {
            node.start_and_kill(&mut fell).await?;
            killed += 1;
        }
        rounds += 1;
        node.ends_well().await.with_context(|| format!("after {killed} kills"))?;
    }
    node.nothing_is_left().await?;
    ensure!(fell.in_pulls * 4 >= killed, "too few kills fell into pulls to prove anything: {fell:?}");
    eprintln!("{}: {killed} kills, {rounds} nodes stocked in the end; {fell:?}", part.name());
    Ok(())
}

impl Node {
    async fn set(part: &ContainerdPart) -> Result<Self> {
        let registry = Registry::start(RegistryKind::htpasswd("robot", super::stage::CANARY)).await?;
        let network = TcpProxy::start(&registry.host())?;
        network.change(|c| c.bytes_per_second = Some(600_000));
        let host = network.host().to_owned();
        // what images share is pulled by several at once
        let shared = Layer::new(90, LAYER / 2, Content::Random)?;
        let mut images = Vec::new();
        for n in 0..IMAGES {
            let name = format!("app-{n}");
            let layers = [shared.clone(), Layer::new(91 + n as u64, LAYER, Content::Random)?];
            registry.push(&format!("team/{name}:1"), &Image::new(&name, &layers)).await?;
            images.push(format!("{host}/team/{name}:1"));
        }
        let containerd = Containerd::start(part, &[]).await?;
        containerd.route(&host, &network.upstream())?;
        let proxy = CriProxy::start(&containerd.socket())?;
        let folder = tempfile::tempdir()?;
        let secret = secret_yaml("pull", &docker_config(&host, &entry("robot", super::stage::CANARY)));
        let secret = write(folder.path(), "secrets/secret.yaml", &secret)?;
        let temporary = folder.path().join("tmp");
        fs::create_dir(&temporary)?;
        let options = AgentOptions {
            flags: flag("pull-secret", &secret),
            environment: vec![("TMPDIR".to_owned(), temporary.display().to_string())],
        };
        let text = pinning_first(&list("5m", &images), &images);
        Ok(Self { containerd, proxy, network, images, options, text, folder, _registry: registry })
    }

    /// Takes the images out of the store; containerd collects their layers at once.
    async fn empty(&self) -> Result<()> {
        for image in &self.images {
            self.containerd.remove(image).await?;
        }
        self.proxy.journal().clear();
        Ok(())
    }

    fn start(&self) -> Result<Agent> {
        Agent::start(&program(), &self.proxy.socket(), &self.text, &self.options)
    }

    async fn start_and_kill(&self, fell: &mut Fell) -> Result<()> {
        let mut agent = self.start()?;
        sleep(Duration::from_millis(fastrand::u64(0..MOST_MS))).await;
        let (pulling, begun) = self.proxy.journal().read(|j| (j.pulling(), j.of(Method::PullImage).count()));
        ensure!(agent.ended().is_none(), "the agent ended by itself: {}", agent.log());
        agent.kill()?;
        match (pulling, begun) {
            (0, 0) => fell.before_a_pull += 1,
            (0, _) => fell.after_all += 1,
            _ => fell.in_pulls += 1,
        }
        let mut log = Seen::default();
        search("the log", &agent.log(), &canaries(), &mut log);
        log.done()?;
        // the runtime is told by the connection's end, and goes on with nothing
        self.proxy
            .journal()
            .wait_until(PATIENCE, |j| j.pulling() == 0)
            .await
            .context("a pull goes on without its agent")?;
        Ok(())
    }

    /// A last agent stocks the node, and each image is pulled once more at most.
    async fn ends_well(&self) -> Result<()> {
        self.proxy.journal().clear();
        let mut agent = self.start()?;
        agent.until_warm(PATIENCE).await?;
        let there = self.containerd.images().await?;
        for image in &self.images {
            ensure!(there.contains(image), "{image} is lost: {there:?}");
        }
        let calls = self.proxy.journal().calls(Method::PullImage);
        for image in &self.images {
            let pulls = calls.iter().filter(|c| c.image == *image && c.outcome() == Some(&Outcome::Answered)).count();
            ensure!(pulls <= 1, "{image} was pulled {pulls} times by the last agent: {calls:#?}");
        }
        ensure!(calls.iter().all(|call| call.outcome() == Some(&Outcome::Answered)), "{calls:#?}");
        ensure!(self.proxy.journal().read(Pages::most_pulling) <= super::stage::PARALLEL);
        if self.containerd.part().name() != UNABLE {
            until_pinned_alone(&self.containerd, PATIENCE, &self.images[0]).await?;
        }
        agent.terminate(PATIENCE).await?;
        Ok(())
    }

    /// No file of the agents, no pull, no connection, no half download; no label that is without effect, once an agent
    /// lives for long enough to see that.
    async fn nothing_is_left(&self) -> Result<()> {
        let mut agent = self.start()?;
        agent.until_warm(PATIENCE).await?;
        until_pinned_alone(&self.containerd, PATIENCE, &self.images[0]).await?;
        agent.terminate(PATIENCE).await?;
        ensure!(fs::read_dir(self.folder.path().join("tmp"))?.next().is_none(), "an agent left temporary files");
        let secrets: Vec<_> =
            fs::read_dir(self.folder.path().join("secrets"))?.flatten().map(|e| e.file_name()).collect();
        ensure!(secrets == ["secret.yaml"], "{secrets:?}");
        self.network.wait_until(PATIENCE, |traffic| traffic.open <= IDLE_CONNECTIONS).await?;
        let end = Instant::now() + PATIENCE;
        loop {
            let active = self.containerd.ctr(&["content", "active"]).await?;
            // the first line is the head of the table
            let downloads = active.lines().skip(1).filter(|line| !line.trim().is_empty()).count();
            if downloads == 0 {
                break;
            }
            ensure!(Instant::now() < end, "downloads that nobody wants: {active}");
            sleep(Duration::from_millis(200)).await;
        }
        // what holds content for a pull under way; containerd would keep it for a day
        let leases = self.containerd.ctr(&["leases", "list", "--quiet"]).await?;
        ensure!(leases.trim().is_empty(), "leases that nobody ends: {leases}");
        Ok(())
    }
}

/// Connections that a runtime's HTTP client keeps for later.
const IDLE_CONNECTIONS: usize = 8;
