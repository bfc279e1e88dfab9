//! A containerd of the test's own: its folder, socket and images are nobody else's.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Status;

use super::{
    cri::Client,
    parts::{self, ContainerdPart},
    process::{Running, tail},
    registry::{Registry, Upstream},
};

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_mins(1);

/// What a test may want to be different from a plain start.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Keeps the images on a file system of this many bytes.
    pub disk: Option<u64>,
    /// That file system is ext4 on a loop device, as on a node, and not in memory.
    pub ext4: bool,
    /// containerd gives a pull up when it moved nothing for this long.
    pub progress_timeout: Option<Duration>,
    /// A folder of programs that it finds before the system's.
    pub programs: Option<PathBuf>,
    /// Environment variables of the daemon.
    pub environment: Vec<(&'static str, String)>,
    /// The snapshotter that its configuration names, and the socket that is configured for it.
    pub snapshotter: Option<(&'static str, &'static str)>,
}

/// A running containerd. Dropping it kills it and removes all that it stored.
pub struct Containerd {
    part: ContainerdPart,
    process: Option<Running>,
    client: Client,
    programs: Option<PathBuf>,
    environment: Vec<(&'static str, String)>,
    // last, so that it is removed when nothing uses it any more
    folder: TempDir,
}

impl Containerd {
    /// Starts one that knows how to reach `registries`, and waits until it answers.
    pub async fn start(part: &ContainerdPart, registries: &[&Registry]) -> Result<Self> {
        Self::start_with(part, registries, Options::default()).await
    }

    /// As [`Containerd::start`], with options.
    pub async fn start_with(part: &ContainerdPart, registries: &[&Registry], options: Options) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("prepull-containerd-").tempdir()?;
        let root = folder.path().join("root");
        for name in ["root", "certs.d", "cni", "tmp", "opt"] {
            fs::create_dir(folder.path().join(name))?;
        }
        fs::write(folder.path().join("config.toml"), config(part, folder.path(), &options)?)?;
        let client = Client::lazy(&socket_in(folder.path()))?;
        let Options { programs, environment, .. } = options;
        let mut containerd = Self { part: part.clone(), process: None, client, programs, environment, folder };
        if let Some(size) = options.disk {
            // unmounted by the value that exists by now, whatever comes next
            if options.ext4 { loop_disk(&root, size)? } else { small_disk(&root, size)? }
        }
        for registry in registries {
            containerd.route(&registry.host(), &registry.upstream())?;
        }
        containerd.start_again().await?;
        Ok(containerd)
    }

    /// Makes containerd reach `host`, as it stands in image names, at `upstream`. Takes effect with the next pull.
    ///
    /// After a failure there containerd may try `host` itself, so a name that leads nowhere (`registry.test`) keeps a
    /// test on this machine.
    pub fn route(&self, host: &str, upstream: &Upstream) -> Result<()> {
        let folder = self.folder.path().join("certs.d").join(host);
        fs::create_dir_all(&folder)?;
        let mut security = String::new();
        if let Some(ca) = &upstream.ca {
            writeln!(security, "ca = {}", quoted(ca))?;
        }
        if upstream.skip_verify {
            writeln!(security, "skip_verify = true")?;
        }
        let url = &upstream.url;
        // `server` alone makes one request where a section makes two after a failure, but only plain HTTP on the very
        // same host is reached so on 1.6 and 2.1; 1.7 does not follow it at all
        let text = if *url == format!("http://{host}") && self.part.generation != "1.7" {
            format!("server = \"{url}\"\n")
        } else {
            format!("server = \"{url}\"\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n{security}")
        };
        fs::write(folder.join("hosts.toml"), text)?;
        Ok(())
    }

    /// The part that runs.
    pub fn part(&self) -> &ContainerdPart {
        &self.part
    }

    /// The CRI socket.
    pub fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }

    /// The folder of everything that is this containerd's own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client of the CRI socket.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Process id of the daemon while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Running::pid)
    }

    /// Kills it at once, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Ends it as a service manager would.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Duration::from_secs(20)).await?;
        }
        Ok(())
    }

    /// Starts it on the same folder, ending it first if it runs, and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Starts it after [`Containerd::kill`] or [`Containerd::stop`] without waiting for an answer.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "{} runs already", self.part.name());
        let mut command = parts::watched(&self.part);
        // what it starts and mounts stays out of the system's folders
        command
            .arg("--config")
            .arg(self.folder.path().join("config.toml"))
            .env("TMPDIR", self.folder.path().join("tmp"))
            .env_remove("NOTIFY_SOCKET")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(programs) = &self.programs {
            let path = self.part.path();
            command
                .env("PATH", std::env::join_paths([programs.clone()].into_iter().chain(std::env::split_paths(&path)))?);
        }
        self.process = Some(Running::start("containerd", command, self.folder.path())?);
        Ok(())
    }

    async fn start_again(&mut self) -> Result<()> {
        self.launch()?;
        self.client = Client::ready(&self.socket(), START)
            .await
            .with_context(|| format!("{} did not start; its log ends:\n{}", self.part.name(), self.log_tail()))?;
        Ok(())
    }

    /// Stops it in its tracks: connections stay open and nothing answers.
    pub async fn pause(&self) -> Result<()> {
        let process = self.process.as_ref().context("containerd does not run")?;
        process.signal(Signal::STOP)?;
        // the signal reaches one thread after the other, and each of them could still answer
        let end = Instant::now() + START;
        while !is_stopped(process.pid())? {
            ensure!(Instant::now() < end, "containerd does not stop");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.process.as_ref().context("containerd does not run")?.signal(Signal::CONT)
    }

    /// Names of all images in the store: tags and digests, sorted.
    pub async fn images(&self) -> Result<Vec<String>, Status> {
        let images = self.client.list().await?;
        let mut names: Vec<_> =
            images.into_iter().flat_map(|i| i.repo_tags.into_iter().chain(i.repo_digests)).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Pulls past the agent.
    pub async fn pull(&self, image: &str) -> Result<String, Status> {
        self.client.pull(image).await
    }

    /// Removes an image behind the agent's back.
    pub async fn remove(&self, image: &str) -> Result<(), Status> {
        self.client.remove(image).await
    }

    /// Runs `ctr` in the namespace that CRI uses, and returns what it printed.
    pub async fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let output = tokio::process::Command::new(self.part.ctr())
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments)
            .output()
            .await
            .context("ctr cannot be started")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctr {} failed: {}", arguments.join(" "), error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.folder.path().join("containerd.err"))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.process = None;
        unmount_below(self.folder.path());
    }
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("containerd.sock")
}

/// Whether every thread of a process is stopped.
fn is_stopped(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // a thread may end in the meantime
        let stat = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
        // the name before the state is in brackets, and may have brackets itself
        let state = stat.rsplit_once(") ").map_or("T", |(_, state)| state);
        if !state.starts_with('T') {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a killed containerd left mounted, and its small disk: innermost first.
fn unmount_below(folder: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(folder))
        .collect();
    points.sort_unstable();
    for point in points.into_iter().rev() {
        // nothing can be done about a mount that stays, and a test's own failure matters more
        let _ = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A file system in memory, so that it is small and needs no loop device.
fn small_disk(root: &Path, size: u64) -> Result<()> {
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "prepull-test"])
        .arg(root)
        .status()
        .context("mount cannot be started")?;
    ensure!(status.success(), "a small file system cannot be mounted on {}", root.display());
    Ok(())
}

/// A file with ext4 in it, beside the folder it is mounted on.
fn loop_disk(root: &Path, size: u64) -> Result<()> {
    let file = root.with_extension("ext4");
    fs::File::create(&file)?.set_len(size)?;
    for (program, arguments) in [("mkfs.ext4", &["-q", "-F", "-m", "0"][..]), ("mount", &["-o", "loop"][..])] {
        let path = parts::find(program)
            .with_context(|| format!("there is no {program}: install the packages e2fsprogs and mount"))?;
        let mut command = Command::new(path);
        command.args(arguments).arg(&file);
        if program == "mount" {
            command.arg(root);
        }
        let output = command.output().with_context(|| format!("{program} cannot be started"))?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program} failed for {}: {}", file.display(), error.trim());
    }
    Ok(())
}

/// Everything that pulling does not need is off: it saves time, and none of it can touch the machine's own containerd.
fn config(part: &ContainerdPart, folder: &Path, options: &Options) -> Result<String> {
    let path = |name: &str| quoted(&folder.join(name));
    let mut text = String::new();
    writeln!(text, "version = {}", part.config_version())?;
    writeln!(text, "root = {}\nstate = {}", path("root"), path("state"))?;
    writeln!(
        text,
        "disabled_plugins = [{}]",
        [
            "io.containerd.snapshotter.v1.aufs",
            "io.containerd.snapshotter.v1.blockfile",
            "io.containerd.snapshotter.v1.btrfs",
            "io.containerd.snapshotter.v1.devmapper",
            "io.containerd.snapshotter.v1.erofs",
            "io.containerd.snapshotter.v1.zfs",
            "io.containerd.tracing.processor.v1.otlp",
            "io.containerd.internal.v1.tracing",
            "io.containerd.nri.v1.nri",
        ]
        .map(|plugin| format!("\"{plugin}\""))
        .join(", ")
    )?;
    writeln!(text, "[grpc]\naddress = {}", quoted(&socket_in(folder)))?;
    writeln!(text, "[ttrpc]\naddress = {}", path("ttrpc.sock"))?;
    writeln!(text, "[debug]\naddress = {}", path("debug.sock"))?;
    writeln!(text, "[plugins.\"io.containerd.internal.v1.opt\"]\npath = {}", path("opt"))?;
    let (images, runtime) = if part.config_version() == 2 {
        ("io.containerd.grpc.v1.cri", "io.containerd.grpc.v1.cri")
    } else {
        ("io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime")
    };
    if options.progress_timeout.is_some() || options.snapshotter.is_some() {
        writeln!(text, "[plugins.\"{images}\"]")?;
    }
    if let Some(timeout) = options.progress_timeout {
        writeln!(text, "image_pull_progress_timeout = \"{}ms\"", timeout.as_millis())?;
    }
    if let Some((name, socket)) = options.snapshotter {
        if part.config_version() == 2 {
            writeln!(text, "[plugins.\"{images}\".containerd]")?;
        }
        writeln!(text, "snapshotter = \"{name}\"")?;
        writeln!(text, "[proxy_plugins.{name}]\ntype = \"snapshot\"\naddress = \"{socket}\"")?;
    }
    writeln!(text, "[plugins.\"{images}\".registry]\nconfig_path = {}", path("certs.d"))?;
    writeln!(text, "[plugins.\"{runtime}\".cni]\nbin_dir = {0}\nconf_dir = {0}", path("cni"))?;
    Ok(text)
}

/// Paths come from `TMPDIR`, which may hold anything.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
