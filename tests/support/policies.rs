//! Admission policies that keep an agent to its own Node and Pod, of the kind that the manifests install, for one
//! test's service account.

use anyhow::Result;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::Api;
use serde_json::{Value, json};

use super::tenant::{Tenant, create};

/// Nothing of `new` and `old` differs but these keys.
fn same_but(new: &str, old: &str, keys: &str) -> String {
    format!(
        "{new}.all(k, k in {keys} || (k in {old} && {new}[k] == {old}[k])) && {old}.all(k, k in {keys} || k in {new})"
    )
}

/// No condition differs but the one of this type.
fn conditions_but(kind: &str) -> String {
    let of = |object: &str| format!("{object}.status.?conditions.orValue([]).filter(c, c.type != '{kind}')");
    format!("{} == {}", of("object"), of("oldObject"))
}

/// The Node of its token, and there only condition, label and start-up taint.
pub async fn own_node(tenant: &Tenant<'_>) -> Result<()> {
    let taints = "object.spec.?taints.orValue([])";
    let old_taints = "oldObject.spec.?taints.orValue([])";
    let rules = [
        "request.operation == 'UPDATE'".to_owned(),
        "request.userInfo.?extra['authentication.kubernetes.io/node-name'][0].orValue('') == request.name".to_owned(),
        same_but("variables.meta", "variables.oldMeta", "['labels', 'managedFields', 'resourceVersion', 'generation']"),
        same_but("variables.labels", "variables.oldLabels", "['prepull.dev/warm']"),
        same_but("dyn(object.spec)", "dyn(oldObject.spec)", "['taints']"),
        format!("{taints} == {old_taints} || {taints} == {old_taints}.filter(t, t.key != 'prepull.dev/not-warm')"),
        same_but("dyn(object.status)", "dyn(oldObject.status)", "['conditions']"),
        conditions_but("ImagesPrepulled"),
    ];
    install(tenant, "own-node", json!(["nodes", "nodes/*"]), &rules).await
}

/// The status of the Pod of its token, and there only the condition of the readiness gate.
pub async fn own_pod(tenant: &Tenant<'_>) -> Result<()> {
    let rules = [
        "request.operation == 'UPDATE' && request.?subResource.orValue('') == 'status'".to_owned(),
        "request.userInfo.?extra['authentication.kubernetes.io/pod-uid'][0].orValue('') == oldObject.metadata.uid"
            .to_owned(),
        same_but("variables.meta", "variables.oldMeta", "['managedFields', 'resourceVersion', 'generation']"),
        same_but("dyn(object.status)", "dyn(oldObject.status)", "['conditions']"),
        conditions_but("prepull.dev/Warm"),
    ];
    install(tenant, "own-pod", json!(["pods", "pods/*"]), &rules).await
}

async fn install(tenant: &Tenant<'_>, what: &str, resources: Value, rules: &[String]) -> Result<()> {
    let name = format!("{}-{what}", tenant.name);
    let validations: Vec<Value> =
        rules.iter().map(|rule| json!({"expression": rule, "message": rule, "reason": "Forbidden"})).collect();
    let policy = json!({"metadata": {"name": name}, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["*"],
            "operations": ["CREATE", "UPDATE", "DELETE"], "resources": resources, "scope": "*"}]},
        "matchConditions": [{"name": "agent", "expression": format!("request.userInfo.username == '{}'", tenant.user())}],
        "variables": [
            {"name": "meta", "expression": "dyn(object.metadata)"},
            {"name": "oldMeta", "expression": "dyn(oldObject.metadata)"},
            {"name": "labels", "expression": "dyn(object.metadata.?labels.orValue({}))"},
            {"name": "oldLabels", "expression": "dyn(oldObject.metadata.?labels.orValue({}))"},
        ],
        "validations": validations,
    }});
    create::<ValidatingAdmissionPolicy>(&Api::all(tenant.admin.clone()), policy).await?;
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]}});
    create::<ValidatingAdmissionPolicyBinding>(&Api::all(tenant.admin.clone()), binding).await?;
    Ok(())
}
