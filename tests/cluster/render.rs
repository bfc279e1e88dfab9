//! Overlays of a test's own, and what kustomize makes of them.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{kube::run, parts::Kubectl};

/// The checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An overlay on the manifests of the checkout. Paths are relative to `manifests`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Overlay {
    pub(crate) base: Option<&'static str>,
    pub(crate) more_resources: Vec<&'static str>,
    pub(crate) components: Vec<&'static str>,
    pub(crate) transformers: Vec<&'static str>,
    pub(crate) namespace: Option<&'static str>,
    pub(crate) prefix: Option<&'static str>,
    /// Items of `patches:`, as YAML.
    pub(crate) patches: String,
    /// Repository and tag of the agent's image.
    pub(crate) image: Option<(String, String)>,
}

impl Overlay {
    /// The base with components.
    pub(crate) fn with(components: &[&'static str]) -> Self {
        Self { components: components.to_vec(), ..Self::default() }
    }

    /// Another folder of `manifests` than the base.
    pub(crate) fn of(base: &'static str) -> Self {
        Self { base: Some(base), ..Self::default() }
    }

    /// Adds a patch of the agent's container: fields of it, as YAML in one line.
    #[must_use]
    pub(crate) fn container(mut self, fields: &str) -> Self {
        let _ = write!(
            self.patches,
            "- target: {{kind: DaemonSet}}\n  patch: '{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: prepull}}, \
             spec: {{template: {{spec: {{containers: [{{name: prepull, {fields}}}]}}}}}}}}'\n"
        );
        self
    }

    /// Lets the agent see the disk of the images, which the nodes of these trials keep below a folder of their own.
    #[must_use]
    pub(crate) fn image_store(mut self, folder: &Path) -> Self {
        let folder = folder.display();
        let _ = write!(
            self.patches,
            "- target: {{kind: DaemonSet}}\n  patch: '{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: prepull}}, \
             spec: {{template: {{spec: {{containers: [{{name: prepull, volumeMounts: [{{name: trial-store, mountPath: {folder}, readOnly: true}}]}}], \
             volumes: [{{name: trial-store, hostPath: {{path: {folder}}}}}]}}}}}}}}'\n"
        );
        self
    }

    /// Writes it into `folder`.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        // kustomize takes other folders only by relative paths
        let folder = fs::canonicalize(folder)?;
        let up = "../".repeat(folder.components().count() - 1);
        let manifests = format!("{up}{}/manifests", repository().display().to_string().trim_start_matches('/'));
        let paths = |names: &[&str]| {
            names.iter().fold(String::new(), |text, name| text + "- " + &manifests + "/" + name + "\n")
        };
        let mut resources = vec![self.base.unwrap_or("base")];
        resources.extend(&self.more_resources);
        let mut text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n".to_owned();
        text += &paths(&resources);
        for (field, names) in [("components", &self.components), ("transformers", &self.transformers)] {
            if !names.is_empty() {
                write!(text, "{field}:\n{}", paths(names))?;
            }
        }
        for (field, value) in [("namespace", self.namespace), ("namePrefix", self.prefix)] {
            if let Some(value) = value {
                writeln!(text, "{field}: {value}")?;
            }
        }
        if let Some((name, tag)) = &self.image {
            writeln!(text, "images: [{{name: ghcr.io/prepull/prepull, newName: '{name}', newTag: '{tag}'}}]")?;
        }
        if !self.patches.is_empty() {
            write!(text, "patches:\n{}", self.patches)?;
        }
        fs::write(folder.join("kustomization.yaml"), text)?;
        Ok(())
    }

    /// Its objects.
    pub(crate) fn render(&self, kubectl: &Kubectl) -> Result<Vec<Value>> {
        let folder = tempfile::tempdir()?;
        self.write(folder.path())?;
        kustomize(kubectl, folder.path())
    }
}

/// The objects of a kustomization.
pub(crate) fn kustomize(kubectl: &Kubectl, folder: &Path) -> Result<Vec<Value>> {
    objects(&run(Command::new(&kubectl.0).arg("kustomize").arg(folder))?)
}

/// The objects of a YAML text with several documents.
pub(crate) fn objects(text: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("no valid YAML was rendered")?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

/// The object of a kind whose name ends so.
pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    objects
        .iter()
        .find(|o| o["kind"] == kind && o["metadata"]["name"].as_str().is_some_and(|n| n.ends_with(name)))
        .with_context(|| format!("there is no {kind} called {name}"))
}

/// All folders of the checkout below `manifests/PART` that hold a kustomization.
pub(crate) fn folders(part: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![repository().join("manifests").join(part)];
    while let Some(folder) = open.pop() {
        if folder.join("kustomization.yaml").is_file() {
            found.push(folder.clone());
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
