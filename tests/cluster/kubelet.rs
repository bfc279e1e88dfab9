//! A node's kubelet with other settings: ended and started again where it was, so that no cluster of its own is needed.

use std::{fs, process::Command};

use anyhow::{Context, Result};

use crate::kube::{Kube, run};

/// In the node's mount namespace, which its runtime holds; noted where the cluster's script looks for what it has to end.
const RESTART: &str = r#"
set -euo pipefail
dir=$1 node=$2
old=$(cat "$dir/$node/pid")
kill "$old"
for _ in $(seq 300); do kill -0 "$old" 2>/dev/null || break; sleep 0.1; done
export AWS_EC2_METADATA_DISABLED=true
nsenter -t "$(cat "$dir/$node/containerd.pid")" -m setsid nohup bash "$dir/$node/kubelet.start" >>"$dir/log/$node.log" 2>&1 </dev/null &
echo $! >"$dir/$node/pid"
echo $! >>"$dir/pids"
"#;

/// A node whose kubelet has more settings; dropping it takes them away again.
pub(crate) struct Reconfigured<'a> {
    kube: &'a Kube,
    node: &'static str,
    settings: std::path::PathBuf,
}

impl<'a> Reconfigured<'a> {
    /// Nothing is changed yet.
    pub(crate) fn new(kube: &'a Kube, node: &'static str) -> Result<Self> {
        let folder = kube.dir().join(node);
        let start = fs::read_to_string(folder.join("start"))?;
        let command = start.find("exec ").map(|at| &start[at..]).context("the node's script starts no kubelet")?;
        fs::write(folder.join("kubelet.start"), command)?;
        let settings = command.split("--config-dir=\"").nth(1).and_then(|rest| rest.split('"').next());
        let settings = settings.context("the kubelet has no folder of settings")?;
        Ok(Self { kube, node, settings: std::path::Path::new(settings).join("90-test.conf") })
    }

    /// Starts the kubelet again with these fields of its configuration, as YAML.
    pub(crate) fn with(&self, fields: &str) -> Result<()> {
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        fs::write(&self.settings, format!("{head}{fields}\n"))?;
        self.restart()
    }

    fn restart(&self) -> Result<()> {
        let arguments = [self.kube.dir().display().to_string(), self.node.to_owned()];
        run(Command::new("bash").args(["-c", RESTART, "restart"]).args(arguments)).map(drop)
    }
}

impl Drop for Reconfigured<'_> {
    fn drop(&mut self) {
        // what cannot be undone here shows in the trials that follow
        let _ = fs::remove_file(&self.settings);
        let _ = self.restart();
    }
}
