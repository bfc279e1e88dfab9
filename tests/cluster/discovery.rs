//! Discovery as a CronJob: what its account may do, and that what it finds gets onto the nodes.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{
    fleet,
    installation::NAMESPACE,
    kube::{self, REGISTRY},
    parts::{ClusterPart, Kubectl},
    render::{Overlay, object},
    rights,
    support::{images::Image, push::Pusher},
};

const COMPONENT: &str = "components/discovery";

/// A renamed ConfigMap is followed by who writes it, who reads it, and the rights of both.
pub(crate) async fn renamed(kubectl: Kubectl) -> Result<()> {
    let objects = Overlay {
        transformers: vec!["transformers/names", "transformers/discovery-names"],
        namespace: Some("images"),
        prefix: Some("acme-"),
        ..Overlay::with(&[COMPONENT])
    }
    .render(&kubectl)?;
    object(&objects, "ConfigMap", "acme-prepull-discovered")?;
    let agent = &object(&objects, "DaemonSet", "acme-prepull")?["spec"]["template"];
    let job = &object(&objects, "CronJob", "acme-prepull-discovery")?["spec"]["jobTemplate"]["spec"]["template"];
    for pod in [agent, job] {
        let variables = pod["spec"]["containers"][0]["env"].as_array().context("no variables")?;
        ensure!(variables.contains(&json!({"name": "DISCOVERED_NAME", "value": "acme-prepull-discovered"})), "{pod:#}");
    }
    for role in ["acme-prepull-discovery", "acme-prepull-discovered"] {
        let rules = &object(&objects, "Role", role)?["rules"];
        ensure!(rules[0]["resourceNames"] == json!(["acme-prepull-discovered"]), "{rules:#}");
    }
    let viewer = &object(&objects, "Role", "acme-prepull-viewer")?["rules"][2];
    ensure!(viewer["resourceNames"] == json!(["acme-prepull", "acme-prepull-discovered"]), "{viewer:#}");
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        let subject = &object(&objects, kind, "acme-prepull-discovery")?["subjects"][0];
        ensure!(subject["name"] == "acme-prepull-discovery" && subject["namespace"] == "images", "{subject:#}");
    }
    Ok(())
}

/// In its own namespace, in any other one, and for the agents.
pub(crate) async fn least_rights(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.grant(&Overlay::with(&[COMPONENT])).await?;
    let lists = [
        "pods [] [] [list]",
        "deployments.apps [] [] [list]",
        "statefulsets.apps [] [] [list]",
        "daemonsets.apps [] [] [list]",
        "jobs.batch [] [] [list]",
        "cronjobs.batch [] [] [list]",
    ];
    let own = "configmaps [] [prepull-discovered] [get patch]";
    rights::expect(kube, "prepull-discovery", NAMESPACE, &[&lists[..], &[own]].concat())?;
    rights::expect(kube, "prepull-discovery", "kube-system", &lists)?;
    let discovered = "configmaps [] [prepull-discovered] [list watch]";
    rights::expect(kube, "prepull", NAMESPACE, &[rights::LIST, rights::EVENTS, discovered])?;
    rights::expect(kube, "prepull", "default", &[])
}

/// A run of the CronJob stocks every node with the image of a workload that runs nowhere yet, and keeps what was applied
/// before it out of the hands of the next `kubectl apply`.
pub(crate) async fn stocks(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    Pusher::new(REGISTRY.to_owned(), None).push("shop/asleep", "1", &Image::small("asleep")?).await?;
    let image = format!("{REGISTRY}/shop/asleep:1");
    kube.namespace("shop")?;
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "asleep", "namespace": "shop"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "asleep"}}, "template": {"metadata": {"labels": {"app": "asleep"}},
        "spec": {"containers": [{"name": "c", "image": image}]}}}});
    kube.kubectl_stdin("apply -f -", &deployment.to_string())?;
    let overlay = Overlay::with(&[COMPONENT]);
    // discovery has never run, and its list makes no node cold
    kube.install(&overlay, "images: []").await?;
    fleet::waits(kube)?;
    let run = |name: &str| -> Result<String> {
        kube.kubectl(&format!("create job --from=cronjob/prepull-discovery -n {NAMESPACE} {name}"))?;
        let ended = kube.kubectl(&format!("wait --for=condition=complete -n {NAMESPACE} job/{name} --timeout=90s"));
        let log = kube.kubectl(&format!("logs -n {NAMESPACE} job/{name}"))?;
        ensure!(ended.is_ok(), "{ended:?}\n{log}");
        Ok(log)
    };
    let said = run("first-discovery")?;
    ensure!(said.contains("prepull/prepull-discovered written"), "{said}");
    kube.until_everywhere(&image).await?;
    kube.rollout(NAMESPACE)?;
    fleet::waits(kube)?;
    let map = || kube.json(&format!("get configmap prepull-discovered -n {NAMESPACE}"));
    let before = map()?;
    let text = before["data"]["images.yaml"].as_str().context("no list")?;
    // the agents' own image is one that a workload uses
    ensure!(text.contains(&image) && text.contains("/prepull:"), "{text}");
    kube.replace(&overlay, "images: []")?;
    ensure!(map()?["data"] == before["data"], "applying again took the list away");
    let said = run("second-discovery")?;
    ensure!(said.contains("prepull/prepull-discovered unchanged"), "{said}");
    // the CronJob keeps one of them and removes the other by itself
    kube.kubectl(&format!("delete jobs -n {NAMESPACE} first-discovery second-discovery --ignore-not-found"))?;
    kube.kubectl("delete namespace shop --wait=false").map(drop)
}
