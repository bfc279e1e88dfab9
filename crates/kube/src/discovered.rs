//! A ConfigMap with a list that `prepull discover` keeps. Only one that says so, by a label, is ever written to.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::timeout;

use super::{
    configmaps::{ConfigMapName, KEY},
    secrets::patiently,
    watch::Trouble,
};
use prepull_core::{discovery::same_but_for_order, error_text::one_line};

/// Who wrote a field, for the API server.
const MANAGER: &str = "prepull-discover";
/// The label of a ConfigMap that is kept by discovery, with the value `true`.
pub const LABEL: &str = "prepull.dev/discovered";
/// The label by which agents find lists, with the value `true`; a ConfigMap that is made here gets it.
const LIST_LABEL: &str = "prepull.dev/list";
/// A request takes no longer.
const BOUND: Duration = Duration::from_secs(30);

/// What became of the ConfigMap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It had these entries already, in whatever order.
    Unchanged,
    /// It has them now.
    Written,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else made it.
    #[error(
        "the ConfigMap {0} was not made by prepull discover and is left alone; name another one with --into, or hand it over with `kubectl -n {ns} label configmap {name} {LABEL}=true`",
        ns = .0.namespace, name = .0.name
    )]
    NotOurs(ConfigMapName),
    /// Somebody else has written the list in it since.
    #[error(
        "the list in the ConfigMap {name} was changed by somebody else and is left alone; keep your own images in another list, and give this one back with `kubectl -n {ns} patch configmap {only} --type=json -p '[{{\"op\": \"remove\", \"path\": \"/data/{KEY}\"}}]'` ({why})",
        ns = .name.namespace, only = .name.name
    )]
    Changed {
        /// Which.
        name: ConfigMapName,
        /// In the API server's words.
        why: String,
    },
    /// A right is absent.
    #[error(
        "the ConfigMap {0} may not be {1}; grant get and patch on this name, and create on configmaps in namespace {ns} where it does not exist yet (component discovery grants and makes it)",
        ns = .0.namespace
    )]
    Forbidden(ConfigMapName, &'static str),
    /// Its namespace does not exist.
    #[error("the namespace {0} does not exist; create it, or name another one with --into")]
    NoNamespace(String),
    /// Anything else.
    #[error("the ConfigMap {0} could not be {1}: {2}")]
    NoAnswer(ConfigMapName, &'static str, Trouble),
}

/// Whether discovery keeps the list in this ConfigMap.
pub(super) fn is_kept(map: &ConfigMap) -> bool {
    map.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL)).is_some_and(|value| value == "true")
}

/// Brings a list into a ConfigMap.
pub async fn apply(client: &Client, name: &ConfigMapName, text: &str) -> Result<Applied, ApplyError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &name.namespace);
    let there = match read(&api, name).await? {
        Some(map) => map,
        None => made(&api, name).await?,
    };
    if !is_kept(&there) {
        return Err(ApplyError::NotOurs(name.clone()));
    }
    let before = there.data.as_ref().and_then(|data| data.get(KEY));
    if before.is_some_and(|before| before == text || same_but_for_order(before, text)) {
        return Ok(Applied::Unchanged);
    }
    // the version: if it became another one since it was read, nothing is written
    let patch = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name.name, "resourceVersion": there.metadata.resource_version},
        "data": {KEY: text}});
    let params = PatchParams::apply(MANAGER);
    let patch = Patch::Apply(patch);
    match bounded(|| api.patch(&name.name, &params, &patch)).await {
        Ok(_) => Ok(Applied::Written),
        Err(Failure::Api(status)) if status.code == 409 => Err(conflict(name, &status)),
        Err(failure) => Err(failure.of(name, "written")),
    }
}

/// Another one has the field, or the whole object changed since it was read.
fn conflict(name: &ConfigMapName, status: &kube::core::Status) -> ApplyError {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    if causes.into_iter().any(|cause| cause.reason == "FieldManagerConflict") {
        return ApplyError::Changed { name: name.clone(), why: one_line(&status.message) };
    }
    let why = "it was changed at the same moment; run it again".to_owned();
    ApplyError::NoAnswer(name.clone(), "written", Trouble::NoAnswer(why))
}

async fn read(api: &Api<ConfigMap>, name: &ConfigMapName) -> Result<Option<ConfigMap>, ApplyError> {
    bounded(|| api.get_opt(&name.name)).await.map_err(|failure| failure.of(name, "read"))
}

/// An empty one, which is ours; or the one that somebody made at the same moment. The list is applied to it next, so that
/// the API server knows whose field it is.
async fn made(api: &Api<ConfigMap>, name: &ConfigMapName) -> Result<ConfigMap, ApplyError> {
    let labels = [LABEL, LIST_LABEL].map(|label| (label.to_owned(), "true".to_owned()));
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.name.clone()),
            labels: Some(BTreeMap::from(labels)),
            ..ObjectMeta::default()
        },
        ..ConfigMap::default()
    };
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    match bounded(|| api.create(&params, &map)).await {
        Ok(map) => Ok(map),
        Err(Failure::Api(status)) if status.code == 409 => {
            let gone = || Trouble::NoAnswer("it comes and goes".to_owned());
            read(api, name).await?.ok_or_else(|| ApplyError::NoAnswer(name.clone(), "made", gone()))
        }
        Err(Failure::Api(status)) if status.code == 404 => Err(ApplyError::NoNamespace(name.namespace.clone())),
        Err(failure) => Err(failure.of(name, "made")),
    }
}

enum Failure {
    Api(Box<kube::core::Status>),
    Other(Trouble),
}

impl Failure {
    fn of(self, name: &ConfigMapName, done: &'static str) -> ApplyError {
        match self {
            Self::Api(status) if status.code == 403 => ApplyError::Forbidden(name.clone(), done),
            Self::Api(status) => ApplyError::NoAnswer(name.clone(), done, Trouble::NoAnswer(one_line(&status.message))),
            Self::Other(trouble) => ApplyError::NoAnswer(name.clone(), done, trouble),
        }
    }
}

async fn bounded<T, F>(ask: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    match timeout(BOUND, patiently(ask)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(Failure::Api(status)),
        Ok(Err(other)) => Err(Failure::Other(Trouble::of_request(&other))),
        Err(_) => Err(Failure::Other(Trouble::NoAnswer(format!("nothing came within {} s", BOUND.as_secs())))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_field_of_another_manager_is_a_hand_edit() {
        let name: ConfigMapName = "a/b".parse().unwrap();
        let status = |json: serde_json::Value| serde_json::from_value::<kube::core::Status>(json).unwrap();
        let edited = status(json!({"code": 409, "reason": "Conflict", "message": "conflict with \"kubectl-edit\"",
            "details": {"causes": [{"reason": "FieldManagerConflict", "field": ".data.images.yaml", "message": "m"}]}}));
        assert!(matches!(conflict(&name, &edited), ApplyError::Changed { why, .. } if why.contains("kubectl-edit")));
        let newer = status(json!({"code": 409, "reason": "Conflict", "message": "the object has been modified",
            "details": {"name": "b", "kind": "configmaps"}}));
        assert!(conflict(&name, &newer).to_string().ends_with("it was changed at the same moment; run it again"));
    }
}
