//! The chart: that it is sound, that it renders what kustomize renders, and that helm runs it through its life on a cluster.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    image,
    kube::{self, NODES, REGISTRY, run},
    parts::{ClusterPart, Helm, Kubectl},
    render::{Overlay, objects, repository},
    support::{images::Image, push::Pusher},
};

fn template(helm: &Helm, values: &[&str]) -> Result<String> {
    let mut command = Command::new(&helm.0);
    command.args(["template", "prepull"]).arg(repository().join("charts/prepull")).args(["--namespace", "prepull"]);
    for value in values {
        command.args(["--set", value]);
    }
    run(&mut command)
}

pub(crate) async fn lints(helm: Helm) -> Result<()> {
    let said = run(Command::new(&helm.0).args(["lint", "--strict"]).arg(repository().join("charts/prepull")))?;
    ensure!(said.contains("0 chart(s) failed") && !said.contains("[WARNING]"), "{said}");
    Ok(())
}

/// The digest of the image wins over its tag, in every pod.
pub(crate) async fn digest(helm: Helm) -> Result<()> {
    let digest = format!("sha256:{}", "a".repeat(64));
    let text = template(&helm, &["discovery.enabled=true", "image.tag=moved", &format!("image.digest={digest}")])?;
    let images: Vec<_> = text.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
    let wanted = format!("ghcr.io/prepull/prepull@{digest}");
    ensure!(images.len() == 2 && images.iter().all(|image| *image == wanted), "{images:?}");
    Ok(())
}

/// A value that cannot work is refused before anything is installed.
pub(crate) async fn schema(helm: Helm) -> Result<()> {
    for wrong in [
        "nodeWrites.fields={annotation}",
        "nodeWrites.startupTaint=not'a'key",
        "nodeDockerConfig.folder=/var/lib/kubelet",
        "runtime.kind=docker",
        "maxUnavailable=100%",
        "maxUnavailable=0",
        "maxUnavailable=0%",
        "mountedList=true,readinessGate=true",
        "mountedList=true,clusterWideCap.slots=5",
        "clusterWideCap.slots=-1",
        "mountedList=true,discovery.enabled=true",
        "discovery.namespaces={Not a namespace}",
        "mountedList=true,nodeWrites.fields={label}",
        "mountedList=true,teamLists.namespace=team-a",
        "settings.PREPULL_STARTUP_TAINT=acme.example/cold",
        "settings.PREPULL_READINESS_GATE=false",
        "lists.images={}",
        "settings.RESYNC=5m",
        "image.digest=latest",
        "pullSecrets.secrets={Not A Name}",
        "list.images[0].name=no-image",
        "monitoring.podMonitor.interval=often",
        "monitoring.prometheusRule.rules=none",
    ] {
        let refused = template(&helm, &[wrong]).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(refused.contains("values don't meet the specifications of the schema"), "{wrong}: {refused}");
    }
    for (values, why) in [
        ("existingList=mine,list.images={a:1}", "existingList and list.images exclude each other"),
        ("cleanup=true", "cleanup needs nodeWrites.fields"),
    ] {
        let refused = template(&helm, &[values]).err().map(|e| e.to_string()).unwrap_or_default();
        ensure!(refused.contains(why), "{refused}");
    }
    template(&helm, &["list.images={a:1,b:2}", "maxUnavailable=3", "settings.PREPULL_RESYNC=5m"]).map(drop)
}

/// Every knob beside its component.
pub(crate) async fn same_objects((helm, kubectl): (Helm, Kubectl)) -> Result<()> {
    let node_writes = "nodeWrites.fields={condition,label,taint}";
    let monitoring =
        "monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true,monitoring.dashboard.enabled=true";
    let team =
        Overlay { more_resources: vec!["components/team-lists/team"], ..Overlay::with(&["components/team-lists"]) };
    let all =
        ["components/node-selection", "components/node-writes", "components/readiness-gate", "components/host-network"];
    let secrets = |of: &str| format!("{of}.secrets={{registry-credentials}},{of}.serviceAccounts={{default}}");
    let team_values = format!("teamLists.namespace=team-a,{}", secrets("teamLists"));
    let pull_secrets = secrets("pullSecrets");
    let together = format!("nodeSelection=true,readinessGate=true,hostNetwork=true,{node_writes}");
    let pairs: Vec<(Overlay, &str)> = vec![
        (Overlay::default(), "cleanup=false"),
        (Overlay::with(&["components/mounted-list"]), "mountedList=true"),
        (Overlay::with(&["components/node-selection"]), "nodeSelection=true"),
        (Overlay::with(&["components/pull-secrets"]), &pull_secrets),
        (team, &team_values),
        (Overlay::with(&["components/node-writes"]), node_writes),
        (Overlay::with(&["components/readiness-gate"]), "readinessGate=true"),
        (Overlay::with(&["components/cluster-wide-cap"]), "clusterWideCap.slots=50"),
        (Overlay::with(&["components/node-docker-config"]), "nodeDockerConfig.enabled=true"),
        (Overlay::with(&["components/root-no-caps"]), "rootNoCaps=true"),
        (Overlay::with(&["components/host-network"]), "hostNetwork=true"),
        (Overlay::with(&["components/network-policy"]), "networkPolicy=true"),
        (Overlay::with(&["components/monitoring"]), monitoring),
        (Overlay::with(&["components/discovery"]), "discovery.enabled=true"),
        (Overlay::with(&["components/credential-plugins/eks"]), "credentialPlugins=eks"),
        (Overlay::with(&["components/credential-plugins/gke"]), "credentialPlugins=gke"),
        (Overlay::with(&["components/credential-plugins/aks"]), "credentialPlugins=aks"),
        (Overlay::with(&all), &together),
        (Overlay::of("overlays/k3s"), "runtime.kind=k3s"),
        (Overlay::of("overlays/crio"), "runtime.kind=crio"),
        (Overlay::of("overlays/openshift"), "openshift=true,runtime.kind=crio"),
        (Overlay::of("cleanup"), "cleanup=true,nodeWrites.fields={condition,label,taint}"),
        (Overlay::with(&["components/mounted-list", "components/cleanup"]), "mountedList=true,cleanup=true"),
        (
            Overlay::with(&["components/node-writes", "components/readiness-gate", "components/cleanup"]),
            "cleanup=true,readinessGate=true,nodeWrites.fields={condition,label,taint}",
        ),
    ];
    for (overlay, values) in pairs {
        let kustomize = by_name(overlay.render(&kubectl)?)?;
        let chart = by_name(objects(&template(&helm, &[values])?)?)?;
        let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<Vec<_>>();
        ensure!(
            names(&kustomize) == names(&chart),
            "{values}: kustomize {:?}, helm {:?}",
            names(&kustomize),
            names(&chart)
        );
        for (name, object) in &kustomize {
            let other = &chart[name];
            ensure!(object == other, "{values}: {name} differs: {}", first_difference("", object, other));
        }
    }
    Ok(())
}

/// Objects by kind, namespace and name, without what only one of the two can have.
fn by_name(objects: Vec<Value>) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for mut object in objects {
        // helm's own option makes the release's namespace, before the chart could
        if object["kind"] == "Namespace" {
            continue;
        }
        let text = |field: &Value| field.as_str().unwrap_or("-").to_owned();
        let name = format!(
            "{} {}/{}",
            text(&object["kind"]),
            text(&object["metadata"]["namespace"]),
            text(&object["metadata"]["name"])
        );
        normalize(&mut object);
        if let Some(list) = object["data"]["images.yaml"].as_str() {
            object["data"]["images.yaml"] = serde_yaml::from_str(list).context("the list is no YAML")?;
        }
        ensure!(all.insert(name.clone(), object).is_none(), "{name} was rendered twice");
    }
    Ok(all)
}

fn normalize(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for label in [
                "app.kubernetes.io/instance",
                "app.kubernetes.io/version",
                "app.kubernetes.io/managed-by",
                "helm.sh/chart",
            ] {
                fields.remove(label);
            }
            for (field, value) in fields.iter_mut() {
                normalize(value);
                // lists whose order means nothing
                let key = match field.as_str() {
                    "env" | "volumes" => "name",
                    "volumeMounts" => "mountPath",
                    _ => continue,
                };
                if let Some(items) = value.as_array_mut() {
                    items.sort_by_key(|item| item[key].as_str().map(str::to_owned));
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn first_difference(path: &str, left: &Value, right: &Value) -> String {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys()).find(|key| a.get(*key) != b.get(*key));
            let Some(key) = keys else { return String::new() };
            first_difference(
                &format!("{path}.{key}"),
                a.get(key).unwrap_or(&Value::Null),
                b.get(key).unwrap_or(&Value::Null),
            )
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or_default();
            first_difference(&format!("{path}[{at}]"), &a[at], &b[at])
        }
        _ => format!("{path}: kustomize has {left}, helm has {right}"),
    }
}

/// Install, upgrade, rollback and uninstall, each as its users run it.
pub(crate) async fn life((part, helm): (ClusterPart, Helm)) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.installed().await.take();
    kube.uninstall()?;
    let pusher = Pusher::new(REGISTRY.to_owned(), None);
    for name in ["first", "second"] {
        pusher.push(&format!("helm/{name}"), "1", &Image::small(&format!("helm {name}"))?).await?;
    }
    let (first, second) = (format!("{REGISTRY}/helm/first:1"), format!("{REGISTRY}/helm/second:1"));
    let helm_says = |arguments: &str, values: &[String]| -> Result<String> {
        let mut command = Command::new(&helm.0);
        command
            .env("KUBECONFIG", kube.kubeconfig())
            .args(arguments.split_whitespace())
            .args(["--namespace", "by-helm"]);
        for value in values {
            command.args(["--set", value]);
        }
        run(&mut command)
    };
    let chart = repository().join("charts/prepull").display().to_string();
    kube.namespace("by-helm")?;
    kube.kubectl("label namespace by-helm --overwrite pod-security.kubernetes.io/enforce=privileged")?;
    let image = format!("image.repository={REGISTRY}/prepull,image.tag={}", image::tag()?);
    let said = helm_says(
        &format!("install warmer {chart} --wait --timeout 120s"),
        &[image.clone(), format!("list.images={{{first}}}")],
    )?;
    ensure!(said.contains("rollout status daemonset/warmer-prepull"), "{said}");
    // `--wait` came back: all nodes are warm but the one that maxUnavailable allows
    let mut warm = 0;
    for node in NODES {
        let images = kube.images_on(node).await?;
        ensure!(!images.contains(&second), "{node} has {images:?}");
        warm += usize::from(images.contains(&first));
    }
    ensure!(warm >= NODES.len() - 1, "helm waited for {warm} nodes");
    kube.rollout("by-helm")?;
    kube.until_everywhere(&first).await?;
    helm_says(
        &format!("upgrade warmer {chart} --wait --timeout 120s"),
        &[image, format!("list.images={{{first},{second}}}"), "nodeSelection=true".to_owned()],
    )?;
    kube.until_everywhere(&second).await?;
    kube.kubectl("get clusterrole warmer-prepull-node-selection")?;
    helm_says("rollback warmer 1 --wait --timeout 120s", &[])?;
    ensure!(kube.kubectl("get clusterrole warmer-prepull-node-selection").is_err(), "a rollback takes rights back");
    let map = kube.json("get configmap warmer-prepull -n by-helm")?;
    ensure!(!map["data"]["images.yaml"].as_str().unwrap_or_default().contains("second"), "{map:#}");
    helm_says("uninstall warmer --wait --timeout 60s", &[])?;
    let left = kube.kubectl("get daemonsets,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,configmaps,resourcequotas -A -o name -l app.kubernetes.io/instance=warmer")?;
    ensure!(left.trim().is_empty(), "helm left {left}");
    Ok(())
}
