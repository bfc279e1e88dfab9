//! What a text is instead of a list: manifests, values and tables of other tools, and the list that they mean.

mod manifests;
mod tables;

use std::{collections::HashSet, fmt::Write as _};

use serde_json::Value as Json;

use super::{
    fields::shown,
    tree::{self, Node, Value},
};
use crate::image_ref::ImageRef;

/// Most entries of a suggested list; a comment counts the others.
const MAX_SUGGESTED: usize = 1000;
/// Most kinds of objects that a message names.
const MAX_KINDS_NAMED: usize = 3;

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    /// With its article, for a message.
    pub(super) name: String,
    /// Whether a list is in it, which `prepull check` reads.
    pub(super) readable: bool,
}

/// What the text is instead of a list, if it is something that people have.
pub(super) fn kind(text: &str) -> Option<Kind> {
    let (name, readable) = match tree::documents(text) {
        Ok(documents) if !documents.is_empty() => {
            of_documents(&documents).or_else(|| tables::identify(text).map(|table| (table.name.to_owned(), false)))?
        }
        _ => (tables::identify(text)?.name.to_owned(), false),
    };
    Some(Kind { name, readable })
}

/// The list that the text means, ready to paste: `images:` with one entry for each image.
pub fn list_meant(text: &str) -> Option<String> {
    let documents = tree::documents(text).unwrap_or_default();
    if let [Node { value, .. }] = documents.as_slice()
        && let Value::Sequence(_) = &**value
        && let Some(list) = under_key(text)
    {
        return Some(list);
    }
    let found = if of_documents(&documents).is_some() {
        manifests::entries(&documents)
    } else {
        let table = tables::identify(text)?;
        Meant { entries: table.images.into_iter().map(Json::String).collect(), left_out: table.left_out }
    };
    found.text()
}

/// Entries of a list, and how many of what was found are none.
#[derive(Debug, Default)]
struct Meant {
    entries: Vec<Json>,
    left_out: usize,
}

impl Meant {
    fn text(mut self) -> Option<String> {
        let mut seen = HashSet::new();
        self.entries.retain(|entry| seen.insert(entry.to_string()));
        if self.entries.is_empty() {
            return None;
        }
        let more = self.entries.len().saturating_sub(MAX_SUGGESTED);
        self.entries.truncate(MAX_SUGGESTED);
        let mut text = "images:\n".to_owned();
        text.push_str(&serde_yaml::to_string(&self.entries).ok()?);
        // writing into a String cannot fail
        if more > 0 {
            let _ = writeln!(text, "# left out because the list is too long: {more}");
        }
        if self.left_out > 0 {
            let _ = writeln!(text, "# left out without a valid image name: {}", self.left_out);
        }
        Some(text)
    }
}

/// The items of a list whose key `images` is missing.
fn under_key(text: &str) -> Option<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let body: String = text.lines().filter(|line| line.trim_end() != "---").flat_map(|line| [line, "\n"]).collect();
    let list = if body.trim_start().starts_with('[') { format!("images: {body}") } else { format!("images:\n{body}") };
    super::ImageList::read(&list, None).is_ok_and(|list| list.problems.is_empty()).then_some(list)
}

/// What YAML documents are, if they are known, and whether a list is in them.
fn of_documents(documents: &[Node]) -> Option<(String, bool)> {
    let mut kinds: Vec<&str> = Vec::new();
    let mut readable = false;
    for object in documents.iter().flat_map(objects) {
        let Some(kind) = kind_of(object) else { continue };
        readable |= kind == "ConfigMap" && object.at(&["data", super::manifest::KEY]).is_some();
        if !kinds.contains(&kind) && kinds.len() <= MAX_KINDS_NAMED {
            kinds.push(kind);
        }
    }
    if let [kind] = kinds.as_slice() {
        let kind = shown(kind);
        let article = if kind.starts_with(['A', 'E', 'I', 'O']) { "an" } else { "a" };
        return Some((format!("{article} {kind} manifest"), readable));
    }
    if !kinds.is_empty() {
        let more = if kinds.len() > MAX_KINDS_NAMED { " and others" } else { "" };
        let named: Vec<_> = kinds.iter().take(MAX_KINDS_NAMED).map(|kind| shown(kind)).collect();
        return Some((format!("a set of manifests ({}{more})", named.join(", ")), readable));
    }
    let root = documents.first()?;
    let mapping = |node: &Node| matches!(*node.value, Value::Mapping(_));
    let name = if let Value::Sequence(_) = &*root.value {
        "a list without that key"
    } else if root.at(&["services"]).is_some_and(mapping) {
        "a Compose file"
    } else if manifests::has_split_image(root) {
        "a file with values of a Helm chart"
    } else {
        return None;
    };
    Some((name.to_owned(), false))
}

/// The objects of a document: itself, or the items of a `List`.
pub(super) fn objects(document: &Node) -> Vec<&Node> {
    let items = match kind_of(document) {
        Some(kind) if kind.ends_with("List") && kind != "ImageListPullJob" => document.at(&["items"]),
        _ => None,
    };
    match items.map(|items| &*items.value) {
        Some(Value::Sequence(items)) => items.iter().collect(),
        _ => vec![document],
    }
}

/// The kind of a Kubernetes object.
pub(super) fn kind_of(node: &Node) -> Option<&str> {
    node.at(&["apiVersion"])?.scalar()?;
    node.at(&["kind"])?.scalar()
}

/// Whether a text is a valid image name of a length that lists read.
fn is_image(text: &str) -> bool {
    text.len() <= 2048 && ImageRef::parse(text).is_ok()
}

#[cfg(test)]
mod tests;
