//! What pre-pulling a private image means for every pod on the node, under each `imagePullCredentialsVerificationPolicy` of
//! a real kubelet. The table of docs/security.md is this trial's.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    kube::{self, Kube, run},
    kubelet::Reconfigured,
    parts::ClusterPart,
    render::repository,
    secrets::{PASSWORD, USER},
    support::{
        images::{Content, Image, Layer},
        registry::{Registry, RegistryKind},
        sources::{docker_config, entry, secret_yaml},
    },
};

const NODE: &str = "node1";
const NAMESPACE: &str = "tenants";

/// A policy, and how the image came onto the node.
struct Case {
    name: &'static str,
    /// Fields of the kubelet's configuration.
    settings: &'static str,
    repository: &'static str,
    ahead: bool,
}

const ALLOWLIST: &str = "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n\
    preloadedImagesVerificationAllowlist: [HOST/listed/*, HOST/private/named]";

const CASES: [Case; 7] = [
    Case {
        name: "`NeverVerify`",
        settings: "imagePullCredentialsVerificationPolicy: NeverVerify",
        repository: "private/never",
        ahead: true,
    },
    Case {
        name: "`NeverVerifyPreloadedImages` (default)",
        settings: "imagePullCredentialsVerificationPolicy: NeverVerifyPreloadedImages",
        repository: "private/preloaded",
        ahead: true,
    },
    Case {
        name: "`NeverVerifyPreloadedImages`, image not pulled ahead",
        settings: "imagePullCredentialsVerificationPolicy: NeverVerifyPreloadedImages",
        repository: "private/by-the-kubelet",
        ahead: false,
    },
    Case {
        name: "`NeverVerifyAllowlistedImages`, listed as `REGISTRY/PATH/*`",
        settings: ALLOWLIST,
        repository: "listed/image",
        ahead: true,
    },
    // Kubernetes 1.35 compares the name with its tag, which no list may have
    Case {
        name: "`NeverVerifyAllowlistedImages`, listed by its name",
        settings: ALLOWLIST,
        repository: "private/named",
        ahead: true,
    },
    Case {
        name: "`NeverVerifyAllowlistedImages`, not listed",
        settings: ALLOWLIST,
        repository: "private/unlisted",
        ahead: true,
    },
    Case {
        name: "`AlwaysVerify`",
        settings: "imagePullCredentialsVerificationPolicy: AlwaysVerify",
        repository: "private/always",
        ahead: true,
    },
];

/// Pods in the order in which they are made, with their pull secret and policy.
const PODS: [(&str, Option<&str>, &str); 4] = [
    ("none", None, "IfNotPresent"),
    ("wrong", Some("wrong"), "IfNotPresent"),
    ("right", Some("right"), "IfNotPresent"),
    ("always", None, "Always"),
];

pub(crate) async fn table(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let began = Instant::now();
    let registry = Registry::start(RegistryKind::htpasswd(USER, PASSWORD)).await?;
    kube.trust(&registry.host())?;
    kube.namespace(NAMESPACE)?;
    for (name, password) in [("right", PASSWORD), ("wrong", "battery staple")] {
        kube.pull_secret(name, &registry, password)?;
    }
    let program = Layer::with_program("busybox", &fs::read("/bin/busybox").context("is busybox-static installed?")?)?;
    let node = Reconfigured::new(kube, NODE)?;
    let (mut rows, mut set) = (String::new(), "");
    for (seed, case) in (1_u64..).zip(&CASES) {
        let own = Layer::new(seed, 100_000, Content::Random)?;
        let image = Image::new(case.repository, &[program.clone(), own]);
        let image = registry.push(&format!("{}:1", case.repository), &image).await?.by_tag;
        if case.ahead {
            pull_ahead(kube, &registry, &image)?;
        }
        if set != case.settings {
            node.with(&case.settings.replace("HOST", &registry.host()))?;
            set = case.settings;
        }
        let mut row = format!("| {} |", case.name);
        let before = registry.blob_downloads(case.repository).await?.0;
        for (name, secret, policy) in PODS {
            let asked = registry.manifest_requests(case.repository).await?;
            let pod = format!("{}-{name}", case.repository.replace('/', "-"));
            let started = kube.starts(&pod, &image, secret, policy).await?;
            let asked = registry.manifest_requests(case.repository).await? > asked;
            let asked = if asked { ", registry asked" } else { "" };
            write!(row, " {}{asked} |", if started { "starts" } else { "refused" })?;
        }
        let again = registry.blob_downloads(case.repository).await?.0 - before;
        let layers = if again == 0 { "nothing".to_owned() } else { format!("{again} blobs") };
        writeln!(rows, "{row} {layers} |")?;
    }
    eprintln!("{rows}in {} s", began.elapsed().as_secs());
    drop(node);
    kube.kubectl(&format!("delete namespace {NAMESPACE} --wait=false"))?;
    let docs = fs::read_to_string(repository().join("docs/security.md"))?;
    ensure!(docs.contains(&rows), "docs/security.md has another table than\n{rows}");
    Ok(())
}

/// As the agent does it, with the same code: over CRI, with the secret.
fn pull_ahead(kube: &Kube, registry: &Registry, image: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret.yaml");
    fs::write(&secret, secret_yaml("right", &docker_config(&registry.host(), &entry(USER, PASSWORD))))?;
    let socket = kube.dir().join(NODE).join("run/containerd.sock");
    run(Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(["pull", image, "--cloud-credentials", "off", "--kubelet-root"])
        .arg(folder.path())
        .arg("--runtime-endpoint")
        .arg(&socket)
        .arg("--pull-secret")
        .arg(&secret))
    .map(drop)
}

impl Kube {
    fn pull_secret(&self, name: &str, registry: &Registry, password: &str) -> Result<()> {
        let config = docker_config(&registry.host(), &entry(USER, password));
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}});
        self.kubectl_stdin("apply -f -", &secret.to_string()).map(drop)
    }

    /// Whether a pod with this pull secret runs on the node, or is refused for its image.
    async fn starts(&self, name: &str, image: &str, secret: Option<&str>, policy: &str) -> Result<bool> {
        let container =
            json!({"name": "c", "image": image, "imagePullPolicy": policy, "command": ["/busybox", "true"]});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {
            "nodeName": NODE, "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "enableServiceLinks": false,
            "automountServiceAccountToken": false, "containers": [container],
            "imagePullSecrets": secret.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}});
        self.until("the namespace has its service account", async || {
            Ok(self.kubectl(&format!("get serviceaccount default -n {NAMESPACE}")).ok())
        })
        .await?;
        self.kubectl_stdin("apply -f -", &pod.to_string())?;
        let started = self
            .until(&format!("{name} has run or was refused"), async || {
                let status = self.json(&format!("get pod {name} -n {NAMESPACE}"))?["status"].clone();
                let container: &Value = &status["containerStatuses"][0]["state"];
                let refused =
                    ["ErrImagePull", "ImagePullBackOff"].iter().any(|r| container["waiting"]["reason"] == **r);
                ensure!(status["phase"] != "Failed", "{status:#}");
                Ok((refused || status["phase"] == "Succeeded").then_some(!refused))
            })
            .await?;
        self.kubectl(&format!("delete pod {name} -n {NAMESPACE} --wait=false"))?;
        Ok(started)
    }
}
