//! The cluster of these trials, and what they ask of it.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::{Instant, sleep},
};

use crate::{
    image,
    parts::{ClusterPart, Kubectl},
    render::Overlay,
    support::{cri, http},
};

/// Long enough for a busy machine, and never waited for in full when all is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The nodes, with containerd 2.1, 1.7 and 1.6.
pub(crate) const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// The registry of the cluster, from which all nodes pull.
pub(crate) const REGISTRY: &str = "127.0.0.1:5000";

static CLUSTER: OnceLock<Result<Kube, String>> = OnceLock::new();

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Kube {
    part: ClusterPart,
    dir: PathBuf,
    /// Started by these tests, so ended by them.
    own: bool,
    installed: Mutex<Option<Overlay>>,
}

/// The cluster, started by the first trial that needs it, with the agent's image in its registry.
pub(crate) fn up(part: &ClusterPart) -> Result<&'static Kube> {
    CLUSTER
        .get_or_init(|| Kube::start(part).map_err(|error| format!("{error:?}")))
        .as_ref()
        .map_err(|text| anyhow!(text.clone()))
}

/// Ends the cluster if these tests started it.
pub(crate) fn down() {
    if let Some(Ok(kube)) = CLUSTER.get()
        && kube.own
        && let Err(error) = kube.script(&["down"], &[])
    {
        eprintln!("the cluster of the tests is still up: {error:?}");
    }
}

/// Runs a program and gives its output; what it said on stderr is in the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(out.status.success(), "{command:?}: {}\n{text}{}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok(text)
}

impl Kube {
    fn start(part: &ClusterPart) -> Result<Self> {
        let given = env::var_os("PREPULL_TEST_CLUSTER_DIR").map(PathBuf::from);
        let own = given.is_none();
        // a short path, because sockets lie in it; a fixed one, so that what an interrupted run left is ended
        let dir = given.unwrap_or_else(|| env::temp_dir().join("prepull-cluster"));
        let kube = Self { part: part.clone(), dir, own, installed: Mutex::new(None) };
        if own {
            kube.script(&["down"], &[])?;
            if kube.dir.exists() {
                fs::remove_dir_all(&kube.dir).context("an earlier cluster's folder cannot be removed")?;
            }
            kube.script(&["up"], &["3"])?;
        }
        image::push(&kube.part.script, &kube.dir, REGISTRY)?;
        Ok(kube)
    }

    fn script(&self, command: &[&str], more: &[&str]) -> Result<()> {
        let log = env::temp_dir().join("prepull-cluster.log");
        let file = fs::File::create(&log)?;
        // what it starts would keep a pipe open for ever
        let status = Command::new(&self.part.script)
            .args(command)
            .arg(&self.dir)
            .args(more)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()?;
        ensure!(status.success(), "{} {command:?}: {}", self.part.script.display(), fs::read_to_string(&log)?);
        Ok(())
    }

    /// The overlay that is installed, for as long as the answer is held.
    pub(crate) async fn installed(&self) -> MutexGuard<'_, Option<Overlay>> {
        self.installed.lock().await
    }

    /// The program that talks to it.
    pub(crate) fn kubectl_part(&self) -> &Kubectl {
        &self.part.kubectl
    }

    /// Where it keeps everything.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the API server away.
    pub(crate) fn api_down(&self) -> Result<()> {
        self.script(&["api-down"], &[])
    }

    /// Brings it back, and waits until it answers.
    pub(crate) fn api_up(&self) -> Result<()> {
        self.script(&["api-up"], &[])
    }

    /// Ends a node's containerd and starts it again; its containers go on.
    pub(crate) fn restart_runtime(&self, node: &str) -> Result<()> {
        let number = node.trim_start_matches("node");
        self.script(&["runtime-down"], &[number])?;
        self.script(&["runtime-up"], &[number])
    }

    /// The administrator's access.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.part.kubectl.0);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// `kubectl` with arguments separated by blanks.
    pub(crate) fn kubectl(&self, arguments: &str) -> Result<String> {
        run(self.command().args(arguments.split_whitespace()))
    }

    /// `kubectl` with one more argument, which may hold blanks.
    pub(crate) fn kubectl_with(&self, arguments: &str, last: &str) -> Result<String> {
        run(self.command().args(arguments.split_whitespace()).arg(last))
    }

    /// `kubectl` with a file on its standard input.
    pub(crate) fn kubectl_stdin(&self, arguments: &str, input: &str) -> Result<String> {
        let mut child = self
            .command()
            .args(arguments.split_whitespace())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("kubectl has no standard input")?.write_all(input.as_bytes())?;
        let out = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(out.status.success(), "kubectl {arguments}: {text}{}", String::from_utf8_lossy(&out.stderr));
        Ok(text)
    }

    /// What `kubectl` prints as JSON.
    pub(crate) fn json(&self, arguments: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&format!("{arguments} -o json"))?)?)
    }

    /// Creates a namespace unless it is there.
    pub(crate) fn namespace(&self, name: &str) -> Result<()> {
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        self.kubectl_stdin("apply -f -", &text).map(drop)
    }

    /// The names of the images in a node's store, by CRI.
    pub(crate) async fn images_on(&self, node: &str) -> Result<Vec<String>> {
        let client = self.runtime_of(node).await?;
        Ok(client.list().await?.into_iter().flat_map(|image| image.repo_tags).collect())
    }

    /// A node's runtime.
    pub(crate) async fn runtime_of(&self, node: &str) -> Result<cri::Client> {
        cri::Client::ready(&self.dir.join(node).join("run/containerd.sock"), PATIENCE).await
    }

    /// Waits until the stores of all nodes have the image.
    pub(crate) async fn until_everywhere(&self, image: &str) -> Result<()> {
        for node in NODES {
            self.until(&format!("{image} is on {node}"), async || {
                Ok(self.images_on(node).await?.iter().any(|i| i == image).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Asks until there is an answer; an error counts as none until patience ends.
    pub(crate) async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = ask().await;
            match answer {
                Ok(Some(value)) => return Ok(value),
                Ok(None) if Instant::now() > end => bail!("waited in vain until {what}\n{}", self.state()),
                Err(error) if Instant::now() > end => {
                    return Err(error).with_context(|| format!("waited in vain until {what}\n{}", self.state()));
                }
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// What the agents are at, for the text of an error.
    pub(crate) fn state(&self) -> String {
        let ask = |arguments: &str| self.kubectl(arguments).unwrap_or_else(|error| format!("{error:?}"));
        ask("get pods -A -o wide") + &ask("logs -l app.kubernetes.io/name=prepull --tail=15 --prefix -n prepull")
    }

    /// The agent's pod on a node that is not about to end, once it has an address.
    pub(crate) async fn agent_on(&self, namespace: &str, node: &str) -> Result<Value> {
        self.until(&format!("{node} has an agent"), async || {
            let pods = self.json(&format!(
                "get pods -n {namespace} -l app.kubernetes.io/name=prepull --field-selector spec.nodeName={node}"
            ))?;
            let pod = pods["items"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|pod| pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["podIP"].is_string());
            Ok(pod.cloned())
        })
        .await
    }

    /// What the agent on a node serves.
    pub(crate) async fn get(&self, namespace: &str, node: &str, path: &str) -> Result<(u16, String)> {
        let pod = self.agent_on(namespace, node).await?;
        let address = format!("{}:9797", pod["status"]["podIP"].as_str().context("the pod has no address")?);
        let answer = http::get(&address, path).await?;
        Ok((answer.status.as_u16(), answer.text()))
    }

    /// What the agent on a node says about its images.
    pub(crate) async fn status(&self, namespace: &str, node: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(namespace, node, "/api/v1/images").await?.1)?)
    }
}

/// A request to the API server as whoever a token stands for.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    kube: &'a Kube,
    token: String,
}

impl Kube {
    /// A token as a pod of the service account `prepull` gets it; without a pod, as somebody asks for one by hand.
    pub(crate) fn token(&self, namespace: &str, pod: Option<&Value>) -> Result<Caller<'_>> {
        let mut arguments = format!("create token -n {namespace} prepull");
        if let Some(metadata) = pod.map(|pod| &pod["metadata"]) {
            let field = |name: &str| metadata[name].as_str().unwrap_or_default();
            write!(
                arguments,
                " --bound-object-kind=Pod --bound-object-name={} --bound-object-uid={}",
                field("name"),
                field("uid")
            )?;
        }
        Ok(Caller { kube: self, token: self.kubectl(&arguments)?.trim().to_owned() })
    }
}

impl Caller<'_> {
    /// Sends a body and gives the status and the answer.
    pub(crate) fn send(&self, method: &str, path: &str, kind: &str, body: &str) -> Result<(u16, String)> {
        let text = run(Command::new("curl")
            .args(["--silent", "--show-error", "--request", method, "--write-out", "\n%{http_code}"])
            .arg("--cacert")
            .arg(self.kube.dir.join("pki/ca.crt"))
            .args(["--header", &format!("Authorization: Bearer {}", self.token)])
            .args(["--header", &format!("Content-Type: {kind}"), "--data-binary", body])
            .arg(format!("https://127.0.0.1:6443{path}")))?;
        let (answer, code) = text.rsplit_once('\n').context("curl tells no status")?;
        Ok((code.parse()?, answer.to_owned()))
    }
}
