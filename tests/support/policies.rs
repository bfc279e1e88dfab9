//! The admission policies of the manifests, for the service account of one test, as an overlay that renames it would
//! install them.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::Api;
use serde::Deserialize as _;
use serde_json::Value;

use super::tenant::{Tenant, create};

/// The account as the manifests' policies name it.
const ACCOUNT: &str = "['system:serviceaccount', 'prepull', 'prepull']";

/// Keeps the agent to its own Node, and there to condition, label and start-up taint.
pub async fn own_node(tenant: &Tenant<'_>) -> Result<()> {
    install(tenant, "node-writes", "prepull-own-node", None).await
}

/// As [`own_node`], without the validations whose expression contains a text: a policy that guards a part only.
pub async fn own_node_without(tenant: &Tenant<'_>, part: &str) -> Result<()> {
    install(tenant, "node-writes", "prepull-own-node", Some(part)).await
}

/// Keeps the agent to the readiness gate of its own Pod.
pub async fn own_pod(tenant: &Tenant<'_>) -> Result<()> {
    install(tenant, "readiness-gate", "prepull-own-pod", None).await
}

async fn install(tenant: &Tenant<'_>, component: &str, name: &str, without: Option<&str>) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/components").join(component).join("policy.yaml");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    ensure!(text.contains(ACCOUNT) && text.contains(name), "{} names another account or policy", path.display());
    let account = format!("['system:serviceaccount', '{}', 'prepull']", tenant.name);
    let text = text.replace(ACCOUNT, &account).replace(name, &format!("{}-{name}", tenant.name));
    for document in serde_yaml::Deserializer::from_str(&text) {
        let mut object = Value::deserialize(document)?;
        if let (Some(part), Some(all)) = (without, object["spec"]["validations"].as_array_mut()) {
            let before = all.len();
            all.retain(|validation| !validation["expression"].as_str().is_some_and(|text| text.contains(part)));
            ensure!(all.len() < before && !all.is_empty(), "no validation contains {part}");
        }
        match object["kind"].as_str() {
            Some("ValidatingAdmissionPolicy") => {
                create::<ValidatingAdmissionPolicy>(&Api::all(tenant.admin.clone()), object).await?;
            }
            Some("ValidatingAdmissionPolicyBinding") => {
                create::<ValidatingAdmissionPolicyBinding>(&Api::all(tenant.admin.clone()), object).await?;
            }
            other => bail!("{} has a {other:?}", path.display()),
        }
    }
    Ok(())
}
