//! What these trials need.

use std::{env, path::PathBuf};

use crate::{
    monitoring::Parts,
    support::{
        monitoring::prometheus,
        operator::{Definitions, definitions},
        parts::{Missing, find},
    },
};

/// `kubectl`, which knows kustomize.
#[derive(Debug, Clone)]
pub(crate) struct Kubectl(pub(crate) PathBuf);

/// `helm`.
#[derive(Debug, Clone)]
pub(crate) struct Helm(pub(crate) PathBuf);

/// `buildah`.
#[derive(Debug, Clone)]
pub(crate) struct Buildah(pub(crate) PathBuf);

/// A cluster that is up or can be started.
#[derive(Debug, Clone)]
pub(crate) struct ClusterPart {
    pub(crate) script: PathBuf,
    pub(crate) kubectl: Kubectl,
}

fn missing(part: &str, sentence: &str) -> Missing {
    Missing { part: part.to_owned(), sentence: sentence.to_owned() }
}

pub(crate) fn kubectl() -> Result<Kubectl, Missing> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(|folder| PathBuf::from(folder).join("kubectl"));
    assets.filter(|file| file.is_file()).or_else(|| find("kubectl")).map(Kubectl).ok_or_else(|| {
        missing(
            "kubectl",
            "kubectl is not installed: run hack/install-cluster-parts, or put kubectl 1.27 or later into PATH",
        )
    })
}

pub(crate) fn helm() -> Result<Helm, Missing> {
    find("helm").map(Helm).ok_or_else(|| {
        missing("helm", "helm is not installed: run hack/install-cluster-parts, or `go install helm.sh/helm/v3/cmd/helm@latest` and put it into PATH")
    })
}

/// Chart and kustomize together.
pub(crate) fn chart() -> Result<(Helm, Kubectl), Missing> {
    Ok((helm()?, kubectl()?))
}

pub(crate) fn buildah() -> Result<Buildah, Missing> {
    if !rustix::process::geteuid().is_root() {
        return Err(missing("buildah", "building an image needs root here: run the tests as root"));
    }
    find("buildah").map(Buildah).ok_or_else(|| {
        missing("buildah", "buildah is not installed: run hack/install-cluster-parts, or install the package buildah")
    })
}

pub(crate) fn cluster() -> Result<ClusterPart, Missing> {
    let script =
        env::var_os("PREPULL_TEST_CLUSTER").map(PathBuf::from).filter(|file| file.is_file()).ok_or_else(|| {
            missing(
                "cluster",
                "no cluster can be started: set PREPULL_TEST_CLUSTER to the script that starts one (up DIR NODES)",
            )
        })?;
    if !rustix::process::geteuid().is_root() {
        return Err(missing("cluster", "a cluster needs root: run the tests as root"));
    }
    Ok(ClusterPart { script, kubectl: kubectl()? })
}

/// A cluster with settings of its own, which needs the ports of one that is up already.
pub(crate) fn own_cluster() -> Result<ClusterPart, Missing> {
    if env::var_os("PREPULL_TEST_CLUSTER_DIR").is_some() {
        return Err(missing(
            "own-cluster",
            "PREPULL_TEST_CLUSTER_DIR names a cluster, and this trial needs one of its own",
        ));
    }
    cluster()
}

/// Cluster and helm.
pub(crate) fn cluster_and_helm() -> Result<(ClusterPart, Helm), Missing> {
    Ok((cluster()?, helm()?))
}

/// Cluster and the definitions of the prometheus-operator.
pub(crate) fn cluster_and_operator() -> Result<(ClusterPart, Definitions), Missing> {
    Ok((cluster()?, definitions()?))
}

/// Those and Prometheus.
pub(crate) fn monitored_cluster() -> Result<Parts, Missing> {
    Ok((cluster()?, definitions()?, prometheus()?))
}
