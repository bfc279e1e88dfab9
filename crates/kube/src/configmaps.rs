//! Lists from ConfigMaps, by watch. A list in a namespace may name only Secrets and service accounts of the same.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::{
    discovered,
    watch::{Told, Trouble, Watch},
};
use prepull_core::list_update::{ListUpdate, Read};

/// The key of a ConfigMap that holds the list.
pub const KEY: &str = "images.yaml";
/// A list of nothing.
const EMPTY: &str = "images: []";

/// Which ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigMapName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FromStr for ConfigMapName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("write NAMESPACE/NAME, such as prepull/prepull".to_owned()),
        }
    }
}

impl fmt::Display for ConfigMapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Follows one ConfigMap. Ends when nobody listens.
pub async fn follow_named(client: Client, which: ConfigMapName, updates: mpsc::Sender<ListUpdate>) {
    let source: Arc<str> = which.to_string().into();
    let namespace: Arc<str> = which.namespace.as_str().into();
    let mut watch = Watch::one(Api::<ConfigMap>::namespaced(client, &which.namespace), &which.name);
    let mut last = None;
    loop {
        let (news, read) = match watch.next().await {
            Told::All(all) => match all.into_iter().next() {
                Some(map) => text_of(&map, &source),
                None => (
                    None,
                    Read::Nothing(format!("the ConfigMap {source} does not exist; create it with the key {KEY}")),
                ),
            },
            Told::Applied(map) => text_of(&map, &source),
            Told::Deleted(_) => {
                (None, Read::Nothing(format!("the ConfigMap {source} was deleted; create it again with the key {KEY}")))
            }
            Told::Lost(Trouble::Forbidden(why)) => (
                None,
                Read::OutOfReach(format!(
                    "{why}; grant list and watch on this ConfigMap in namespace {namespace}, as the Role of manifests/base does"
                )),
            ),
            Told::Lost(trouble) => (None, Read::OutOfReach(trouble.to_string())),
        };
        // an edit of anything but the text is no news
        if news.is_some() && news == last {
            continue;
        }
        last = news;
        let update = ListUpdate { source: source.clone(), namespace: Some(namespace.clone()), read };
        if updates.send(update).await.is_err() {
            return;
        }
    }
}

/// The lists that a label selector names in one namespace.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The namespace.
    pub namespace: String,
    /// The label selector.
    pub selector: String,
    /// ConfigMaps that are lists anyway, and count once.
    pub without: Vec<ConfigMapName>,
}

impl Selection {
    /// What stands for it where sources are named.
    pub fn source(&self) -> String {
        format!("{}/({})", self.namespace, self.selector)
    }
}

/// Follows all ConfigMaps that a selector names. Ends when nobody listens.
pub async fn follow_selected(client: Client, selection: Selection, updates: mpsc::Sender<ListUpdate>) {
    let source: Arc<str> = selection.source().into();
    let namespace: Arc<str> = selection.namespace.as_str().into();
    let mut watch = Watch::labelled(Api::<ConfigMap>::namespaced(client, &selection.namespace), &selection.selector);
    // of each list that was told, what it said; nothing more is kept
    let mut known: BTreeMap<Arc<str>, News> = BTreeMap::new();
    loop {
        let mut reads: Vec<(Arc<str>, Read)> = Vec::new();
        let told = watch.next().await;
        let named = |map: &ConfigMap| -> Option<Arc<str>> {
            let name = map.metadata.name.as_deref()?;
            let taken = selection.without.iter().any(|w| w.namespace == selection.namespace && w.name == name);
            (!taken).then(|| format!("{}/{name}", selection.namespace).into())
        };
        match told {
            Told::All(maps) => {
                let maps: BTreeMap<_, _> = maps.into_iter().filter_map(|map| Some((named(&map)?, map))).collect();
                let gone: Vec<_> = known.keys().filter(|name| !maps.contains_key(*name)).cloned().collect();
                for name in gone {
                    known.remove(&name);
                    reads.push((name, Read::Gone));
                }
                for (name, map) in maps {
                    reads.extend(changed(&mut known, name, &map));
                }
                reads.push((source.clone(), Read::Complete));
            }
            Told::Applied(map) => reads.extend(named(&map).and_then(|name| changed(&mut known, name, &map))),
            Told::Deleted(map) => {
                if let Some(name) = named(&map).filter(|name| known.remove(name).is_some()) {
                    reads.push((name, Read::Gone));
                }
            }
            Told::Lost(Trouble::Forbidden(why)) => {
                let remedy = format!(
                    "{why}; grant list and watch on configmaps in namespace {namespace} (component team-lists)"
                );
                reads.push((source.clone(), Read::OutOfReach(remedy)));
            }
            Told::Lost(trouble) => reads.push((source.clone(), Read::OutOfReach(trouble.to_string()))),
        }
        for (source, read) in reads {
            if updates.send(ListUpdate { source, namespace: Some(namespace.clone()), read }).await.is_err() {
                return;
            }
        }
    }
}

/// What tells one text from another: its revision, or that there is none.
type News = Option<Arc<str>>;

fn changed(known: &mut BTreeMap<Arc<str>, News>, name: Arc<str>, map: &ConfigMap) -> Option<(Arc<str>, Read)> {
    let (news, read) = text_of(map, &name);
    let before = known.insert(name.clone(), news.clone());
    (before != Some(news)).then_some((name, read))
}

fn text_of(map: &ConfigMap, source: &str) -> (News, Read) {
    match list_in(map, source) {
        Ok(text) => (Some(prepull_core::list::revision(text).into()), Read::of_text(text)),
        Err(why) => (None, Read::Nothing(why)),
    }
}

/// The list's text in a ConfigMap; else why there is none. One that discovery keeps has none before the first run, which
/// says that nothing was found yet.
pub(super) fn list_in<'a>(map: &'a ConfigMap, source: &str) -> Result<&'a str, String> {
    match map.data.as_ref().and_then(|data| data.get(KEY)) {
        Some(text) => Ok(text),
        None if discovered::is_kept(map) => Ok(EMPTY),
        None => Err(format!("the ConfigMap {source} has no key {KEY}; write the list under this key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_exactly_two_parts() {
        assert_eq!("prepull/a.b-1".parse::<ConfigMapName>().unwrap().to_string(), "prepull/a.b-1");
        for wrong in ["", "a", "a/", "/b", "a/b/c", "A/b", "a/b c"] {
            assert!(wrong.parse::<ConfigMapName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_discovery_may_leave_the_key_out() {
        let map = |labels: &[(&str, &str)], data: &[(&str, &str)]| {
            let owned = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
            let mut map = ConfigMap { data: Some(data.iter().map(owned).collect()), ..ConfigMap::default() };
            map.metadata.labels = Some(labels.iter().map(owned).collect());
            map
        };
        let kept = ("prepull.dev/discovered", "true");
        let (news, read) = text_of(&map(&[kept], &[]), "a/b");
        assert!(news.is_some() && matches!(read, Read::List { list, .. } if list.entries.is_empty()));
        let text = "images: [a]";
        assert_eq!(list_in(&map(&[kept], &[(KEY, text)]), "a/b"), Ok(text));
        for empty in ["", "# soon\n"] {
            let (_, read) = text_of(&map(&[kept], &[(KEY, empty)]), "a/b");
            assert!(matches!(read, Read::NotAList(_)), "an empty text is not an empty list: {read:?}");
        }
        for others in [map(&[], &[]), map(&[("prepull.dev/discovered", "false")], &[("other", text)])] {
            let (news, read) = text_of(&others, "a/b");
            assert!(news.is_none() && matches!(read, Read::Nothing(why) if why.contains("a/b has no key images.yaml")));
        }
    }
}
