//! What the manifests render to, and whether a real API server takes it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    kube,
    parts::{ClusterPart, Kubectl},
    render::{Overlay, folders, object, repository},
    support::operator::Definitions,
};

fn renamed_overlay(transformers: &[&'static str]) -> Overlay {
    Overlay {
        components: vec!["components/node-writes", "components/readiness-gate"],
        transformers: transformers.to_vec(),
        namespace: Some("images"),
        prefix: Some("acme-"),
        ..Overlay::default()
    }
    .container("env: [{name: PREPULL_STARTUP_TAINT, value: acme.example/cold}]")
}

/// Kustomize does not look into CEL, arguments and names of a Role: the transformers do.
pub(crate) async fn renamed(kubectl: Kubectl) -> Result<()> {
    let guarded = |objects: &[Value], policy: &str| -> Result<String> {
        let policy = object(objects, "ValidatingAdmissionPolicy", policy)?;
        Ok(policy["spec"]["matchConditions"][0]["expression"].as_str().unwrap_or_default().to_owned())
    };
    let without = renamed_overlay(&[]).render(&kubectl)?;
    let old = "request.userInfo.username == ['system:serviceaccount', 'prepull', 'prepull'].join(':')";
    ensure!(
        guarded(&without, "own-node")? == old,
        "kustomize looks into CEL now: the transformers are not needed any more"
    );

    let with = renamed_overlay(&["transformers/names", "transformers/startup-taint"]).render(&kubectl)?;
    let new = "request.userInfo.username == ['system:serviceaccount', 'images', 'acme-prepull'].join(':')";
    for policy in ["own-node", "own-pod"] {
        let guarded = guarded(&with, policy)?;
        ensure!(guarded == new, "{policy} guards {guarded}");
        let binding = object(&with, "ValidatingAdmissionPolicyBinding", policy)?;
        ensure!(binding["spec"]["policyName"] == format!("acme-prepull-{policy}"), "{binding:#}");
    }
    let policy = object(&with, "ValidatingAdmissionPolicy", "own-node")?;
    let taint = policy["spec"]["variables"].as_array().into_iter().flatten().find(|v| v["name"] == "startupTaint");
    ensure!(taint.context("no variable startupTaint")?["expression"] == "'acme.example/cold'", "{taint:?}");

    let container = &object(&with, "DaemonSet", "prepull")?["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["args"][1] == "--configmap=$(POD_NAMESPACE)/$(CONFIGMAP_NAME)", "{container:#}");
    ensure!(variable(container, "CONFIGMAP_NAME") == "acme-prepull", "{container:#}");
    ensure!(object(&with, "Role", "acme-prepull")?["rules"][0]["resourceNames"][0] == "acme-prepull");
    ensure!(
        object(&with, "Role", "node-events")?["metadata"]["namespace"] == "default",
        "Events about Nodes belong there"
    );
    for binding in with.iter().filter(|o| o["kind"] == "RoleBinding" || o["kind"] == "ClusterRoleBinding") {
        let subject = &binding["subjects"][0];
        ensure!(subject["name"] == "acme-prepull" && subject["namespace"] == "images", "{binding:#}");
    }
    Ok(())
}

fn variable<'a>(container: &'a Value, name: &str) -> &'a Value {
    let variables = container["env"].as_array().into_iter().flatten();
    variables.filter(|v| v["name"] == name).map(|v| &v["value"]).next().unwrap_or(&Value::Null)
}

/// The transformers leave alone what another component put in place of what they replace.
pub(crate) async fn renamed_with_others(kubectl: Kubectl) -> Result<()> {
    let rendered = |base, component, transformers: &[&'static str]| -> Result<Vec<Value>> {
        Overlay {
            base,
            components: Vec::from_iter(component),
            transformers: transformers.to_vec(),
            namespace: Some("images"),
            prefix: Some("acme-"),
            ..Overlay::default()
        }
        .render(&kubectl)
    };
    let arguments = |objects: &[Value]| -> Result<Value> {
        Ok(object(objects, "DaemonSet", "prepull")?["spec"]["template"]["spec"]["containers"][0]["args"].clone())
    };
    let cleanup = rendered(None, Some("components/cleanup"), &["transformers/names"])?;
    ensure!(arguments(&cleanup)? == json!(["agent", "--cleanup"]));
    let mounted = rendered(None, Some("components/mounted-list"), &["transformers/names"])?;
    ensure!(arguments(&mounted)? == json!(["agent"]));
    let volumes = &object(&mounted, "DaemonSet", "prepull")?["spec"]["template"]["spec"]["volumes"];
    ensure!(
        volumes.as_array().is_some_and(|v| v.iter().any(|v| v["configMap"]["name"] == "acme-prepull")),
        "{volumes:#}"
    );
    let names = ["transformers/names", "transformers/openshift-names"];
    let openshift = rendered(Some("overlays/openshift"), None, &names)?;
    let wanted = &object(&openshift, "SecurityContextConstraints", "prepull")?["metadata"]["name"];
    let template = &object(&openshift, "DaemonSet", "prepull")?["spec"]["template"];
    ensure!(wanted == "acme-prepull" && template["metadata"]["annotations"]["openshift.io/required-scc"] == *wanted);
    ensure!(object(&openshift, "Role", "prepull-scc")?["rules"][0]["resourceNames"][0] == *wanted);
    Ok(())
}

/// A list that comes as a volume needs no rights: none must be left.
pub(crate) async fn mounted_list(kubectl: Kubectl) -> Result<()> {
    let objects = Overlay::with(&["components/mounted-list"]).render(&kubectl)?;
    // the role for people who look stays, which is bound to nobody
    let rights = |o: &&Value| o["kind"].as_str().is_some_and(|kind| kind.contains("Role"));
    let rights: Vec<_> = objects.iter().filter(rights).map(|o| &o["metadata"]["name"]).collect();
    ensure!(rights == ["prepull-viewer"], "{rights:?}");
    let pod = &object(&objects, "DaemonSet", "prepull")?["spec"]["template"]["spec"];
    ensure!(pod["automountServiceAccountToken"] == false, "{pod:#}");
    let container = &pod["containers"][0];
    ensure!(container["args"] == json!(["agent"]), "{pod:#}");
    ensure!(variable(container, "PREPULL_IMAGES") == "/etc/prepull/images.yaml", "{pod:#}");
    Ok(())
}

/// Pods have no place to write to: whatever is installed, the root and every mount are read-only.
pub(crate) async fn nowhere_to_write(kubectl: Kubectl) -> Result<()> {
    let mut folders = [folders("base")?, folders("overlays")?, folders("components")?].concat();
    folders.retain(|folder| !folder.ends_with("team"));
    let mut seen = 0;
    for folder in folders {
        let name = folder.strip_prefix(repository().join("manifests"))?.display().to_string();
        // as long as the test runs, which is short
        let name: &'static str = name.leak();
        let overlay = if name.starts_with("components") { Overlay::with(&[name]) } else { Overlay::of(name) };
        for object in overlay.render(&kubectl)? {
            let pod = match object["kind"].as_str() {
                Some("DaemonSet") => &object["spec"]["template"]["spec"],
                Some("CronJob") => &object["spec"]["jobTemplate"]["spec"]["template"]["spec"],
                _ => continue,
            };
            for container in pod["containers"].as_array().context("no containers")? {
                seen += 1;
                ensure!(container["securityContext"]["readOnlyRootFilesystem"] == true, "{name}: {container:#}");
                let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
                ensure!(mounts.all(|mount| mount["readOnly"] == true), "{name}: {container:#}");
            }
        }
    }
    ensure!(seen >= 18, "{seen} containers were looked at");
    Ok(())
}

/// Every component alone, all that go together, every overlay, the cleanup and a renamed one.
pub(crate) async fn server_dry_run((part, definitions): (ClusterPart, Definitions)) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.define(&definitions).await?;
    for namespace in ["prepull", "images", "team-a"] {
        kube.namespace(namespace)?;
    }
    kube.kubectl_stdin("apply -f -", SECURITY_CONTEXT_CONSTRAINTS)?;
    kube.kubectl(
        "wait --for=condition=Established crd/securitycontextconstraints.security.openshift.io --timeout=30s",
    )?;
    let mut tried = 0;
    let mut dry_run = |folder: &std::path::Path| -> Result<()> {
        tried += 1;
        let said = kube.kubectl_with("apply --dry-run=server -k", &folder.display().to_string())?;
        let created = said.lines().filter(|line| line.ends_with("(server dry run)")).count();
        ensure!(created >= 5 || folder.ends_with("team"), "{}: {said}", folder.display());
        Ok(())
    };
    let manifests = repository().join("manifests");
    for folder in [&folders("base")?[..], &folders("overlays")?, &folders("cleanup")?].concat() {
        dry_run(&folder)?;
    }
    let temporary = tempfile::tempdir()?;
    let mut overlays = vec![renamed_overlay(&["transformers/names", "transformers/startup-taint"])];
    for folder in folders("components")? {
        let name = folder.strip_prefix(&manifests)?.to_str().context("a name is not UTF-8")?.to_owned();
        if name.ends_with("/team") {
            dry_run(&folder)?;
            continue;
        }
        // as long as the test runs, which is short
        overlays.push(Overlay::with(&[name.leak()]));
    }
    let together = overlays[1..].iter().flat_map(|o| o.components.clone());
    overlays.push(Overlay::with(
        &together.filter(|c| !c.ends_with("mounted-list") && !c.ends_with("cleanup")).collect::<Vec<_>>(),
    ));
    ensure!(overlays.len() >= 14, "components are missing: {overlays:?}");
    for (number, overlay) in overlays.iter().enumerate() {
        let folder = temporary.path().join(number.to_string());
        overlay.write(&folder)?;
        dry_run(&folder).with_context(|| format!("{overlay:?}"))?;
    }
    eprintln!("{tried} kustomizations were accepted");
    Ok(())
}

/// OpenShift's resource as far as an API server without OpenShift needs it: its name. Its fields are not checked by this.
const SECURITY_CONTEXT_CONSTRAINTS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: securitycontextconstraints.security.openshift.io}
spec:
  group: security.openshift.io
  scope: Cluster
  names: {kind: SecurityContextConstraints, plural: securitycontextconstraints, singular: securitycontextconstraints}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
