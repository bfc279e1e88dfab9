//! What was found, as the text of a list.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use serde::Serialize;
use serde_yaml::Value;

use super::{
    placement::Requirement,
    tally::{Found, FoundImage},
};
use crate::image_ref::PullPolicy;

/// Longest text for a ConfigMap, in bytes: the API server takes 1 MiB of data, and other fields need some.
const LONGEST: usize = 1_000_000;

/// How much the text says beside the list itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// For people: who uses an image, and how often.
    Counts,
    /// For a ConfigMap: only what changes when the list does. A pod more or less would otherwise be an edit, which every
    /// agent reads.
    Stable,
}

/// The text of a list.
#[derive(Debug)]
pub struct ListText {
    /// A valid `images.yaml`.
    pub text: String,
    /// Images that did not fit into a ConfigMap, those with the fewest pods.
    pub left_out: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_pull_policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    image_pull_secrets: Vec<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_selector: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_affinity: Option<Affinity<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<bool>,
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Affinity<'a> {
    node_selector_terms: Vec<Term<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Term<'a> {
    match_expressions: &'a [Requirement],
}

impl ListText {
    /// Of what was found. `scope` says where, in a few words. Unless `required`, no image counts for "warm": anyone who can
    /// create a workload adds images to this list, and one that cannot be pulled must not make every node not warm.
    pub fn of(found: &Found, scope: &str, detail: Detail, required: bool) -> Result<Self, serde_yaml::Error> {
        let mut text = format!("# The images that workloads in {scope} use, those of most pods first.\n");
        if detail == Detail::Stable {
            text.push_str("# Written by `prepull discover`; keep your own images in another list.\n");
        }
        if found.images.is_empty() {
            text.push_str("images: []\n");
            return Ok(Self { text, left_out: 0 });
        }
        text.push_str("images:\n");
        for (number, image) in found.images.iter().enumerate() {
            let block = block(image, detail, required)?;
            if detail == Detail::Stable && text.len() + block.len() > LONGEST {
                return Ok(Self { text, left_out: found.images.len() - number });
            }
            text.push_str(&block);
        }
        Ok(Self { text, left_out: 0 })
    }
}

fn block(image: &FoundImage, detail: Detail, required: bool) -> Result<String, serde_yaml::Error> {
    let mut block = String::new();
    // writing into a String cannot fail
    if detail == Detail::Counts {
        let pods = if image.pods == 1 { "pod" } else { "pods" };
        let _ = writeln!(block, "# {} {pods} in {}{}", image.pods, some(&image.namespaces), users(image));
    }
    if !image.secrets_elsewhere.is_empty() {
        let _ = writeln!(
            block,
            "# its pods have pull secrets that this list cannot use: {}",
            some(&image.secrets_elsewhere)
        );
    }
    let terms = image.node_selector_terms.as_ref();
    let entry = Entry {
        image: &image.image,
        image_pull_policy: image.image_pull_policy,
        image_pull_secrets: image.image_pull_secrets.iter().map(|name| Name { name }).collect(),
        service_account_name: image.service_account_name.as_deref(),
        node_selector: image.node_selector.as_ref(),
        node_affinity: terms.map(|terms| Affinity {
            node_selector_terms: terms.iter().map(|term| Term { match_expressions: term }).collect(),
        }),
        // an image that is never pulled is never required
        required: (!required || image.image_pull_policy == Some(PullPolicy::Never.as_str())).then_some(false),
    };
    block.push_str(&serde_yaml::to_string(&[entry])?);
    Ok(block)
}

/// The first few of many.
fn some<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    shown.join(", ") + &more
}

fn users(image: &FoundImage) -> String {
    if image.used_by.is_empty() {
        return String::new();
    }
    let more = image.workloads - image.used_by.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!(", by {}{more}", image.used_by.join(", "))
}

/// Whether two lists have the same entries, whatever their order and comments. The order says what is pulled first; that
/// alone is not worth an edit, which every agent reads.
pub fn same_but_for_order(a: &str, b: &str) -> bool {
    match (sorted(a), sorted(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn sorted(text: &str) -> Option<(Vec<Arc<str>>, Value)> {
    let mut list: Value = serde_yaml::from_str(text).ok()?;
    let images = list.as_mapping_mut()?.remove("images")?;
    let mut entries: Vec<Arc<str>> = Vec::new();
    for image in images.as_sequence()? {
        entries.push(serde_yaml::to_string(image).ok()?.into());
    }
    entries.sort();
    Some((entries, list))
}
