//! The lists as their ConfigMaps have them now, to compare the agents' with.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::ListParams};
use tokio::time::timeout;

use super::{configmaps, secrets::patiently, watch::Trouble};
use prepull_core::{
    fleet::{Agent, Settings, Wanted},
    list::{ImageList, revision},
};

/// One request takes no longer.
const BOUND: Duration = Duration::from_secs(30);

/// The lists that these agents are to follow, each once, in the order of their names. A list that cannot be read says why.
pub async fn of(client: &Client, agents: &[Agent]) -> Vec<Wanted> {
    let settings: BTreeSet<&Arc<Settings>> = agents.iter().map(|agent| &agent.settings).collect();
    let named: BTreeSet<&str> = settings.iter().flat_map(|s| &s.configmaps).map(String::as_str).collect();
    let selected: BTreeSet<&(String, String)> = settings.iter().filter_map(|s| s.selected.as_ref()).collect();
    let mut lists: Vec<Wanted> = Vec::new();
    for source in named {
        lists.push(one(client, source).await);
    }
    for (namespace, selector) in selected {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let params = ListParams::default().labels(selector);
        match bounded(patiently(|| api.list(&params))).await {
            Ok(maps) => {
                let name = |map: &ConfigMap| map.metadata.name.clone().unwrap_or_default();
                lists.extend(maps.items.iter().map(|map| wanted(format!("{namespace}/{}", name(map)), map)));
            }
            Err(trouble) => {
                let why = unread(&format!("the ConfigMaps with {selector} in namespace {namespace}"), &trouble);
                let source = format!("{namespace}/({selector})");
                lists.push(Wanted { source, revision: None, problem: Some(why), passing: !trouble.is_forbidden() });
            }
        }
    }
    lists.sort_by(|a, b| a.source.cmp(&b.source));
    lists.dedup_by(|a, b| a.source == b.source);
    lists
}

async fn one(client: &Client, source: &str) -> Wanted {
    let unknown =
        |problem: String| Wanted { source: source.to_owned(), revision: None, problem: Some(problem), passing: false };
    let Some((namespace, name)) = source.split_once('/') else {
        return unknown(format!("`{source}` is no name of a ConfigMap"));
    };
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match bounded(patiently(|| api.get_opt(name))).await {
        Ok(Some(map)) => wanted(source.to_owned(), &map),
        Ok(None) => unknown(format!(
            "there is no ConfigMap {source}, and the agents go by what it said last; create it with the key {}",
            configmaps::KEY
        )),
        Err(trouble) => {
            Wanted { passing: !trouble.is_forbidden(), ..unknown(unread(&format!("the ConfigMap {source}"), &trouble)) }
        }
    }
}

fn wanted(source: String, map: &ConfigMap) -> Wanted {
    let text = match configmaps::list_in(map, &source) {
        Ok(text) => text,
        Err(problem) => return Wanted { source, revision: None, problem: Some(problem), passing: false },
    };
    let problem = ImageList::parse(text).err().map(|wrong| {
        format!("the ConfigMap {source} cannot be used as it is now, and the agents go by what it said last: {wrong}")
    });
    Wanted { source, revision: Some(revision(text)), problem, passing: false }
}

async fn bounded<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Trouble> {
    match timeout(BOUND, asked).await {
        Ok(answer) => answer.map_err(|error| Trouble::of_request(&error)),
        Err(_) => Err(Trouble::NoAnswer(format!("no answer within {} s", BOUND.as_secs()))),
    }
}

fn unread(what: &str, trouble: &Trouble) -> String {
    match trouble {
        Trouble::Forbidden(_) => {
            format!(
                "{what} may not be read, so nobody knows whether the agents follow what is in there now; grant get on configmaps (the role prepull-viewer)"
            )
        }
        Trouble::NoAnswer(_) => format!("{what} could not be read: {trouble}"),
    }
}
