//! Manifests and values of other tools: the entries that they mean.

use serde_json::{Map, Value as Json, json};

use super::{Meant, is_image, kind_of, objects};
use crate::{
    discovery::{
        self, ListText, Tally,
        workload::{Kind, Object},
    },
    list::tree::{Node, Value},
};

/// The entries that manifests mean, by their kinds: workloads by the images of their pods, jobs and caches of other tools
/// that pull images by their own fields, and all others by their fields named `image`.
pub(super) fn entries(documents: &[Node]) -> Meant {
    let mut meant = Meant::default();
    let mut workloads: Vec<(Kind, Object)> = Vec::new();
    for object in documents.iter().flat_map(objects) {
        let kind = kind_of(object).unwrap_or_default();
        if let Some(kind) = workload(kind)
            && let Ok(read) = serde_json::from_value::<Object>(object.json())
        {
            workloads.push((kind, read));
        } else if matches!(kind, "ImagePullJob" | "ImageListPullJob") {
            pull_job(object, &mut meant);
        } else if kind == "ImageCache" {
            image_cache(object, &mut meant);
        } else {
            fields_named_image(object, &mut meant);
        }
    }
    let from_workloads = of_workloads(&workloads);
    if from_workloads.is_empty() && !workloads.is_empty() {
        // pods that have ended count for nothing in a cluster; here their images are what is asked for
        documents.iter().flat_map(objects).for_each(|object| fields_named_image(object, &mut meant));
    }
    meant.entries.extend(from_workloads);
    meant
}

fn workload(kind: &str) -> Option<Kind> {
    Some(match kind {
        "Pod" => Kind::Pod,
        "Deployment" | "ReplicaSet" | "ReplicationController" => Kind::Deployment,
        "StatefulSet" => Kind::StatefulSet,
        "DaemonSet" => Kind::DaemonSet,
        "Job" => Kind::Job,
        "CronJob" => Kind::CronJob,
        _ => return None,
    })
}

/// As `prepull discover` would list them, with the pull secrets of their namespace.
fn of_workloads(workloads: &[(Kind, Object)]) -> Vec<Json> {
    let Some((_, first)) = workloads.first() else { return Vec::new() };
    let mut tally = Tally::new(Some(first.namespace().to_owned()));
    for (kind, object) in workloads {
        tally.add(*kind, object);
    }
    let found = tally.into_found(&std::collections::BTreeMap::new());
    // whoever pastes the list wants its images
    let Ok(list) = ListText::of(&found, "the file", discovery::Detail::Counts, true) else { return Vec::new() };
    let list: Result<Json, _> = serde_yaml::from_str(&list.text);
    let entries = list.ok().and_then(|list| list.get("images")?.as_array().cloned()).unwrap_or_default();
    entries.into_iter().map(short).collect()
}

/// An entry with nothing but its image is its name.
fn short(entry: Json) -> Json {
    match entry.as_object() {
        Some(fields) if fields.len() == 1 => fields.get("image").cloned().unwrap_or(entry),
        _ => entry,
    }
}

fn entry(image: &str, secrets: &[Json], selector: Option<&Node>, meant: &mut Meant) {
    if !is_image(image) {
        meant.left_out += 1;
        return;
    }
    let mut fields = Map::from_iter([("image".to_owned(), json!(image))]);
    if !secrets.is_empty() {
        fields.insert("imagePullSecrets".to_owned(), json!(secrets));
    }
    if let Some(Json::Object(labels)) = selector.map(Node::json)
        && !labels.is_empty()
    {
        fields.insert("nodeSelector".to_owned(), Json::Object(labels));
    }
    meant.entries.push(short(Json::Object(fields)));
}

/// OpenKruise: `spec.image` or `spec.images`, `pullSecrets` as names, `selector.matchLabels` of nodes.
fn pull_job(object: &Node, meant: &mut Meant) {
    let secrets: Vec<_> = texts(object.at(&["spec", "pullSecrets"])).map(|name| json!({ "name": name })).collect();
    let selector = object.at(&["spec", "selector", "matchLabels"]);
    let images = texts(object.at(&["spec", "image"])).chain(texts(object.at(&["spec", "images"])));
    images.for_each(|image| entry(image, &secrets, selector, meant));
}

/// kube-fledged: `spec.cacheSpec[]` with `images`, as names or as mappings with a name, and `nodeSelector`.
fn image_cache(object: &Node, meant: &mut Meant) {
    let secrets = items(object.at(&["spec", "imagePullSecrets"])).map(Node::json).collect::<Vec<_>>();
    for group in items(object.at(&["spec", "cacheSpec"])) {
        let selector = group.at(&["nodeSelector"]);
        for image in items(group.at(&["images"])) {
            if let Some(image) = image.scalar().or_else(|| image.at(&["name"])?.scalar()) {
                entry(image, &secrets, selector, meant);
            }
        }
    }
}

/// All fields named `image` anywhere: a name, or a registry, a repository and a tag as in the values of Helm charts.
fn fields_named_image(node: &Node, meant: &mut Meant) {
    match &*node.value {
        Value::Mapping(pairs) => {
            for (key, value) in pairs {
                if key.text != "image" {
                    fields_named_image(value, meant);
                } else if let Some(image) = value.scalar().map(str::to_owned).or_else(|| split_image(value)) {
                    entry(&image, &[], None, meant);
                } else {
                    fields_named_image(value, meant);
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| fields_named_image(item, meant)),
        Value::Scalar { .. } | Value::Tagged(_) => {}
    }
}

/// Whether values of a Helm chart name an image in parts, at the top or in a section.
pub(super) fn has_split_image(root: &Node) -> bool {
    let Value::Mapping(pairs) = &*root.value else { return false };
    let split = |node: &Node| node.at(&["image"]).is_some_and(|image| split_image(image).is_some());
    split(root) || pairs.iter().any(|(_, value)| split(value))
}

fn split_image(node: &Node) -> Option<String> {
    let part = |name: &str| node.at(&[name]).and_then(Node::scalar).filter(|text| !text.is_empty());
    let repository = part("repository")?;
    let registry = part("registry").map_or_else(String::new, |registry| format!("{registry}/"));
    let version = match (part("digest"), part("tag")) {
        (Some(digest), _) => format!("@{digest}"),
        (None, Some(tag)) => format!(":{tag}"),
        (None, None) => String::new(),
    };
    Some(format!("{registry}{repository}{version}"))
}

fn items(node: Option<&Node>) -> impl Iterator<Item = &Node> {
    let items = match node.map(|node| &*node.value) {
        Some(Value::Sequence(items)) => items.as_slice(),
        _ => &[],
    };
    items.iter()
}

/// A text, or the texts of a list.
fn texts(node: Option<&Node>) -> impl Iterator<Item = &str> {
    node.and_then(Node::scalar).into_iter().chain(items(node).filter_map(Node::scalar))
}
