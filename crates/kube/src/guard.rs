//! Whether an admission policy stands behind a right that is wider than what this agent does with it.
//!
//! RBAC cannot say "only your own Node" or "only this one condition". So nothing is written before dry runs of forbidden
//! changes were refused: a policy that was renamed, or names another service account, matches nobody, and says nothing.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    access::{self, Right},
    watch::Trouble,
};

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

fn probe_condition() -> Value {
    json!({"status": {"conditions": [{"type": PROBE, "status": "False", "reason": "Probe", "message": "dry run"}]}})
}

/// Whether writes to this node are guarded: those to the Node and those to its status.
pub async fn of_node(client: &Client, name: &str) -> Guard {
    let right = |subresource| Right {
        verb: "patch",
        resource: "nodes",
        subresource,
        name: Some(name.to_owned()),
        ..Right::default()
    };
    if let Some(found) = without_right(client, &[right(None), right(Some("status"))]).await {
        return found;
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let label = Patch::Merge(json!({"metadata": {"labels": {PROBE: "true"}}}));
    let condition = Patch::Strategic(probe_condition());
    match refused(nodes.patch(name, &params, &label).await) {
        Guard::Stands => refused(nodes.patch_status(name, &params, &condition).await),
        other => other,
    }
}

/// Whether writes to the status of this pod are guarded.
pub async fn of_pod(client: &Client, namespace: &str, name: &str) -> Guard {
    let right = Right {
        verb: "patch",
        resource: "pods",
        subresource: Some("status"),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()),
        ..Right::default()
    };
    if let Some(found) = without_right(client, &[right]).await {
        return found;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    refused(pods.patch_status(name, &params, &Patch::Strategic(probe_condition())).await)
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
