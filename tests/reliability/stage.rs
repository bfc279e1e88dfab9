//! A node with one agent: a private registry behind a bad network, a real runtime, and a proxy before its socket.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    matrix::Came,
    support::{
        agent::{Agent, AgentOptions},
        containerd::{self, Containerd},
        cri_proxy::CriProxy,
        images::{Content, Image, Layer},
        journal::{Call, Method, Outcome},
        parts::ContainerdPart,
        registry::{Registry, RegistryKind, Upstream},
        sources::{docker_config, entry, flag, secret_yaml, write},
        stand_in::{Fault, StandIn},
        tcp_proxy::TcpProxy,
    },
    watcher::{Needs, Seen, Watcher, search, store_of},
};

/// Long enough for a busy machine, and never waited for in full when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// What the list allows at once.
pub(crate) const PARALLEL: usize = 2;
/// Bytes of the layer of each image that is pulled while something is wrong.
pub(crate) const LAYER: usize = 300_000;
/// How much more memory a debug build may hold after a fault than before it. What grows with every fault would pass it
/// in the soak.
const MOST_GROWTH: i64 = 6 << 20;
/// A connection to somebody who asked for a page may still be open, and the pool of blocking threads has a pipe.
pub(crate) const MORE_FILES: usize = 4;
const USER: &str = "robot";
/// Must not be seen anywhere.
pub(crate) const CANARY: &str = "canary-of-a-pull-secret";

/// How the registry lets people in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Password,
    Tokens,
    Tls,
}

/// Everything on one node.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    pub(crate) proxy: CriProxy,
    pub(crate) containerd: Containerd,
    pub(crate) network: TcpProxy,
    pub(crate) front: StandIn,
    pub(crate) registry: Registry,
    /// The registry's name in images.
    pub(crate) host: String,
    /// What is in the list from the start.
    pub(crate) steady: String,
    /// What a fault is to keep from being pulled.
    pub(crate) wanted: Vec<String>,
    before: Needs,
    watcher: Option<Watcher>,
    began: Instant,
    _folder: TempDir,
}

/// What may be different.
pub(crate) struct Setting {
    pub(crate) gate: Gate,
    /// The registry's name, where it is not its address.
    pub(crate) host: Option<&'static str>,
    pub(crate) containerd: containerd::Options,
    /// A pull's bound in the list.
    pub(crate) pull_timeout: &'static str,
}

impl Default for Setting {
    fn default() -> Self {
        Self { gate: Gate::Password, host: None, containerd: containerd::Options::default(), pull_timeout: "5m" }
    }
}

impl Stage {
    /// Sets it up, up to a warm node with one image, and begins to look.
    pub(crate) async fn set(part: &ContainerdPart, setting: Setting) -> Result<Self> {
        let kind = match setting.gate {
            Gate::Password => RegistryKind::htpasswd(USER, CANARY),
            Gate::Tokens => RegistryKind::token(USER, CANARY),
            Gate::Tls => RegistryKind::Tls,
        };
        let registry = Registry::start(kind).await?;
        let front = StandIn::before(&registry.host(), Fault::None)?;
        // bytes of TLS pass as they are
        let network = TcpProxy::start(
            if setting.gate == Gate::Tls { registry.host() } else { front.host().to_owned() }.as_str(),
        )?;
        let host = setting.host.map_or_else(|| network.host().to_owned(), str::to_owned);
        let mut images = Vec::new();
        for (n, name) in ["steady", "first", "second", "third"].into_iter().enumerate() {
            let image = Image::new(name, &[Layer::new(70 + n as u64, LAYER, Content::Random)?]);
            registry.push(&format!("team/{name}:1"), &image).await?;
            images.push(format!("{host}/team/{name}:1"));
        }
        let containerd = Containerd::start_with(part, &[], setting.containerd).await?;
        containerd.route(&host, &upstream(&registry, &network, setting.gate))?;
        let proxy = CriProxy::start(&containerd.socket())?;
        let folder = tempfile::tempdir()?;
        let secret = secret_yaml("pull", &docker_config(&host, &entry(USER, CANARY)));
        let secret = write(folder.path(), "secret.yaml", &secret)?;
        let (steady, wanted) = (images.remove(0), images);
        let options = AgentOptions { flags: flag("pull-secret", &secret), ..AgentOptions::default() };
        let agent = Agent::start(&program(), &proxy.socket(), &list(setting.pull_timeout, &[&steady]), &options)?;
        agent.until_warm(PATIENCE).await?;
        let before = settled(agent.pid()).await?;
        let watcher = Watcher::start(agent.port(), agent.pid(), store_of(containerd.client()), &canaries());
        Ok(Self {
            agent,
            proxy,
            containerd,
            network,
            front,
            registry,
            host,
            steady,
            wanted,
            before,
            watcher: Some(watcher),
            began: Instant::now(),
            _folder: folder,
        })
    }

    /// Adds the images that are to be pulled now.
    pub(crate) fn want(&self, pull_timeout: &str) -> Result<()> {
        let images: Vec<&String> = [&self.steady].into_iter().chain(&self.wanted).collect();
        self.agent.edit(&list(pull_timeout, &images))
    }

    /// Waits until a wanted image failed in one of these classes; gives its row.
    pub(crate) async fn until_failed(&self, classes: &[&str]) -> Result<Value> {
        let failed = |status: &Value| -> Option<Value> {
            let rows = status["images"].as_array()?;
            rows.iter().find(|row| row["state"] == "BackOff").cloned()
        };
        let status = self.agent.until(PATIENCE, "an image failed", |status| failed(status).is_some()).await?;
        let row = failed(&status).context("it was there just now")?;
        ensure!(classes.iter().any(|class| row["class"] == *class), "expected {classes:?}: {row:#}");
        ensure!(
            row["reason"] == "ImagePullBackOff" && row["remedy"].as_str().is_some_and(|r| !r.is_empty()),
            "{row:#}"
        );
        ensure!(status["warm"] == false, "{status:#}");
        Ok(row)
    }

    /// How a runtime reaches the registry when all is well.
    pub(crate) fn upstream(&self, gate: Gate) -> Upstream {
        upstream(&self.registry, &self.network, gate)
    }

    /// Waits until everything is there, and checks what has to be so after every fault.
    pub(crate) async fn recovered(mut self) -> Result<Came> {
        let ended = Instant::now();
        self.agent.until_warm(PATIENCE).await?;
        let recovered = ended.elapsed();
        // of the runtime itself, past every proxy
        let there = self.containerd.images().await?;
        for image in self.wanted.iter().chain([&self.steady]) {
            ensure!(there.contains(image), "{image} is lost: the runtime has {there:?}");
        }
        let calls = self.proxy.journal().calls(Method::PullImage);
        self.sparing(&calls)?;
        let most = self.proxy.journal().read(|j| (j.most_pulling(), j.most_pulling_from(&self.host)));
        ensure!(most.0 <= PARALLEL && most.1 <= PARALLEL, "{most:?} pulls at once, and {PARALLEL} are allowed");
        ensure!(
            self.proxy.journal().read(super::support::journal::Pages::pulling) == 0,
            "a pull is left in the runtime"
        );
        let seen = self.seen().await?;
        let after = settled(self.agent.pid()).await?;
        let grown = grown(self.before, after)?;
        Ok(Came { seen, grown, recovered })
    }

    /// Ends the looking, and looks through what was logged.
    async fn seen(&mut self) -> Result<Seen> {
        let watcher = self.watcher.take().context("nobody looked")?;
        let seen = watcher.finish().await?;
        let mut log = Seen::default();
        search("the log", &self.agent.log(), &canaries(), &mut log);
        log.done()?;
        ensure!(!self.agent.log().contains("panicked"), "{}", self.agent.log());
        Ok(seen)
    }

    /// Nothing was pulled twice without need, and nothing was tried more often than the back-off allows.
    fn sparing(&self, calls: &[Call]) -> Result<()> {
        // the first one at once, and then none before 10 s have passed
        let tries = usize::try_from(self.began.elapsed().as_secs() / 10)? + 2;
        for image in self.wanted.iter().chain([&self.steady]) {
            let of_it: Vec<_> = calls.iter().filter(|call| call.image == *image).collect();
            let well = of_it.iter().filter(|call| call.outcome() == Some(&Outcome::Answered)).count();
            ensure!(well == 1, "{image} was pulled {well} times: {of_it:#?}");
            let in_vain = of_it.len() - well;
            ensure!(in_vain <= tries, "{image} was tried {in_vain} times in vain: {of_it:#?}");
        }
        Ok(())
    }
}

fn upstream(registry: &Registry, network: &TcpProxy, gate: Gate) -> Upstream {
    match gate {
        Gate::Password | Gate::Tokens => network.upstream(),
        Gate::Tls => Upstream { url: format!("https://{}", network.host()), ..registry.upstream() },
    }
}

/// The password, and what basic authentication makes of it.
pub(crate) fn canaries() -> Vec<String> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    vec![CANARY.to_owned(), BASE64_STANDARD.encode(format!("{USER}:{CANARY}"))]
}

/// A list of images that are never too many at once.
pub(crate) fn list<S: AsRef<str>>(pull_timeout: &str, images: &[S]) -> String {
    // the guard of the disk is another test's: here a disk is to be full
    let limits =
        format!("limits: {{parallelPulls: {PARALLEL}, pullTimeout: {pull_timeout}, maxDiskUsage: 100%}}\nimages:\n");
    images.iter().fold(limits, |list, image| list + "  - \"" + image.as_ref() + "\"\n")
}

/// The same list, with a pin for the first of these images.
pub(crate) fn pinning_first<S: AsRef<str>>(list: &str, images: &[S]) -> String {
    let Some(first) = images.first() else { return list.to_owned() };
    let entry = format!("  - \"{}\"\n", first.as_ref());
    list.replace(&entry, &format!("  - {{image: \"{}\", pin: true}}\n", first.as_ref()))
}

/// What a process needs when nothing happens: the least of some looks.
pub(crate) async fn settled(pid: u32) -> Result<Needs> {
    let mut least = Needs::of(pid)?;
    for _ in 0..5 {
        sleep(Duration::from_millis(100)).await;
        let now = Needs::of(pid)?;
        least = Needs { resident: least.resident.min(now.resident), files: least.files.min(now.files) };
    }
    Ok(least)
}

/// How much more memory is held than before; fails where it, or the number of open files, is not back at its level.
pub(crate) fn grown(before: Needs, after: Needs) -> Result<i64> {
    let grown = i64::try_from(after.resident)? - i64::try_from(before.resident)?;
    ensure!(grown <= MOST_GROWTH, "{} KiB of memory before, {} after", before.resident / 1024, after.resident / 1024);
    ensure!(after.files <= before.files + MORE_FILES, "{} open files before, {} after", before.files, after.files);
    Ok(grown)
}

pub(crate) fn program() -> std::path::PathBuf {
    env!("CARGO_BIN_EXE_prepull").into()
}
