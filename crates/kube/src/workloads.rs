//! Reads workloads page by page. Nothing of a page is kept once it was looked at.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, api::ListParams, core::Request};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    secrets::{named_secrets, patiently},
    watch::Trouble,
};
use prepull_core::discovery::{
    Tally,
    workload::{Kind, Object},
};

/// Objects of a page: a few megabytes of pods at most.
const PAGE: u32 = 250;
/// A page takes no longer.
const BOUND: Duration = Duration::from_mins(1);
/// So many service accounts are asked for.
const MOST_ACCOUNTS: usize = 100;

/// Which workloads.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The namespaces; none: all of them, in one list.
    pub namespaces: Vec<String>,
    /// A label selector.
    pub selector: Option<String>,
    /// The kinds.
    pub kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    items: Option<Vec<Object>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// Counts the images of every kind in every namespace of the scope. What cannot be read does not stop the rest; each list
/// that could not is told in one line: what, why, and what to do.
pub async fn count(client: &Client, scope: &Scope, tally: &mut Tally) -> Vec<String> {
    let mut missed = Vec::new();
    let mut namespaces: Vec<Option<&str>> = scope.namespaces.iter().map(|n| Some(n.as_str())).collect();
    if namespaces.is_empty() {
        namespaces.push(None);
    }
    for namespace in namespaces {
        for kind in scope.kinds.iter().copied() {
            if let Err(trouble) = count_kind(client, namespace, scope.selector.as_deref(), kind, tally).await {
                missed.push(told(kind, namespace, &trouble));
            }
        }
    }
    missed
}

async fn count_kind(
    client: &Client,
    namespace: Option<&str>,
    selector: Option<&str>,
    kind: Kind,
    tally: &mut Tally,
) -> Result<(), Trouble> {
    let root = if kind.group().is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}/v1", kind.group()) };
    let place = namespace.map_or_else(String::new, |namespace| format!("/namespaces/{namespace}"));
    let request = Request::new(format!("{root}{place}/{}", kind.plural()));
    let mut next = None;
    loop {
        let params = ListParams {
            limit: Some(PAGE),
            label_selector: selector.map(str::to_owned),
            continue_token: next.take(),
            ..ListParams::default()
        };
        let ask = || async {
            // reading a list has no parameters that could be wrong
            client.request::<Page>(request.list(&params).map_err(kube::Error::BuildRequest)?).await
        };
        let answer = timeout(BOUND, patiently(ask)).await;
        let answer = answer.map_err(|_| Trouble::NoAnswer(format!("no page came within {} s", BOUND.as_secs())))?;
        next = match answer {
            Ok(page) => {
                for object in page.items.iter().flatten() {
                    tally.add(kind, object);
                }
                page.metadata.next
            }
            Err(error) => Some(later(&error).ok_or_else(|| Trouble::of_request(&error))?),
        };
        if next.as_deref().is_none_or(str::is_empty) {
            return Ok(());
        }
    }
}

/// Where to go on when the snapshot that pages came from is gone: the API server says it with the refusal. What comes is
/// newer then, which does not matter for counting.
fn later(error: &kube::Error) -> Option<String> {
    match error {
        kube::Error::Api(status) if status.code == 410 => {
            status.metadata.as_ref()?.continue_.clone().filter(|next| !next.is_empty())
        }
        _ => None,
    }
}

fn told(kind: Kind, namespace: Option<&str>, trouble: &Trouble) -> String {
    let group = if kind.group().is_empty() { String::new() } else { format!(".{}", kind.group()) };
    let what = format!("{}{group}", kind.plural());
    let place = namespace.map_or("all namespaces".to_owned(), |namespace| format!("namespace {namespace}"));
    match (trouble, namespace) {
        (Trouble::Forbidden(_), Some(_)) => {
            format!(
                "{what} in {place} may not be read; grant list on {what} there, or leave it out with --namespace or --kinds"
            )
        }
        (Trouble::Forbidden(_), None) => {
            format!(
                "{what} in {place} may not be read; grant list on {what} by a ClusterRole, or name namespaces with --namespace"
            )
        }
        (other @ Trouble::NoAnswer(_), _) => format!("{what} in {place} could not be read: {other}"),
    }
}

/// The pull secrets that service accounts name, as far as they may be read; and which may not.
pub async fn account_secrets(
    client: &Client,
    namespace: &str,
    names: impl IntoIterator<Item = String>,
) -> (BTreeMap<String, Vec<String>>, Vec<String>) {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let mut found = BTreeMap::new();
    let mut unread = Vec::new();
    for name in names.into_iter().take(MOST_ACCOUNTS) {
        match timeout(BOUND, patiently(|| api.get_opt(&name))).await {
            Ok(Ok(account)) => {
                found.insert(name, account.as_ref().map(named_secrets).unwrap_or_default());
            }
            Ok(Err(_)) | Err(_) => unread.push(name),
        }
    }
    (found, unread)
}
