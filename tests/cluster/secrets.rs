//! Pull secrets: of the agent's own list, of a service account, and of a team that reaches for another namespace's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    installation::NAMESPACE,
    kube::{self, Kube, NODES},
    lists::row,
    parts::ClusterPart,
    render::Overlay,
    support::{
        images::Image,
        registry::{Registry, RegistryKind},
    },
};

/// Who may pull.
pub(crate) const USER: &str = "puller";
/// With this password.
pub(crate) const PASSWORD: &str = "correct horse";

impl Kube {
    /// As users make one: `kubectl create secret docker-registry`.
    fn docker_registry(&self, namespace: &str, registry: &Registry, password: &str) -> Result<()> {
        let made = self.kubectl_with(
            &format!(
                "create secret docker-registry registry-credentials -n {namespace} --dry-run=client -o yaml \
                 --docker-server={} --docker-username={USER} --docker-password",
                registry.host()
            ),
            password,
        )?;
        self.kubectl_stdin("apply -f -", &made).map(drop)
    }
}

async fn private(kube: &Kube, name: &str) -> Result<(Registry, String)> {
    let registry = Registry::start(RegistryKind::htpasswd(USER, PASSWORD)).await?;
    kube.trust(&registry.host())?;
    let image = registry.push(&format!("{name}:1"), &Image::small(name)?).await?.by_tag;
    Ok((registry, image))
}

/// A wrong password backs off; the right one is tried the moment it is there, not when the back-off ends.
pub(crate) async fn rotated(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let (registry, image) = private(kube, "rotated/image").await?;
    let overlay = Overlay::with(&["components/pull-secrets"]);
    kube.install(&overlay, "images: []").await?;
    kube.docker_registry(NAMESPACE, &registry, "wrong")?;
    kube.edit(&format!("images: [{{image: '{image}', imagePullSecrets: [{{name: registry-credentials}}]}}]"))?;
    for node in NODES {
        let row = kube
            .until("it was refused twice", async || {
                let status = kube.status(NAMESPACE, node).await?;
                let row = row(&status, &image).cloned().unwrap_or_default();
                Ok((row["state"] == "BackOff" && row["attempt"].as_u64() >= Some(2)).then_some(row))
            })
            .await?;
        ensure!(row["class"] == "Unauthorized", "{row:#}");
    }
    kube.docker_registry(NAMESPACE, &registry, PASSWORD)?;
    let changed = Instant::now();
    kube.until_everywhere(&image).await?;
    // the second back-off takes 20 s at least, and at most a few of them had passed
    ensure!(changed.elapsed() < Duration::from_secs(10), "the new password was tried after {:?}", changed.elapsed());
    kube.rollout(NAMESPACE)
}

/// The secrets of a service account that an entry names count too.
pub(crate) async fn service_account(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let (registry, image) = private(kube, "account/image").await?;
    kube.install(&Overlay::with(&["components/pull-secrets"]), "images: []").await?;
    kube.docker_registry(NAMESPACE, &registry, PASSWORD)?;
    let patch = json!({"imagePullSecrets": [{"name": "registry-credentials"}]}).to_string();
    kube.kubectl_with(&format!("patch serviceaccount default -n {NAMESPACE} --type=merge -p"), &patch)?;
    kube.edit(&format!("images: [{{image: '{image}', serviceAccountName: default}}]"))?;
    kube.until_everywhere(&image).await
}

/// A list in a team's namespace may use the Secrets of that namespace alone, whatever the agent itself may read.
pub(crate) async fn team(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    let (registry, image) = private(kube, "team/image").await?;
    kube.namespace("team-a")?;
    kube.kubectl("delete secret registry-credentials -n team-a --ignore-not-found")?;
    let overlay = Overlay {
        more_resources: vec!["components/team-lists/team"],
        ..Overlay::with(&["components/team-lists", "components/pull-secrets"])
    };
    kube.install(&overlay, "images: []").await?;
    kube.docker_registry(NAMESPACE, &registry, PASSWORD)?;
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ours, namespace: team-a, labels: {{prepull.dev/list: 'true'}}}}\n\
         data: {{images.yaml: \"images: [{{image: '{image}', imagePullSecrets: [{{name: registry-credentials}}]}}]\"}}\n"
    );
    kube.kubectl_stdin("apply -f -", &map)?;
    for node in NODES {
        let row = kube.until_state(node, &image, &["BackOff"]).await?;
        ensure!(row["class"] == "Unauthorized", "{row:#}");
        let status = kube.status(NAMESPACE, node).await?;
        let lists = status["lists"].as_array().context("no lists")?;
        ensure!(lists.iter().any(|l| l["source"] == "team-a/ours"), "{lists:#?}");
        let (_, said) = kube.get(NAMESPACE, node, "/api/v1/images").await?;
        ensure!(
            said.contains("registry-credentials") && said.contains("team-a"),
            "it names what is missing and where: {said}"
        );
    }
    let (downloads, _) = registry.blob_downloads("team/image").await?;
    ensure!(downloads == 0, "another namespace's secret was used");
    kube.docker_registry("team-a", &registry, PASSWORD)?;
    kube.until_everywhere(&image).await?;
    kube.kubectl("delete configmap ours -n team-a").map(drop)
}
