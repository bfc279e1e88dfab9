//! Something to see on the dashboard: six agents, each on a containerd of its own, slow lines to two registries, and some twenty minutes
//! in which lists are edited, nodes come and a registry goes away. A Prometheus scrapes them and evaluates the rules.
//!
//! `cargo run --example scene` prints where Prometheus is and what happens, and goes on until Ctrl-C. With a command behind
//! it, it runs that at the end, with Prometheus' address in the place of `{}`, and ends: so `make picture` draws
//! docs/images/dashboard.png. `PREPULL_BIN` names the agent's binary; without it the one that was built beside this example
//! is taken.
#![allow(clippy::print_stdout, reason = "this is for people to read")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::{signal::ctrl_c, time::sleep};

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
    agent::{Agent, AgentOptions},
    containerd::Containerd,
    images::{Content, Image, Layer},
    monitoring,
    parts::{self, ContainerdPart},
    process::{self, Running},
    registry::{Registry, RegistryKind, Upstream, free_port},
    tcp_proxy::TcpProxy,
};

const MINUTE: Duration = Duration::from_mins(1);
/// Names that lead nowhere but where each containerd is told.
const SHOP: &str = "registry.test";
const MODELS: &str = "models.test";

/// A node: its runtime, its lines, and its agent.
struct Node {
    name: String,
    containerd: Containerd,
    shop: TcpProxy,
    models: Option<TcpProxy>,
    agent: Agent,
}

impl Node {
    async fn start(number: usize, part: &ContainerdPart, registry: &Registry, list: &str) -> Result<Self> {
        let containerd = Containerd::start(part, &[]).await?;
        let (shop, models) = (TcpProxy::start(&registry.host())?, TcpProxy::start(&registry.host())?);
        // one node is behind a slower line than the others
        let speed = if number == 3 { 150_000 } else { 400_000 + 60_000 * number as u64 };
        shop.change(|line| line.bytes_per_second = Some(speed));
        models.change(|line| line.bytes_per_second = Some(speed * 2));
        containerd.route(SHOP, &Upstream::http(shop.host()))?;
        containerd.route(MODELS, &Upstream::http(models.host()))?;
        let name = format!("node{number}");
        let options = AgentOptions {
            environment: vec![
                ("PREPULL_NODE_NAME".to_owned(), name.clone()),
                ("PREPULL_RESYNC".to_owned(), "20s".to_owned()),
            ],
            ..AgentOptions::default()
        };
        let agent = Agent::start(&binary()?, &containerd.socket(), list, &options)?;
        println!("{name} is there, on containerd {}", part.version);
        Ok(Self { name, containerd, shop, models: Some(models), agent })
    }
}

fn binary() -> Result<PathBuf> {
    let beside = env::current_exe()?.parent().and_then(Path::parent).context("no folder")?.join("prepull");
    let binary = env::var_os("PREPULL_BIN").map_or(beside, PathBuf::from);
    ensure!(binary.is_file(), "{} is not there: cargo build, or set PREPULL_BIN", binary.display());
    Ok(binary)
}

fn list(images: &[String]) -> String {
    json!({"limits": {"parallelPulls": 2, "spread": "20s"}, "images": images}).to_string()
}

/// Prometheus, which finds its targets in a file that grows.
struct Prometheus {
    _process: Running,
    folder: tempfile::TempDir,
    address: String,
}

impl Prometheus {
    fn start() -> Result<Self> {
        let (_, program) = monitoring::prometheus()?;
        let folder = tempfile::Builder::new().prefix("prepull-scene-").tempdir()?;
        let file = |name: &str| folder.path().join(name);
        fs::write(file("rules.yaml"), monitoring::groups()?.to_string())?;
        fs::write(file("targets.json"), "[]")?;
        let config = json!({
            "global": {"scrape_interval": "5s", "evaluation_interval": "15s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "prepull", "file_sd_configs": [{"files": ["targets.json"]}]}],
        });
        fs::write(file("prometheus.yaml"), config.to_string())?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = process::command(&program);
        command
            .arg(format!("--config.file={}", file("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", file("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = Running::start("prometheus", command, folder.path())?;
        println!("prometheus http://{address}/");
        Ok(Self { _process: process, folder, address })
    }

    /// The labels are those of a PodMonitor.
    fn scrape(&self, nodes: &[Node]) -> Result<()> {
        let targets: Vec<_> = nodes
            .iter()
            .map(|node| {
                let labels =
                    json!({"node": node.name, "namespace": "prepull", "pod": format!("prepull-{}", node.name)});
                json!({"targets": [format!("127.0.0.1:{}", node.agent.port())], "labels": labels})
            })
            .collect();
        let new = self.folder.path().join("new");
        fs::write(&new, json!(targets).to_string())?;
        Ok(fs::rename(new, self.folder.path().join("targets.json"))?)
    }
}

/// An image of so many megabytes.
async fn pushed(registry: &Registry, host: &str, name: &str, megabytes: usize) -> Result<String> {
    let layers = [
        Layer::new(name.len() as u64, megabytes << 18, Content::Random)?,
        Layer::new(name.len() as u64 + 100, (megabytes * 3) << 18, Content::Random)?,
    ];
    registry.push(name, &Image::new(name, &layers)).await?;
    Ok(format!("{host}/{name}"))
}

fn edit(nodes: &[Node], images: &[String], why: &str) -> Result<()> {
    println!("{why}");
    nodes.iter().try_for_each(|node| node.agent.edit(&list(images)))
}

async fn play(nodes: &mut Vec<Node>, prometheus: &Prometheus, registry: &Registry) -> Result<()> {
    let parts: Vec<_> = parts::containerds().into_iter().flatten().collect();
    ensure!(!parts.is_empty(), "there is no containerd here: run hack/install-parts");
    let mut images = Vec::new();
    for (host, name, megabytes) in [
        (SHOP, "shop/web:1.4", 8),
        (SHOP, "shop/api:7", 24),
        (SHOP, "shop/worker:2", 40),
        (MODELS, "acme/llm-8b:v1", 110),
    ] {
        images.push(pushed(registry, host, name, megabytes).await?);
    }
    for number in 1..=4 {
        nodes.push(Node::start(number, &parts[number % parts.len()], registry, &list(&images)).await?);
        prometheus.scrape(nodes)?;
        sleep(MINUTE / 6).await;
    }
    sleep(MINUTE * 2).await;
    // with the mistake that everybody makes once
    images.push(format!("{SHOP}/shop/wbe:1.5"));
    images.push(pushed(registry, SHOP, "shop/search:12", 30).await?);
    edit(nodes, &images, "two more images, one of them misspelt")?;
    sleep(MINUTE * 2).await;
    for number in 5..=6 {
        nodes.push(Node::start(number, &parts[number % parts.len()], registry, &list(&images)).await?);
        prometheus.scrape(nodes)?;
    }
    sleep(MINUTE * 3).await;
    images.push(pushed(registry, MODELS, "acme/llm-8b-chat:v2", 60).await?);
    for node in nodes.iter_mut().skip(1) {
        node.models = None;
    }
    edit(nodes, &images, "a new model, and its registry does not answer five of six nodes")?;
    sleep(MINUTE * 5).await;
    for node in nodes.iter_mut().filter(|node| node.models.is_none()).take(4) {
        let line = TcpProxy::start(&registry.host())?;
        line.change(|line| line.bytes_per_second = Some(900_000));
        node.containerd.route(MODELS, &Upstream::http(line.host()))?;
        node.models = Some(line);
    }
    println!("it answers all but one again");
    sleep(MINUTE * 7).await;
    images.retain(|image| !image.contains("wbe"));
    edit(nodes, &images, "the misspelt image is taken out")?;
    sleep(MINUTE * 3).await;
    let slow = nodes.iter().find(|node| node.name == "node3").map_or(0, |node| node.shop.traffic().down);
    println!("that is all; {slow} bytes went over the slow line");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let prometheus = Prometheus::start()?;
    let mut nodes = Vec::new();
    tokio::select! {
        played = play(&mut nodes, &prometheus, &registry) => played?,
        _ = ctrl_c() => return Ok(()),
    }
    let url = format!("http://{}", prometheus.address);
    let mut command = env::args().skip(1).map(|word| if word == "{}" { url.clone() } else { word });
    let Some(program) = command.next() else {
        println!("{url} stays until Ctrl-C");
        return Ok(ctrl_c().await?);
    };
    let status =
        Command::new(&program).args(command).status().with_context(|| format!("{program} cannot be started"))?;
    ensure!(status.success(), "{program}: {status}");
    Ok(())
}
