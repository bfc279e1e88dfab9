//! What the admission policies let an agent's token do, and what they refuse, on the real API server.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    installation::{NAMESPACE, list},
    kube::{self, Caller, Kube},
    parts::ClusterPart,
    render::Overlay,
};

const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
/// How often a new policy is asked for before it counts as not in force.
const NOT_YET: usize = 50;

fn overlay() -> Overlay {
    Overlay::with(&["components/node-writes", "components/readiness-gate"])
}

/// A patch of an object: the same change may be allowed on one's own and must be refused on another's.
struct Patch {
    what: &'static str,
    kind: &'static str,
    status: bool,
    body: Value,
}

fn patch(what: &'static str, kind: &'static str, status: bool, body: Value) -> Patch {
    Patch { what, kind, status, body }
}

/// Sends a patch as a dry run: admission sees it as it would the real one.
fn send(caller: &Caller<'_>, object: &str, patch: &Patch, dry: bool) -> Result<(u16, String)> {
    let subresource = if patch.status { "/status" } else { "" };
    let manager = if patch.kind == APPLY { "&fieldManager=prepull&force=true" } else { "" };
    let dry = if dry { "dryRun=All" } else { "" };
    caller.send("PATCH", &format!("{object}{subresource}?{dry}{manager}"), patch.kind, &patch.body.to_string())
}

fn refused(caller: &Caller<'_>, object: &str, patch: &Patch) -> Result<()> {
    let (code, answer) = send(caller, object, patch, true)?;
    ensure!(code == 403 && answer.contains("ValidatingAdmissionPolicy"), "{} of {object}: {code} {answer}", patch.what);
    Ok(())
}

/// A policy takes a moment to come into force.
async fn in_force(caller: &Caller<'_>, object: &str, forbidden: &Patch) -> Result<()> {
    let mut last = Ok(());
    for _ in 0..NOT_YET {
        last = refused(caller, object, forbidden);
        if last.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    last.context("the policy does not come into force")
}

fn condition() -> Value {
    json!({"type": "ImagesPrepulled", "status": "False", "reason": "Test", "message": "of a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": "2026-01-01T00:00:00Z"})
}

/// Where a field of the condition Ready is in an object, for a JSON patch.
fn ready(object: &Value, field: &str) -> String {
    let all = object["status"]["conditions"].as_array();
    let at = all.and_then(|all| all.iter().position(|condition| condition["type"] == "Ready"));
    format!("/status/conditions/{}/{field}", at.unwrap_or_default())
}

/// Waits until the agent has written its own condition: from then on the others keep their places.
async fn written(kube: &Kube, get: &str, kind: &str) -> Result<()> {
    kube.until(&format!("{get} has the condition {kind}"), async || {
        let object = kube.json(get)?;
        let conditions = object["status"]["conditions"].as_array();
        Ok(conditions.is_some_and(|all| all.iter().any(|c| c["type"] == kind)).then_some(()))
    })
    .await
}

/// The node with the taints of this test; the start-up taint is the second.
fn tainted(kube: &Kube, node: &str) -> Result<Value> {
    kube.kubectl(&format!(
        "taint node {node} --overwrite team.example/own=1:PreferNoSchedule prepull.dev/not-warm=:PreferNoSchedule"
    ))?;
    kube.json(&format!("get node {node}"))
}

pub(crate) async fn own_node(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    // an image that is nowhere keeps the agent from removing the taint itself
    kube.install(&overlay(), &list(&["127.0.0.1:5000/nowhere:1"])).await?;
    let pod = kube.agent_on(NAMESPACE, "node1").await?;
    let agent = kube.token(NAMESPACE, Some(&pod))?;
    let nobody = kube.token(NAMESPACE, None)?;
    let (own, other) = ("/api/v1/nodes/node1", "/api/v1/nodes/node2");
    in_force(&agent, other, &patch("unschedulable", MERGE, false, json!({"spec": {"unschedulable": true}}))).await?;
    written(kube, "get node node1", "ImagesPrepulled").await?;
    let node = tainted(kube, "node1")?;
    tainted(kube, "node2")?;

    let allowed = allowed(&node)?;
    for patch in &allowed {
        let (code, answer) = send(&agent, own, patch, true)?;
        ensure!(code == 200, "{} was refused: {code} {answer}", patch.what);
        // with the other node's own resource version, or the store would refuse it before admission does
        let elsewhere = Patch { body: without_version(&patch.body), ..*patch };
        refused(&agent, other, &elsewhere)?;
        refused(&nobody, own, &elsewhere)?;
    }
    for patch in forbidden(&node) {
        refused(&agent, own, &patch)?;
        refused(&agent, other, &patch)?;
    }
    for (method, path) in [
        ("DELETE", own),
        ("PUT", own),
        ("PUT", "/api/v1/nodes/node1/status"),
        ("POST", "/api/v1/nodes"),
        ("GET", "/api/v1/nodes/node1/proxy/"),
    ] {
        let (code, answer) = agent.send(method, path, "application/json", &node.to_string())?;
        ensure!(code == 403, "{method} {path}: {code} {answer}");
    }
    // really, and nothing else of the Node is lost
    let (code, answer) = send(&agent, own, &allowed[0], false)?;
    ensure!(code == 200, "{code} {answer}");
    let after = kube.json("get node node1")?;
    let types = |node: &Value| -> Vec<String> {
        let all = node["status"]["conditions"].as_array().into_iter().flatten();
        all.filter_map(|c| c["type"].as_str()).filter(|t| *t != "ImagesPrepulled").map(str::to_owned).collect()
    };
    ensure!(types(&after) == types(&node) && types(&after).contains(&"Ready".to_owned()), "{after:#}");
    kube.kubectl("taint node node1 node2 team.example/own- prepull.dev/not-warm-").map(drop)
}

fn without_version(body: &Value) -> Value {
    let mut body = body.clone();
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        // a name in the body must be the name in the path
        metadata.remove("name");
    }
    body
}

/// What an agent writes to its own Node, in every way that kubernetes keeps whole.
fn allowed(node: &Value) -> Result<Vec<Patch>> {
    let taints = node["spec"]["taints"].as_array().context("no taints")?;
    let at = taints.iter().position(|t| t["key"] == "prepull.dev/not-warm").context("no start-up taint")?;
    let kept: Vec<_> = taints.iter().filter(|t| t["key"] != "prepull.dev/not-warm").collect();
    let label = json!({"prepull.dev/warm": "true"});
    let apply = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}, "status": {"conditions": [condition()]}});
    Ok(vec![
        patch(
            "condition and label",
            STRATEGIC,
            true,
            json!({"metadata": {"labels": label}, "status": {"conditions": [condition()]}}),
        ),
        patch("condition, applied", APPLY, true, apply),
        patch("label at the Node", MERGE, false, json!({"metadata": {"labels": {"prepull.dev/warm": "false"}}})),
        patch("no label any more", MERGE, true, json!({"metadata": {"labels": {"prepull.dev/warm": null}}})),
        patch(
            "no taint, by place",
            JSON,
            false,
            json!([
                {"op": "test", "path": format!("/spec/taints/{at}/key"), "value": "prepull.dev/not-warm"},
                {"op": "remove", "path": format!("/spec/taints/{at}")},
            ]),
        ),
        patch(
            "no taint, by list",
            MERGE,
            false,
            json!({
                "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": {"taints": kept},
            }),
        ),
    ])
}

/// What no agent may write to any Node's metadata, through the Node and through its status.
fn of_metadata() -> Vec<Patch> {
    let mut all = Vec::new();
    for status in [false, true] {
        let extra = json!({"role.example/admin": "true"});
        all.extend([
            patch("another label, merged", MERGE, status, json!({"metadata": {"labels": extra}})),
            patch("another label, strategic", STRATEGIC, status, json!({"metadata": {"labels": extra}})),
            patch(
                "another label, by place",
                JSON,
                status,
                json!([{"op": "add", "path": "/metadata/labels/role.example~1admin", "value": "true"}]),
            ),
            patch(
                "another label, applied",
                APPLY,
                status,
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"labels": extra}}),
            ),
            patch("a label removed", MERGE, status, json!({"metadata": {"labels": {"kubernetes.io/os": null}}})),
            patch("another value", MERGE, status, json!({"metadata": {"labels": {"prepull.dev/warm": "maybe"}}})),
            patch("an annotation", MERGE, status, json!({"metadata": {"annotations": {"a.example/b": "c"}}})),
            patch("a finalizer", MERGE, status, json!({"metadata": {"finalizers": ["a.example/b"]}})),
        ]);
    }
    all
}

/// What no agent may write to any Node.
fn forbidden(node: &Value) -> Vec<Patch> {
    let place = |field: &str| ready(node, field);
    let taints = node["spec"]["taints"].clone();
    let more = |extra: Value| {
        json!([extra].into_iter().chain(taints.as_array().cloned().unwrap_or_default()).collect::<Vec<_>>())
    };
    let new_taint = json!({"key": "prepull.dev/other", "effect": "NoExecute"});
    let mut all = vec![
        patch("all conditions replaced", MERGE, true, json!({"status": {"conditions": [condition()]}})),
        patch(
            "another condition",
            STRATEGIC,
            true,
            json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}),
        ),
        patch(
            "another condition more",
            STRATEGIC,
            true,
            json!({"status": {"conditions": [{"type": "Other", "status": "True"}]}}),
        ),
        patch(
            "a condition removed",
            STRATEGIC,
            true,
            json!({"status": {"conditions": [{"type": "Ready", "$patch": "delete"}]}}),
        ),
        patch(
            "a condition by place",
            JSON,
            true,
            json!([{"op": "replace", "path": place("status"), "value": "True"},
            {"op": "replace", "path": place("reason"), "value": "Mine"}]),
        ),
        patch(
            "its condition once more, by place",
            JSON,
            true,
            json!([{"op": "add", "path": "/status/conditions/-", "value": condition()},
            {"op": "add", "path": "/status/conditions/-", "value": condition()}]),
        ),
        patch("capacity", MERGE, true, json!({"status": {"capacity": {"cpu": "1000"}}})),
        patch(
            "capacity, added",
            JSON,
            true,
            json!([{"op": "add", "path": "/status/capacity/example.com~1gpu", "value": "8"}]),
        ),
        patch(
            "allocatable, applied",
            APPLY,
            true,
            json!({"apiVersion": "v1", "kind": "Node", "status": {"allocatable": {"cpu": "1000"}}}),
        ),
        patch("images", MERGE, true, json!({"status": {"images": [{"names": ["a:1"], "sizeBytes": 1}]}})),
        patch(
            "address",
            STRATEGIC,
            true,
            json!({"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.99"}]}}),
        ),
        patch("kubelet port", MERGE, true, json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}})),
        patch("unschedulable", MERGE, false, json!({"spec": {"unschedulable": true}})),
        patch(
            "unschedulable, applied",
            APPLY,
            false,
            json!({"apiVersion": "v1", "kind": "Node", "spec": {"unschedulable": true}}),
        ),
        patch("provider", STRATEGIC, false, json!({"spec": {"providerID": "test://1"}})),
        patch("a taint more, by list", MERGE, false, json!({"spec": {"taints": more(new_taint.clone())}})),
        patch(
            "a taint more, by place",
            JSON,
            false,
            json!([{"op": "add", "path": "/spec/taints/-", "value": new_taint}]),
        ),
        patch(
            "a taint more, applied",
            APPLY,
            false,
            json!({"apiVersion": "v1", "kind": "Node", "spec": {"taints": [new_taint]}}),
        ),
        patch("no taints at all", MERGE, false, json!({"spec": {"taints": null}})),
        patch(
            "a stronger effect",
            MERGE,
            false,
            json!({"spec": {"taints": [
            {"key": "team.example/own", "value": "1", "effect": "NoExecute"}, {"key": "prepull.dev/not-warm", "effect": "PreferNoSchedule"}]}}),
        ),
    ];
    all.extend(of_metadata());
    all.push(patch(
        "an owner",
        MERGE,
        false,
        json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "node2", "uid": "0"}]}}),
    ));
    all
}

pub(crate) async fn own_pod(part: ClusterPart) -> Result<()> {
    let kube = kube::up(&part)?;
    kube.install(&overlay(), &list(&["127.0.0.1:5000/nowhere:1"])).await?;
    let pod = kube.agent_on(NAMESPACE, "node1").await?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    written(kube, &format!("get pod {name} -n {NAMESPACE}"), "prepull.dev/Warm").await?;
    let pod = kube.agent_on(NAMESPACE, "node1").await?;
    let place = |field: &str| ready(&pod, field);
    let stranger = kube.agent_on(NAMESPACE, "node2").await?;
    let agent = kube.token(NAMESPACE, Some(&pod))?;
    let path = |pod: &Value| {
        format!("/api/v1/namespaces/{NAMESPACE}/pods/{}", pod["metadata"]["name"].as_str().unwrap_or_default())
    };
    let (own, other) = (path(&pod), path(&stranger));
    let gate = json!({"type": "prepull.dev/Warm", "status": "False", "reason": "Test"});
    let status = |field: Value| json!({"status": field});
    let phase = patch("phase", MERGE, true, status(json!({"phase": "Succeeded"})));
    in_force(&agent, &own, &phase).await?;

    let warm = patch("gate", STRATEGIC, true, status(json!({"conditions": [gate]})));
    let (code, answer) = send(&agent, &own, &warm, true)?;
    ensure!(code == 200, "{code} {answer}");
    refused(&agent, &other, &warm)?;
    refused(&kube.token(NAMESPACE, None)?, &own, &warm)?;
    let forbidden = [
        phase,
        patch("all conditions replaced", MERGE, true, status(json!({"conditions": [gate]}))),
        patch("Ready", STRATEGIC, true, status(json!({"conditions": [{"type": "Ready", "status": "Unknown"}]}))),
        patch("Ready by place", JSON, true, json!([{"op": "replace", "path": place("reason"), "value": "Mine"}])),
        patch("address", MERGE, true, status(json!({"podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}]}))),
        patch("containers", MERGE, true, status(json!({"containerStatuses": []}))),
        patch("label", MERGE, true, json!({"metadata": {"labels": {"app": "other"}}})),
        patch(
            "label, applied",
            APPLY,
            true,
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"app": "other"}}}),
        ),
        patch("annotation", STRATEGIC, true, json!({"metadata": {"annotations": {"a": "b"}}})),
    ];
    for patch in &forbidden {
        refused(&agent, &own, patch)?;
    }
    // the Pod itself and its other parts: not even RBAC admits them
    for part in ["", "/ephemeralcontainers", "/resize"] {
        let (code, answer) = agent.send(
            "PATCH",
            &format!("{own}{part}"),
            MERGE,
            &json!({"metadata": {"labels": {"a": "b"}}}).to_string(),
        )?;
        ensure!(code == 403, "{part}: {code} {answer}");
    }
    Ok(())
}
