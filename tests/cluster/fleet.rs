//! `prepull status` on real nodes: what it counts is what the runtimes list, it waits for an edit, names a dead node, and
//! needs no more than the role `prepull-viewer`.

use std::{collections::BTreeSet, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    installation::{NAMESPACE, list},
    kube::{self, Kube, NODES},
    lists::{pushed, pushed_big},
    parts::ClusterPart,
    render::Overlay,
    rights,
};

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `prepull status` with the rights of the role `prepull-viewer` alone.
fn status(kube: &Kube, arguments: &[&str]) -> Result<Said> {
    asked(&viewer(kube)?, arguments)
}

fn asked(kubeconfig: &tempfile::NamedTempFile, arguments: &[&str]) -> Result<Said> {
    let output = Command::new(env!("CARGO_BIN_EXE_prepull"))
        .arg("status")
        .args(arguments)
        .env("PREPULL_KUBECONFIG", kubeconfig.path())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
}

/// Waits with these rights until every node is warm with every list as it is.
pub(crate) fn waits(kube: &Kube) -> Result<()> {
    let said = status(kube, &["--wait", "--timeout=2m"])?;
    ensure!(said.code == Some(0), "{} {}", said.out, said.err);
    Ok(())
}

/// The administrator's kubeconfig, acting as a person who has that role and nothing else.
fn viewer(kube: &Kube) -> Result<tempfile::NamedTempFile> {
    kube.kubectl_stdin(
        "apply -f -",
        &json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "viewers", "namespace": NAMESPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "prepull-viewer"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "viewer"}],
        })
        .to_string(),
    )?;
    let mut config: Value = serde_yaml::from_str(&std::fs::read_to_string(kube.kubeconfig())?)?;
    config["users"][0]["user"]["as"] = "viewer".into();
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), config.to_string())?;
    Ok(file)
}

fn parsed(said: &Said) -> Result<Value> {
    serde_json::from_str(&said.out).with_context(|| format!("{} {}", said.out, said.err))
}

/// Every count of `--all` is what the runtimes themselves list, and after an edit `--wait` returns when the new image is everywhere.
pub(crate) async fn agrees(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let images = [pushed("fleet/one").await?, pushed("fleet/two").await?];
    kube.install(&Overlay::default(), &list(&images)).await?;
    let said = status(kube, &["--wait", "--timeout=2m"])?;
    ensure!(said.code == Some(0), "{} {}", said.out, said.err);
    let gone = "127.0.0.1:5000/fleet/gone:1".to_owned();
    kube.edit(&list(&[images[0].clone(), images[1].clone(), gone.clone()]))?;
    let said = kube
        .until("every node's agent has tried the third image", async || {
            let said = parsed(&status(kube, &["--all", "-o", "json"])?)?;
            let tried = said["images"][0]["image"] == gone.as_str() && said["images"][0]["failing"] == NODES.len();
            Ok(tried.then_some(said))
        })
        .await?;
    ensure!(said["agents"] == NODES.len() && said["asked"] == NODES.len() && said["warm"] == 0, "{said:#}");
    let rows = said["images"].as_array().context("no images")?;
    ensure!(rows[0]["class"] == "NotFound" && rows[0]["present"] == 0, "{said:#}");
    for image in &images {
        let mut nodes = BTreeSet::new();
        for node in NODES {
            if kube.images_on(node).await?.contains(image) {
                nodes.insert(node);
            }
        }
        let row = rows.iter().find(|row| row["image"] == image.as_str()).with_context(|| format!("no {image}"))?;
        ensure!(row["present"] == nodes.len() && row["nodes"] == NODES.len(), "{row:#} and {nodes:?}");
    }

    // the edit makes every pod unready only at its next probe; the proof does not go by that
    let big = format!("127.0.0.1:5000/{}", pushed_big("fleet/big", 3, 20 << 20).await?);
    kube.edit(&list(&[images[0].clone(), big.clone()]))?;
    let said = status(kube, &["--wait", "--timeout=2m", "--nodes"])?;
    ensure!(said.code == Some(0), "{} {}", said.out, said.err);
    for node in NODES {
        ensure!(kube.images_on(node).await?.contains(&big), "{node} has no {big}, and status --wait returned");
    }
    Ok(())
}

/// Who may not use the proxy, but may forward ports, sees the same; who may do neither is told which right is absent.
pub(crate) async fn forwarded(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("fleet/one").await?;
    kube.install_warm(&Overlay::default(), &list(&[image])).await?;
    let kubeconfig = viewer(kube)?;
    let may = |verbs: &[&str]| {
        let rule = |resource: &str, verbs: &[&str]| json!({"apiGroups": [""], "resources": [resource], "verbs": verbs});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "prepull-viewer", "namespace": NAMESPACE},
            "rules": [rule("pods", &["list"]), rule("configmaps", &["get"]), rule("pods/portforward", verbs)],
        });
        kube.kubectl_stdin("replace -f -", &role.to_string())
    };
    // Kubernetes 1.35 asks for both
    let mut refused = Vec::new();
    for verb in ["create", "get"] {
        may(&[verb])?;
        refused.push(asked(&kubeconfig, &["--all"])?);
    }
    may(&["get", "create"])?;
    let said = asked(&kubeconfig, &["--all", "-o", "json"])?;
    // the role is another one now
    kube.replace(&Overlay::default(), "images: []")?;
    for refused in refused {
        let told = refused.code == Some(1) && refused.out.contains("grant get on pods/proxy");
        ensure!(told, "{} {}", refused.out, refused.err);
    }
    ensure!(said.code == Some(0), "{} {}", said.out, said.err);
    let said = parsed(&said)?;
    ensure!(
        said["asked"] == NODES.len() && said["warm"] == NODES.len() && said["images"][0]["present"] == NODES.len(),
        "{said:#}"
    );
    Ok(())
}

/// What the role grants is exactly this.
pub(crate) async fn least_rights(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.grant(&Overlay::default()).await?;
    viewer(kube)?;
    let rights = ["pods [] [] [list]", "pods/proxy [] [] [get]", "configmaps [] [prepull] [get]"];
    rights::expect_of(kube, "--as=viewer --as-group=system:authenticated", NAMESPACE, &rights)?;
    rights::expect_of(kube, "--as=viewer --as-group=system:authenticated", "default", &[])
}

/// A node whose agent no packet reaches is named, and keeps nobody waiting for whom less than all is enough.
pub(crate) async fn dead_node(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let image = pushed("fleet/one").await?;
    kube.install(&Overlay::default(), &list(&[image])).await?;
    ensure!(status(kube, &["--wait", "--timeout=2m"])?.code == Some(0));
    let agent = kube.agent_on(NAMESPACE, "node3").await?;
    let address = agent["status"]["podIP"].as_str().context("no address")?;
    // nothing comes through to it any more, as on a node without power
    let drops = ["FORWARD", "OUTPUT"].map(|chain| [chain, "-d", address, "-j", "DROP"]);
    for drop in drops {
        kube::run(Command::new("iptables").arg("-I").args(drop))?;
    }
    let said = status(kube, &["--all", "-o", "json"]);
    let waited = status(kube, &["--wait", "--min-warm=66%", "--timeout=1m"]);
    for drop in drops {
        kube::run(Command::new("iptables").arg("-D").args(drop))?;
    }
    let said = parsed(&said?)?;
    ensure!(said["silent"][0]["node"] == "node3" && said["asked"] == 2 && said["warm"] == 2, "{said:#}");
    let waited = waited?;
    ensure!(waited.code == Some(0) && waited.out.contains("node3"), "{} {}", waited.out, waited.err);
    Ok(())
}
