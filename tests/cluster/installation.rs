//! Installations on the cluster, each from an overlay.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    image,
    kube::{Kube, REGISTRY},
    render::Overlay,
};

/// Where the base installs.
pub(crate) const NAMESPACE: &str = "prepull";
/// What an installation is made of, apart from its namespace.
const KINDS: &str = "daemonsets,cronjobs,leases,networkpolicies,roles,rolebindings,clusterroles,clusterrolebindings,\
    validatingadmissionpolicies,validatingadmissionpolicybindings";

impl Kube {
    /// Installs an overlay with a list of its own, and removes what another installation had before. It does not wait.
    pub(crate) async fn install(&self, overlay: &Overlay, list: &str) -> Result<()> {
        let mut installed = self.installed().await;
        if installed.as_ref() != Some(overlay) {
            self.uninstall()?;
            *installed = Some(overlay.clone());
        }
        self.replace(overlay, list)
    }

    /// Applies an overlay with a list of its own over whatever is installed.
    pub(crate) fn replace(&self, overlay: &Overlay, list: &str) -> Result<()> {
        let mut overlay = overlay.clone();
        overlay.image = Some((format!("{REGISTRY}/prepull"), image::tag()?));
        let patch = json!([{"op": "replace", "path": "/data/images.yaml", "value": list}]).to_string();
        write!(overlay.patches, "- target: {{kind: ConfigMap, name: prepull}}\n  patch: {}\n", json!(patch))?;
        let folder = tempfile::tempdir()?;
        overlay.write(folder.path())?;
        self.kubectl_with("apply -k", &folder.path().display().to_string())?;
        Ok(())
    }

    /// Installs, and waits until every node is warm.
    pub(crate) async fn install_warm(&self, overlay: &Overlay, list: &str) -> Result<()> {
        self.install(overlay, list).await?;
        self.rollout(overlay.namespace.unwrap_or(NAMESPACE))
    }

    /// Installs what an overlay grants, and nothing that runs.
    pub(crate) async fn grant(&self, overlay: &Overlay) -> Result<()> {
        self.installed().await.take();
        self.uninstall()?;
        let mut objects = overlay.render(self.kubectl_part())?;
        objects.retain(|object| object["kind"] != "DaemonSet");
        let all = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl_stdin("apply -f -", &all.to_string()).map(drop)
    }

    /// Removes everything of every installation but the namespaces and what is in them besides.
    pub(crate) fn uninstall(&self) -> Result<()> {
        self.kubectl(&format!("delete {KINDS} -A -l app.kubernetes.io/name=prepull --ignore-not-found --wait"))?;
        self.kubectl("wait --for=delete pods -l app.kubernetes.io/name=prepull -A --timeout=60s")?;
        Ok(())
    }

    /// What users are told to wait for.
    pub(crate) fn rollout(&self, namespace: &str) -> Result<()> {
        let names = self.kubectl(&format!("get daemonset -n {namespace} -l app.kubernetes.io/name=prepull -o name"))?;
        let said = self.kubectl(&format!("rollout status -n {namespace} {} --timeout=120s", names.trim()));
        ensure!(said.is_ok(), "{said:?}\n{}", self.state());
        Ok(())
    }

    /// Puts another list in.
    pub(crate) fn edit(&self, list: &str) -> Result<()> {
        let patch = json!({"data": {"images.yaml": list}}).to_string();
        self.kubectl_with(&format!("patch configmap prepull -n {NAMESPACE} --type=merge -p"), &patch).map(drop)
    }
}

/// A list of plain names.
pub(crate) fn list<S: AsRef<str>>(images: &[S]) -> String {
    images.iter().fold("images:\n".to_owned(), |list, image| list + "- \"" + image.as_ref() + "\"\n")
}
