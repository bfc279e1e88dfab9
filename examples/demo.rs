//! The main job to watch: a private containerd, three private registries, one of them behind a slow line, and the agent
//! that stocks the one from the others.
//!
//! `cargo run --example demo` goes on until Ctrl-C; with `--once` it ends when every image is where it should be, with
//! status 1 if that does not happen. Everything lives in temporary folders, and goes with the demo. `PREPULL_BIN` names
//! the agent's binary; without it the one that was built beside this example is taken.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is for people to read")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
    containerd::Containerd,
    http,
    images::{Content, Image, Layer},
    parts,
    process::{self, Running, tail},
    registry::{Registry, RegistryKind, free_port},
    sources::{self, docker_config, entry},
    tcp_proxy::TcpProxy,
};

const USER: &str = "demo";
const PASSWORD: &str = "demo-password";
/// Bytes a second of each connection to the slow registry.
const SLOW: u64 = 1 << 20;
/// How many different shares of the slow image must have been shown.
const LEAST_STEPS: usize = 3;
/// Until every image is where it should be.
const PATIENCE: Duration = Duration::from_mins(2);

/// How an image of the demo should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Present,
    Class(&'static str),
}

impl Expected {
    fn is(self, image: &Shown) -> bool {
        match self {
            Self::Present => image.state == "Present",
            Self::Class(class) => image.class == class,
        }
    }
}

/// An image as the agent reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Shown {
    state: String,
    class: String,
    remedy: String,
    credential: String,
    phase: String,
    /// How much of a download is there, in tenths.
    tenths: Option<u64>,
}

impl Shown {
    /// How far it is, what went wrong, or with which credential it went well.
    fn note(&self) -> String {
        match (self.tenths, self.phase.as_str()) {
            (Some(tenths), "downloading") => format!("{} %", tenths * 10),
            (_, phase @ "unpacking") => phase.to_owned(),
            _ if self.credential.is_empty() => self.class.clone(),
            _ => format!("with {}", self.credential),
        }
    }
}

/// Where the images come from and where they go.
struct Stage {
    folder: tempfile::TempDir,
    containerd: Containerd,
    _registries: [Registry; 3],
    _line: TcpProxy,
    images: Vec<(String, Expected)>,
}

impl Stage {
    async fn set() -> Result<Self> {
        let part = parts::ContainerdPart::in_path()?;
        let public = Registry::start(RegistryKind::Plain).await?;
        let private = Registry::start(RegistryKind::htpasswd(USER, PASSWORD)).await?;
        let slow = Registry::start(RegistryKind::Plain).await?;
        let line = TcpProxy::start(&slow.host())?;
        line.change(|line| line.bytes_per_second = Some(SLOW));
        let containerd = Containerd::start(&part, &[&public, &private]).await?;
        containerd.route(line.host(), &line.upstream())?;
        let images = fill(&public, &private, (&slow, &line)).await?;
        let folder = tempfile::Builder::new().prefix("prepull-demo-").tempdir()?;
        let list: String = images.iter().fold(LIST.to_owned(), |mut list, (image, _)| {
            // writing to a string cannot fail
            let _ = writeln!(list, "  - {image}");
            list
        });
        fs::write(folder.path().join("images.yaml"), list)?;
        let login = docker_config(&private.host(), &entry(USER, PASSWORD));
        fs::write(folder.path().join("secret.yaml"), sources::secret_yaml("acme-registry", &login))?;
        println!("containerd {} on {}", part.version, containerd.socket().display());
        println!(
            "registries {} (for anybody), {} (with a password) and {} (slow)",
            public.host(),
            private.host(),
            line.host()
        );
        Ok(Self { folder, containerd, _registries: [public, private, slow], _line: line, images })
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("images.yaml")
    }

    /// The pull secret of the private registry.
    fn secret(&self) -> PathBuf {
        self.folder.path().join("secret.yaml")
    }

    /// What the command says about the image behind the password: who would be tried, and where that comes from.
    /// The image behind the password.
    fn private(&self) -> &str {
        self.images.last().map_or("", |(image, _)| image)
    }

    fn explain(&self, binary: &Path) -> Result<String> {
        let image = self.private();
        let mut command = sources::prepull(binary, self.folder.path());
        command.arg("explain").arg(image).arg("--pull-secret").arg("secret.yaml");
        let output = command.output().context("prepull cannot be started")?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(text.contains("pull-secret team/acme-registry"), "explain names no source: {text}");
        Ok(text)
    }
}

/// A handful of images of a few megabytes, some of which share a base; the one behind the password is the last.
async fn fill(
    public: &Registry,
    private: &Registry,
    (slow, line): (&Registry, &TcpProxy),
) -> Result<Vec<(String, Expected)>> {
    let base = Layer::new(1, 8 << 20, Content::Random)?;
    let image = |name: &str, seed| -> Result<Image> {
        Ok(Image::new(name, &[base.clone(), Layer::new(seed, 2 << 20, Content::Random)?]))
    };
    let mut images = Vec::new();
    for (name, seed) in [("shop/web:1.4", 2), ("shop/worker:1", 3), ("shop/worker:2", 4)] {
        images.push((public.push(name, &image(name, seed)?).await?.by_tag, Expected::Present));
    }
    images.push((public.image("shop/retired:1"), Expected::Class("NotFound")));
    let large =
        Image::new("large", &[Layer::new(6, 8 << 20, Content::Random)?, Layer::new(7, 6 << 20, Content::Random)?]);
    slow.push("media/encoder:7", &large).await?;
    images.push((format!("{}/media/encoder:7", line.host()), Expected::Present));
    let model = private.push("acme/model-server:v3", &image("model", 5)?).await?;
    images.push((model.by_tag, Expected::Present));
    Ok(images)
}

/// The agent at work.
struct Agent {
    process: Running,
    address: String,
    log: PathBuf,
}

impl Agent {
    fn start(binary: &Path, stage: &Stage) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = process::command(binary);
        command
            .arg("agent")
            .arg("--images")
            .arg(stage.list())
            .arg("--runtime-endpoint")
            .arg(stage.containerd.socket())
            .arg("--pull-secret")
            .arg(stage.secret())
            .args(["--listen", &address]);
        let process = Running::start("agent", command, stage.folder.path())?;
        Ok(Self { process, address, log: stage.folder.path().join("agent.err") })
    }

    /// The images as the agent reports them; an error until it answers.
    async fn images(&self) -> Result<BTreeMap<String, Shown>> {
        let answer = http::get(&self.address, "/api/v1/images").await?;
        ensure!(answer.status == 200, "the agent answers {}: {}", answer.status, answer.text());
        let report: Value = serde_json::from_slice(&answer.body).context("the agent's report is not JSON")?;
        let text = |image: &Value, field: &str| image[field].as_str().unwrap_or_default().to_owned();
        let images = report["images"].as_array().context("the agent's report has no images")?;
        Ok(images
            .iter()
            .map(|image| {
                let shown = Shown {
                    state: text(image, "state"),
                    class: text(image, "class"),
                    remedy: text(image, "remedy"),
                    credential: text(image, "credential"),
                    phase: text(image, "phase"),
                    tenths: image["downloadedBytes"]
                        .as_u64()
                        .zip(image["totalBytes"].as_u64())
                        .map(|(done, total)| done * 10 / total.max(1)),
                };
                (text(image, "image"), shown)
            })
            .collect())
    }

    /// Prints what changes until every image is where it should be.
    async fn follow(&mut self, expected: &[(String, Expected)]) -> Result<BTreeMap<String, Shown>> {
        let mut last: BTreeMap<String, Shown> = BTreeMap::new();
        let mut steps = BTreeSet::new();
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.ended() {
                bail!("the agent ended with {status}:\n{}", tail(&self.log));
            }
            let now = self.images().await;
            if let Ok(now) = &now {
                for (image, shown) in now {
                    let slow = image.contains("/media/") && shown.phase == "downloading";
                    steps.extend(shown.tenths.filter(|_| slow));
                    if last.get(image) != Some(shown) {
                        println!("{:<12} {image} {}", shown.state, shown.note());
                    }
                }
                last.clone_from(now);
            }
            if expected.iter().all(|(image, expected)| last.get(image).is_some_and(|shown| expected.is(shown))) {
                ensure!(steps.len() >= LEAST_STEPS, "no bar moved: only {steps:?} tenths were shown");
                return Ok(last);
            }
            if Instant::now() > end {
                let why = now.err().map_or_else(String::new, |error| format!(" ({error:#})"));
                bail!("not every image is where it should be after {PATIENCE:?}{why}:\n{}", tail(&self.log));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn binary() -> Result<PathBuf> {
    if let Some(given) = env::var_os("PREPULL_BIN") {
        return Ok(given.into());
    }
    // an example lies one folder below the binaries
    let own = env::current_exe()?;
    let beside = own.parent().and_then(Path::parent).map(|folder| folder.join("prepull"));
    beside.filter(|file| file.is_file()).context("there is no prepull beside this example: run cargo build first")
}

fn summary(images: &[(String, Expected)], shown: &BTreeMap<String, Shown>) {
    println!("\n{:<44} {:<10} {:<36} REMEDY", "IMAGE", "STATE", "CLASS OR CREDENTIAL");
    for (image, _) in images {
        let Some(shown) = shown.get(image) else { continue };
        println!("{image:<44} {:<10} {:<36} {}", shown.state, shown.note(), shown.remedy);
    }
}

async fn run(once: bool) -> Result<()> {
    let binary = binary()?;
    let stage = Stage::set().await?;
    println!("list       {}", stage.list().display());
    let mut agent = Agent::start(&binary, &stage)?;
    println!("agent      http://{0}/ and http://{0}/api/v1/images\n", agent.address);
    let shown = agent.follow(&stage.images).await?;
    summary(&stage.images, &shown);
    let (secret, private) = (stage.secret(), stage.private());
    println!("\n$ prepull explain --pull-secret {} {private}\n{}", secret.display(), stage.explain(&binary)?);
    if !once {
        println!("\nEdit the list and watch; Ctrl-C ends the demo and removes all of it.");
        std::future::pending::<()>().await;
    }
    let status = agent.process.stop(Duration::from_secs(5)).await?;
    ensure!(status.success(), "the agent ended with {status}");
    Ok(())
}

/// How the list begins. The demo's images are small, and how full this machine's disk is does not matter to them.
const LIST: &str = "limits: {maxDiskUsage: 100%}\nimages:\n";

/// Ctrl-C, or a polite kill.
async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = tokio::signal::ctrl_c() => ended?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let once = env::args().skip(1).any(|argument| argument == "--once");
    let result = tokio::select! {
        result = run(once) => result,
        // what runs is dropped here, and so ended and removed
        interrupted = interrupted() => interrupted,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}
