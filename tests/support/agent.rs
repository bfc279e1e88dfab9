//! The real `prepull agent`, as a process of the test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{process, registry::free_port};

/// A running agent with its list. Dropping it kills it.
pub struct Agent {
    process: process::Running,
    port: u16,
    folder: TempDir,
}

/// How an agent is started.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// More flags.
    pub flags: Vec<String>,
    /// More of the environment.
    pub environment: Vec<(String, String)>,
}

impl Agent {
    /// Starts one on a socket with a list; does not wait for anything.
    pub fn start(program: &Path, socket: &Path, list: &str, options: &AgentOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("prepull-agent-").tempdir()?;
        fs::write(folder.path().join("images.yaml"), undisturbed(list))?;
        let path = folder.path().join("images.yaml");
        Self::start_on(program, socket, &path, folder, options)
    }

    /// As [`Agent::start`], with a list that is somewhere else.
    pub fn start_on(
        program: &Path,
        socket: &Path,
        list: &Path,
        folder: TempDir,
        options: &AgentOptions,
    ) -> Result<Self> {
        let mut options = options.clone();
        options.flags.splice(0..0, ["--images".to_owned(), list.display().to_string()]);
        options.environment.insert(0, ("PREPULL_NODE_NAME".to_owned(), "test-node".to_owned()));
        Self::start_without_list(program, socket, folder, &options)
    }

    /// As [`Agent::start`], with no list but what the options name.
    pub fn start_without_list(program: &Path, socket: &Path, folder: TempDir, options: &AgentOptions) -> Result<Self> {
        let port = free_port()?;
        let mut command = process::command(program);
        command.arg("agent").arg("--runtime-endpoint").arg(socket);
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        // nothing on the machine of the test counts
        command.env("PREPULL_KUBELET_ROOT", folder.path()).env("HOME", folder.path());
        command.env("PREPULL_CLOUD_CREDENTIALS", "off").current_dir(folder.path());
        command.args(&options.flags).envs(options.environment.iter().cloned());
        let process = process::Running::start("agent", command, folder.path())?;
        Ok(Self { process, port, folder })
    }

    /// The list's path.
    pub fn list_path(&self) -> PathBuf {
        self.folder.path().join("images.yaml")
    }

    /// The folder of the agent's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the list, as an editor does.
    pub fn edit(&self, list: &str) -> Result<()> {
        let new = self.folder.path().join("images.yaml.new");
        fs::write(&new, undisturbed(list))?;
        fs::rename(new, self.list_path())?;
        Ok(())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The port of its HTTP server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("agent.err")).unwrap_or_default()
    }

    /// Status and body of a page.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        http_get(self.port, path).await
    }

    /// The body of `/api/v1/images`.
    pub async fn status(&self) -> Result<Value> {
        let (code, body) = self.get("/api/v1/images").await?;
        if code != 200 {
            bail!("/api/v1/images answers {code}: {body}");
        }
        Ok(serde_json::from_str(&body)?)
    }

    /// What the status says about one image.
    pub async fn image(&self, image: &str) -> Result<Value> {
        let status = self.status().await?;
        let found = status["images"].as_array().and_then(|all| all.iter().find(|i| i["image"] == image));
        found.cloned().with_context(|| format!("{image} is not in {status}"))
    }

    /// Waits until the status is as wanted, and gives it.
    pub async fn until(&self, patience: Duration, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + patience;
        let mut last = Value::Null;
        while Instant::now() < end {
            if let Ok(status) = self.status().await {
                if is(&status) {
                    return Ok(status);
                }
                last = status;
            }
            sleep(Duration::from_millis(10)).await;
        }
        bail!("waited {patience:?} in vain until {what}; the status is {last:#}\nlog:\n{}", self.log())
    }

    /// Waits until an image is in a state.
    pub async fn until_image(&self, patience: Duration, image: &str, state: &str) -> Result<Value> {
        let find = |status: &Value| {
            status["images"].as_array().and_then(|all| all.iter().find(|i| i["image"] == image)).cloned()
        };
        let what = format!("{image} is {state}");
        let status = self.until(patience, &what, |s| find(s).is_some_and(|i| i["state"] == state)).await?;
        find(&status).context("it was there just now")
    }

    /// Waits until the node is warm.
    pub async fn until_warm(&self, patience: Duration) -> Result<Value> {
        self.until(patience, "the node is warm", |status| status["warm"] == true).await
    }

    /// One number of `/metrics`, by its line up to the value.
    pub async fn metric(&self, series: &str) -> Result<f64> {
        let (_, page) = self.get("/metrics").await?;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.with_context(|| format!("{series} is not on the page"))?.parse().context("no number")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// Kills it at once, and waits until it is gone.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// Sends SIGTERM and tells the status and how long the end took.
    pub async fn terminate(&mut self, patience: Duration) -> Result<(ExitStatus, Duration)> {
        let began = Instant::now();
        let status = self.process.stop(patience).await?;
        Ok((status, began.elapsed()))
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// CPU seconds used so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let after_name = stat.rsplit_once(')').context("no stat")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }
}

/// How full the disk is on which the tests run is no part of a test that does not speak of it. Lines keep their numbers.
pub fn undisturbed(list: &str) -> String {
    // a text that is no list at all stays what it is
    if list.contains("maxDiskUsage") || !list.contains("images:") {
        list.to_owned()
    } else if list.contains("limits: {") {
        list.replacen("limits: {", "limits: {maxDiskUsage: 100%, ", 1)
    } else {
        format!("{list}\nlimits: {{maxDiskUsage: 100%}}\n")
    }
}

/// Status and body of a page on the loopback.
pub async fn http_get(port: u16, path: &str) -> Result<(u16, String)> {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(Duration::from_secs(10), ask).await.context("no answer within 10 s")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let code = head.split_whitespace().nth(1).and_then(|c| c.parse().ok()).context("no status code")?;
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Ok((code, body))
}

fn unchunk(body: &str) -> String {
    let mut out = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        if size == 0 || after.len() < size {
            break;
        }
        out.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    out
}
