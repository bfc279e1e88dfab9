//! A node with a small disk: the kubelet removes images to make room, and the agent brings them back when there is room,
//! without the two fighting. A cluster of its own, after the one of the other trials has ended; the agent runs on the node
//! beside the kubelet, as the user that its pod has.
#![allow(clippy::float_cmp, reason = "counts are whole numbers")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::time::{Instant, sleep};

use crate::{
    kube::{self, REGISTRY, run},
    lists::pushed_big,
    parts::ClusterPart,
    support::agent::{Agent, AgentOptions},
};

const PATIENCE: Duration = Duration::from_mins(1);
/// Of the filesystem of the images.
const DISK: &str = "400M";
/// Bytes of an image's layer; on the disk it takes twice as much.
const LAYER: usize = 20 << 20;
/// The kubelet evicts below 40 % of available space, far below the guard's own mark.
const KUBELET: &str = r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
evictionHard: {imagefs.available: "40%", nodefs.available: "1%", memory.available: "10Mi", nodefs.inodesFree: "1%", imagefs.inodesFree: "1%"}
evictionPressureTransitionPeriod: 5s
imageMinimumGCAge: 1s
nodeStatusUpdateFrequency: 2s
"#;

/// A cluster of one node; it ends with its value.
struct Node {
    part: ClusterPart,
    dir: PathBuf,
}

impl Node {
    fn start(part: &ClusterPart, folder: &Path) -> Result<Self> {
        kube::down();
        let settings = folder.join("kubelet.conf.d");
        fs::create_dir(&settings)?;
        fs::write(settings.join("10-pressure.conf"), KUBELET)?;
        // a short path, because sockets lie in it
        let node = Self { part: part.clone(), dir: folder.join("cluster") };
        node.script(&["up"], &["1"], &settings)?;
        Ok(node)
    }

    fn script(&self, command: &[&str], more: &[&str], settings: &Path) -> Result<()> {
        let log = self.dir.with_extension("log");
        let file = fs::File::create(&log)?;
        // what it starts would keep a pipe open for ever
        let status = Command::new(&self.part.script)
            .args(command)
            .arg(&self.dir)
            .args(more)
            .envs([("CONTAINERD", "2.1"), ("IMAGE_FS", DISK)])
            .env("KUBELET_CONF", settings)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()?;
        ensure!(status.success(), "{command:?}: {}", fs::read_to_string(&log)?);
        Ok(())
    }

    fn images(&self) -> PathBuf {
        self.dir.join("node1/containerd")
    }

    fn pid(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.join("node1/pid"))?.trim().to_owned())
    }

    /// Runs a program where the node's disk is mounted.
    fn on(&self, program: &[&str]) -> Result<String> {
        run(Command::new("nsenter").args(["--target", &self.pid()?, "--mount", "--"]).args(program))
    }

    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new(&self.part.kubectl.0).env("KUBECONFIG", self.dir.join("admin.kubeconfig")).args(arguments))
    }

    fn has_pressure(&self) -> Result<bool> {
        let path = "jsonpath={.status.conditions[?(@.type==\"DiskPressure\")].status}";
        Ok(self.kubectl(&["get", "node", "node1", "-o", path])? == "True")
    }

    /// Used part of the disk, as the kubelet counts it.
    fn used(&self) -> Result<f64> {
        let said = self.on(&["stat", "--file-system", "--format", "%a %b", &self.images().display().to_string()])?;
        let (available, all) = said.trim().split_once(' ').context("stat says otherwise")?;
        Ok(1.0 - available.parse::<f64>()? / all.parse::<f64>()?)
    }

    /// An administrator's access that another user can read, since the agent is nobody on the node.
    fn kubeconfig(&self, file: &Path) -> Result<()> {
        let mut text = fs::read_to_string(self.dir.join("admin.kubeconfig"))?;
        for (field, name) in
            [("certificate-authority", "ca.crt"), ("client-certificate", "admin.crt"), ("client-key", "admin.key")]
        {
            let path = self.dir.join("pki").join(name);
            let data = BASE64_STANDARD.encode(fs::read(&path)?);
            text = text.replace(&format!("{field}: {}", path.display()), &format!("{field}-data: {data}"));
        }
        Ok(fs::write(file, text)?)
    }

    /// An agent on the node, as user 65532 of group 0 with no capability.
    fn agent(&self, folder: &Path) -> Result<Agent> {
        let program = folder.join("prepull");
        fs::copy(env!("CARGO_BIN_EXE_prepull"), &program)?;
        let access = folder.join("kubeconfig");
        self.kubeconfig(&access)?;
        let start = folder.join("start");
        let text = format!(
            "#!/bin/sh\nexec nsenter --target {} --mount -- setpriv --reuid 65532 --regid 0 --clear-groups --bounding-set -all --no-new-privs {} \"$@\"\n",
            self.pid()?,
            program.display()
        );
        fs::write(&start, text)?;
        for file in [&program, &start] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
        }
        let flags = ["--configmap", "prepull/prepull", "--node-name", "node1", "--resync", "2s"];
        let options = AgentOptions {
            flags: flags.map(str::to_owned).to_vec(),
            environment: vec![("KUBECONFIG".to_owned(), access.display().to_string())],
        };
        Agent::start_without_list(&start, Path::new("/run/containerd/containerd.sock"), tempfile::tempdir()?, &options)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.script(&["down"], &[], Path::new("/nonexistent")) {
            eprintln!("the cluster with the small disk is still up: {error:?}");
        }
    }
}

/// How often an agent began to pull an image.
fn pulls(agent: &Agent, image: &str) -> usize {
    let begins = |line: &&str| line.contains("image is being pulled") && line.contains(image);
    agent.log().lines().filter(begins).count()
}

pub(crate) async fn pressure(part: ClusterPart) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("pp-").tempdir()?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let node = Node::start(&part, folder.path())?;
    let mut images = Vec::new();
    for (seed, name) in [(91, "pressure/one"), (92, "pressure/two")] {
        images.push(format!("{REGISTRY}/{}", pushed_big(name, seed, LAYER).await?));
    }
    // an entry that selects nodes lets the agent watch its Node, and so hear of DiskPressure
    let entries = images.iter().fold("images:\n".to_owned(), |text, image| {
        format!("{text}- {{image: '{image}', nodeSelector: {{kubernetes.io/os: linux}}}}\n")
    });
    node.kubectl(&["create", "namespace", "prepull"])?;
    node.kubectl(&[
        "create",
        "configmap",
        "prepull",
        "-n",
        "prepull",
        &format!("--from-literal=images.yaml={entries}"),
    ])?;
    let agent = node.agent(folder.path())?;
    agent.until_warm(PATIENCE).await?;
    let (told, is) = (agent.metric("prepull_image_fs_used_ratio").await?, node.used()?);
    ensure!((told - is).abs() < 0.02, "{told} is told to nobody on the node, {is} is so\n{}", agent.log());
    ensure!(!node.has_pressure()?, "{is} of the disk is used without any pressure");

    // so much that pressure goes on when all images are gone
    let filler = node.images().join("filler");
    node.on(&["fallocate", "-l", "250M", &filler.display().to_string()])?;
    let began = Instant::now();
    let waits = agent
        .until(PATIENCE, "the kubelet collected both, and they wait", |status| {
            status["images"].as_array().is_some_and(|all| {
                all.len() == images.len()
                    && all.iter().all(|i| {
                        let why = i["message"].as_str().unwrap_or_default();
                        i["state"] == "Pending" && i["reason"] == "disk" && why.contains("DiskPressure")
                    })
            })
        })
        .await?;
    eprintln!("collected, and waiting for the end of DiskPressure, {:?} after the disk filled up", began.elapsed());
    ensure!(node.has_pressure()?, "{waits:#}");
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        for image in &images {
            // the first one, and one more where the kubelet tells of its pressure later than it acts on it
            ensure!(pulls(&agent, image) <= 2, "{image} is fought over\n{}", agent.log());
        }
        sleep(Duration::from_millis(500)).await;
    }
    let during: Vec<_> = images.iter().map(|image| pulls(&agent, image)).collect();

    node.on(&["rm", &filler.display().to_string()])?;
    let began = Instant::now();
    agent.until_warm(PATIENCE).await?;
    eprintln!("{during:?} pulls before and under pressure; back {:?} after there was room", began.elapsed());
    for (image, during) in images.iter().zip(during) {
        ensure!(pulls(&agent, image) == during + 1, "{image} was pulled more than once\n{}", agent.log());
    }
    ensure!(agent.metric("prepull_pulls_waiting{why=\"disk\"}").await? == 0.0);
    Ok(())
}
