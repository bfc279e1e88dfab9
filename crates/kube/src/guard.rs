//! Whether an admission policy stands behind a right that is wider than what this agent does with it.
//!
//! RBAC cannot say "only your own Node" or "only this one condition". So nothing is written before dry runs of forbidden
//! changes were refused: another label, condition and taint of the own Node, and the agent's own fields of another Node. A policy
//! that was renamed, or names another service account, matches nobody, and says nothing; one that was edited may guard a part only.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    access::{self, Right},
    node::CONDITION,
    watch::Trouble,
};
use prepull_core::{node_view::NodeView, node_writes::LABEL};

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// Forbidden changes are refused.
    Stands,
    /// A forbidden change would have been accepted: nothing is written.
    Missing,
    /// The right to write at all is absent.
    NoRight(String),
    /// It could not be found out.
    Unclear(String),
}

/// What nobody may write; it never leaves a dry run.
const PROBE: &str = "prepull.dev/guard-probe";

/// How the API server words a denial by a policy, and by a webhook.
const DENIED: [&str; 2] = ["denied request", "denied the request"];

/// A change that must be refused, as a dry run.
struct Probe {
    of_status: bool,
    change: Patch<Value>,
}

fn probe_label() -> Value {
    json!({"metadata": {"labels": {PROBE: "true"}}})
}

fn probe_condition() -> Value {
    json!({"status": {"conditions": [{"type": PROBE, "status": "False", "reason": "Probe", "message": "dry run"}]}})
}

/// Whether writes to this node are guarded: nothing but the agent's own fields can be changed on it, and nothing at all on another
/// Node. `node` is how this one looks, `taint_key` the taint that may be removed. A cluster of one node has no other Node to
/// protect, so none is tried there.
pub async fn of_node(client: &Client, name: &str, node: &NodeView, taint_key: &str) -> Guard {
    let found = match refuses_foreign_fields(client, name, node, taint_key).await {
        Guard::Stands => refuses_other_nodes(client, name).await,
        other => other,
    };
    let right = |subresource| Right {
        verb: "patch",
        resource: "nodes",
        subresource,
        name: Some(name.to_owned()),
        ..Right::default()
    };
    explained(found, client, &[right(None), right(Some("status"))]).await
}

async fn refuses_foreign_fields(client: &Client, name: &str, node: &NodeView, taint_key: &str) -> Guard {
    let nodes: Api<Node> = Api::all(client.clone());
    let taint = json!({"key": PROBE, "effect": "PreferNoSchedule"});
    let mut probes = vec![
        Probe { of_status: false, change: Patch::Merge(probe_label()) },
        Probe { of_status: true, change: Patch::Strategic(probe_condition()) },
    ];
    let add = if node.taints.is_empty() {
        Some(Patch::Merge(json!({"spec": {"taints": [taint]}})))
    } else {
        by_place(json!([{"op": "add", "path": "/spec/taints/-", "value": taint}]))
    };
    let remove = node.taints.iter().position(|taint| taint.key != taint_key).and_then(|at| {
        let path = format!("/spec/taints/{at}");
        by_place(json!([
            {"op": "test", "path": format!("{path}/key"), "value": node.taints[at].key},
            {"op": "remove", "path": path},
        ]))
    });
    probes.extend(add.into_iter().chain(remove).map(|change| Probe { of_status: false, change }));
    for probe in probes {
        match refused(send(&nodes, name, &probe).await) {
            Guard::Stands => {}
            other => return other,
        }
    }
    Guard::Stands
}

/// What the agent may change on its own Node must be refused on another one.
async fn refuses_other_nodes(client: &Client, name: &str) -> Guard {
    let nodes: Api<Node> = Api::all(client.clone());
    let others = ListParams::default().fields(&format!("metadata.name!={name}")).limit(1);
    let other = match nodes.list_metadata(&others).await {
        Ok(listed) => listed.items.into_iter().next(),
        Err(error) => return Guard::Unclear(Trouble::of_request(&error).to_string()),
    };
    let Some(other) = other else { return Guard::Stands };
    let is_warm =
        other.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL)).is_some_and(|value| value == "true");
    // another value than it has, or the patch would change nothing
    let value = if is_warm { "false" } else { "true" };
    let condition = json!({"type": CONDITION, "status": "Unknown", "reason": "Probe", "message": "dry run"});
    for probe in [
        Probe { of_status: false, change: Patch::Merge(json!({"metadata": {"labels": {LABEL: value}}})) },
        Probe { of_status: true, change: Patch::Strategic(json!({"status": {"conditions": [condition]}})) },
    ] {
        match refused(send(&nodes, &other.metadata.name.clone().unwrap_or_default(), &probe).await) {
            Guard::Stands => {}
            other => return other,
        }
    }
    Guard::Stands
}

/// Whether writes to the status of this pod are guarded. Another Pod is not tried: the agent has no right to learn the name of one,
/// and a patch of a name that does not exist never reaches admission.
pub async fn of_pod(client: &Client, namespace: &str, name: &str) -> Guard {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut found = Guard::Stands;
    for change in [Patch::Strategic(probe_condition()), Patch::Strategic(probe_label())] {
        if found == Guard::Stands {
            found = refused(send(&pods, name, &Probe { of_status: true, change }).await);
        }
    }
    let right = Right {
        verb: "patch",
        resource: "pods",
        subresource: Some("status"),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..Right::default()
    };
    explained(found, client, &[right]).await
}

async fn send<K>(api: &Api<K>, name: &str, probe: &Probe) -> Result<K, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    if probe.of_status {
        api.patch_status(name, &params, &probe.change).await
    } else {
        api.patch(name, &params, &probe.change).await
    }
}

/// A JSON patch. What is written here is a valid one.
fn by_place(steps: Value) -> Option<Patch<Value>> {
    serde_json::from_value(steps).ok().map(Patch::Json)
}

/// What is unclear may be so because a right is absent, which is asked for only then.
async fn explained(found: Guard, client: &Client, rights: &[Right]) -> Guard {
    match found {
        Guard::Unclear(why) => without_right(client, rights).await.unwrap_or(Guard::Unclear(why)),
        found => found,
    }
}

async fn without_right(client: &Client, rights: &[Right]) -> Option<Guard> {
    match access::absent(client, rights).await {
        Ok(None) => None,
        Ok(Some(right)) => Some(Guard::NoRight(right.clause())),
        Err(error) => Some(Guard::Unclear(Trouble::of_request(&error).to_string())),
    }
}

/// The right is there, so a refusal is that of admission. Its words have to say so: a webhook that knows no dry runs
/// makes the API server refuse the probe alone, with 400, and lets the change itself pass.
fn refused<K>(answer: Result<K, kube::Error>) -> Guard {
    match answer {
        Ok(_) => Guard::Missing,
        Err(kube::Error::Api(status))
            if matches!(status.code, 400 | 403 | 422) && DENIED.iter().any(|words| status.message.contains(words)) =>
        {
            Guard::Stands
        }
        Err(error) => Guard::Unclear(Trouble::of_request(&error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answer(code: u16, message: &str) -> Guard {
        refused::<()>(Err(kube::Error::Api(Box::new(Status::failure(message, "").with_code(code)))))
    }

    #[test]
    fn only_a_denial_by_admission_is_a_guard() {
        for (code, words) in [
            (403, "nodes \"a\" is forbidden: ValidatingAdmissionPolicy 'own' with binding 'own' denied request: no"),
            (422, "nodes \"a\" is invalid: : ValidatingAdmissionPolicy 'own' with binding 'own' denied request: no"),
            (400, "admission webhook \"validate.example\" denied the request: no"),
        ] {
            assert_eq!(answer(code, words), Guard::Stands, "{words}");
        }
        for (code, words) in [
            (400, "admission webhook \"validate.example\" does not support dry run"),
            (
                403,
                "nodes \"a\" is forbidden: User \"u\" cannot patch resource \"nodes\" in API group \"\" at the cluster scope",
            ),
            (500, "Internal error occurred: failed calling webhook \"validate.example\": denied request"),
        ] {
            assert!(matches!(answer(code, words), Guard::Unclear(_)), "{words}");
        }
        assert_eq!(refused(Ok(())), Guard::Missing);
    }
}
