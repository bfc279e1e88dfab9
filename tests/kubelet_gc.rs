//! The real kubelet's garbage collector under disk pressure: it takes what is not pinned, and leaves what is.
//!
//! | variable | meaning |
//! |---|---|
//! | `PREPULL_TEST_CLUSTER` | the script that starts a cluster, as for the tests of `cluster`; `IMAGE_FS` gives its nodes small image filesystems, `KUBELET_CONF` their kubelets settings |
//!
//! The agents run beside the nodes, on their sockets: what is tried here is between kubelet and containerd.
#![allow(clippy::print_stderr, reason = "a test says what it leaves behind")]

mod support;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Arguments;
use support::{
    agent::{Agent, AgentOptions},
    cri::Client,
    images::{Content, Image, Layer},
    parts::Missing,
    push::Pusher,
    trials::trial,
};
use tokio::time::{Instant, sleep};

/// The kubelet measures every ten seconds, and acts in the round after.
const PATIENCE: Duration = Duration::from_mins(3);
/// Where the cluster's registry is for its nodes.
const REGISTRY: &str = "127.0.0.1:5000";
/// On disk it is twice this: as a blob, and unpacked.
const IMAGE_BYTES: usize = 30 << 20;
/// Pressure from 240 MB on.
const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nimageMinimumGCAge: 5s\nevictionPressureTransitionPeriod: 10s\nevictionHard: {memory.available: 1Mi, nodefs.available: 0%, imagefs.available: 40%}\n";

fn main() -> ExitCode {
    let trials = vec![trial("kubelet::disk_pressure_takes_what_is_not_pinned", script(), collects)];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn script() -> Result<PathBuf, Missing> {
    let script = env::var_os("PREPULL_TEST_CLUSTER").map(PathBuf::from).filter(|file| file.is_file());
    script.ok_or_else(|| Missing {
        part: "cluster".to_owned(),
        sentence: "no cluster can be started: set PREPULL_TEST_CLUSTER to the script that starts one (up DIR NODES)"
            .to_owned(),
    })
}

/// A cluster of two nodes, with containerd 2.1 and 1.7. Dropping it ends it.
struct Cluster {
    script: PathBuf,
    dir: PathBuf,
}

impl Cluster {
    fn start(script: PathBuf) -> Result<Self> {
        // a short path, because sockets lie in it; a fixed one, so that what an interrupted run left is ended
        let cluster = Self { script, dir: env::temp_dir().join("prepull-cluster") };
        cluster.run("down", &[])?;
        if cluster.dir.exists() {
            fs::remove_dir_all(&cluster.dir).context("an earlier cluster's folder cannot be removed")?;
        }
        fs::create_dir_all(cluster.settings())?;
        fs::write(cluster.settings().join("10-pressure.conf"), KUBELET)?;
        cluster.run("up", &["2"])?;
        Ok(cluster)
    }

    fn settings(&self) -> PathBuf {
        self.dir.join("kubelet-settings")
    }

    fn run(&self, command: &str, more: &[&str]) -> Result<()> {
        let log = env::temp_dir().join("prepull-cluster.log");
        let file = fs::File::create(&log)?;
        // what it starts would keep a pipe open for ever
        let status = Command::new(&self.script)
            .arg(command)
            .arg(&self.dir)
            .args(more)
            .env("CONTAINERD", "2.1 1.7")
            .env("IMAGE_FS", "400M")
            .env("KUBELET_CONF", self.settings())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()?;
        ensure!(status.success(), "{} {command}: {}", self.script.display(), fs::read_to_string(&log)?);
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.run("down", &[]) {
            eprintln!("the cluster of the test is still up: {error:?}");
        }
    }
}

async fn collects(script: PathBuf) -> Result<()> {
    let cluster = Cluster::start(script)?;
    let pusher = Pusher::new(REGISTRY.to_owned(), None);
    let names: Vec<_> = ["pinned", "loose", "one", "two", "three"].iter().map(|name| format!("gc/{name}")).collect();
    for (seed, name) in (1..).zip(&names) {
        let image = Image::new(name, &[Layer::new(seed, IMAGE_BYTES, Content::Random)?]);
        pusher.push(name, "1", &image).await?;
    }
    let images: Vec<_> = names.iter().map(|name| format!("{REGISTRY}/{name}:1")).collect();
    let on = |node: &str| cluster.dir.join(node).join("run/containerd.sock");
    let (newer, older) = (on("node1"), on("node2"));
    let (newer, older) = tokio::join!(under_pressure(&newer, &images), under_pressure(&older, &images));
    newer.context("containerd 2.1")?;
    older.context("containerd 1.7")
}

/// One node, from enough space to pressure, once with the image pinned and once without.
async fn under_pressure(socket: &Path, images: &[String]) -> Result<()> {
    let [pinned, loose, fillers @ ..] = images else { unreachable!("five images were pushed") };
    let client = Client::ready(socket, PATIENCE).await?;
    client.pull(loose).await?;
    let list = |pin: bool| {
        format!("images:\n- {{image: '{pinned}', pin: {pin}}}\n- {{image: '{loose}', imagePullPolicy: Never}}\n")
    };
    let options = AgentOptions { flags: vec!["--resync".to_owned(), "1s".to_owned()], ..AgentOptions::default() };
    let agent = Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), socket, &list(true), &options)?;
    agent
        .until(PATIENCE, "one is pinned, both are there", |s| s["warm"] == true && s["images"][0]["pinned"] == true)
        .await?;

    fill_until_gone(&client, fillers, loose).await?;
    agent.until_image(PATIENCE, loose, "Missing").await?;
    let row = agent.image(pinned).await?;
    ensure!(row["state"] == "Present" && row["pinned"] == true, "{row:#}");
    let pulls = agent.log().matches("image is being pulled").count();
    ensure!(pulls == 1, "the pinned image was pulled {pulls} times:\n{}", agent.log());

    // the same without a pin; an agent that is gone pulls nothing again
    agent.edit(&list(false))?;
    agent.until(PATIENCE, "nothing is pinned", |s| s["images"][0]["pinned"] == false).await?;
    drop(agent);
    fill_until_gone(&client, fillers, pinned).await.context("the image is no longer pinned")
}

/// Brings about pressure, again where the kubelet was quick and collected what makes it, until an image was collected.
async fn fill_until_gone(client: &Client, fillers: &[String], image: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while client.status(image).await?.is_some() {
        ensure!(Instant::now() < end, "the kubelet does not collect {image}");
        for filler in fillers {
            client.pull(filler).await.with_context(|| format!("{filler} cannot be pulled"))?;
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
