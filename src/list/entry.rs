//! One image of a list, and the `defaults` that stand in for what it leaves out.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    affinity::{self, NodeSelectorTerm},
    fields::{Field, Fields, Problems, nearest, shown},
    tree::Value,
};
use crate::image_ref::{ImageRef, PullPolicy};

/// How often an `Always` entry asks its registry again, where nothing else is written.
const DEFAULT_REFRESH: Duration = Duration::from_hours(1);

/// One entry as it stands in the list.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The image as written; what could be made out of it where the entry is invalid, else `images[N]`.
    pub image: String,
    /// The line that it begins on.
    pub line: usize,
    /// Whether the node is warm only with it; of an invalid entry as far as it could be read.
    pub required: bool,
    /// What it means, or why it cannot be used.
    pub spec: Result<EntrySpec, String>,
}

/// A valid entry.
#[derive(Debug, Clone)]
pub struct EntrySpec {
    /// The image.
    pub image: ImageRef,
    /// When it is pulled.
    pub policy: PullPolicy,
    /// Secrets in the list's own namespace, in order.
    pub image_pull_secrets: Arc<[String]>,
    /// A service account whose secrets count as well.
    pub service_account_name: Option<Arc<str>>,
    /// Labels that the node must have.
    pub node_selector: Arc<BTreeMap<String, String>>,
    /// Terms of which the node must match one; none: every node.
    pub node_selector_terms: Arc<[NodeSelectorTerm]>,
    /// CRI's runtime handler; empty for the default one.
    pub runtime_handler: Arc<str>,
    /// Higher first.
    pub priority: i64,
    /// How often `Always` asks the registry again.
    pub refresh_interval: Duration,
    /// Whether the node is warm only with it.
    pub required: bool,
    /// Whether the kubelet's garbage collector must leave it.
    pub pin: bool,
    /// Bound of one attempt; unset: the list's limit.
    pub pull_timeout: Option<Duration>,
}

const FIELDS: &[&str] = &[
    "image",
    "imagePullPolicy",
    "imagePullSecrets",
    "serviceAccountName",
    "nodeSelector",
    "nodeAffinity",
    "runtimeHandler",
    "priority",
    "refreshInterval",
    "required",
    "pin",
    "pullTimeout",
];

/// The fields that an entry may leave out, each as far as it was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    policy: Option<PullPolicy>,
    image_pull_secrets: Option<Arc<[String]>>,
    service_account_name: Option<Arc<str>>,
    node_selector: Option<Arc<BTreeMap<String, String>>>,
    node_selector_terms: Option<Arc<[NodeSelectorTerm]>>,
    runtime_handler: Option<Arc<str>>,
    priority: Option<i64>,
    refresh_interval: Option<Duration>,
    required: Option<bool>,
    pin: Option<bool>,
    pull_timeout: Option<Duration>,
}

impl Defaults {
    /// Reads `defaults`: any field of an image but `image`.
    pub(super) fn read(field: Option<Field<'_>>, problems: &mut Problems) -> Self {
        let Some(mut fields) = field.and_then(|f| Fields::of(&f, problems)) else { return Self::default() };
        let read = Self::take(&mut fields, problems);
        fields.refuse_the_rest(&FIELDS[1..], problems);
        read
    }

    fn take(fields: &mut Fields<'_>, problems: &mut Problems) -> Self {
        Self {
            policy: fields.take("imagePullPolicy").and_then(|f| policy(&f, problems)),
            image_pull_secrets: fields.take("imagePullSecrets").and_then(|f| secrets(&f, problems)),
            service_account_name: fields
                .take("serviceAccountName")
                .and_then(|f| object_name(&f, problems))
                .map(Into::into),
            node_selector: fields.take("nodeSelector").and_then(|f| labels(&f, problems)).map(Arc::new),
            node_selector_terms: fields.take("nodeAffinity").and_then(|f| affinity::read(&f, problems)).map(Into::into),
            runtime_handler: fields.take("runtimeHandler").and_then(|f| f.text(problems).map(Into::into)),
            priority: fields
                .take("priority")
                .and_then(|f| f.integer(i64::from(i32::MIN), i64::from(i32::MAX), problems)),
            refresh_interval: fields.take("refreshInterval").and_then(|f| f.duration(problems)),
            required: fields.take("required").and_then(|f| f.truth(problems)),
            pin: fields.take("pin").and_then(|f| f.truth(problems)),
            pull_timeout: fields.take("pullTimeout").and_then(|f| f.duration(problems)),
        }
    }

    /// What an entry means that writes `own` for `image`.
    fn complete(&self, image: ImageRef, own: Self) -> EntrySpec {
        let shared = self.clone();
        EntrySpec {
            policy: own.policy.or(shared.policy).unwrap_or_else(|| PullPolicy::default_of(&image)),
            image_pull_secrets: own.image_pull_secrets.or(shared.image_pull_secrets).unwrap_or_default(),
            service_account_name: own.service_account_name.or(shared.service_account_name),
            node_selector: own.node_selector.or(shared.node_selector).unwrap_or_default(),
            node_selector_terms: own.node_selector_terms.or(shared.node_selector_terms).unwrap_or_default(),
            runtime_handler: own.runtime_handler.or(shared.runtime_handler).unwrap_or_default(),
            priority: own.priority.or(shared.priority).unwrap_or(0),
            refresh_interval: own.refresh_interval.or(shared.refresh_interval).unwrap_or(DEFAULT_REFRESH),
            required: own.required.or(shared.required).unwrap_or(true),
            pin: own.pin.or(shared.pin).unwrap_or(false),
            pull_timeout: own.pull_timeout.or(shared.pull_timeout),
            image,
        }
    }
}

impl EntrySpec {
    /// What a bare image name means, as on `prepull pull`'s command line.
    pub fn of(image: ImageRef) -> Self {
        Defaults::default().complete(image, Defaults::default())
    }
}

/// Reads `images`, one entry for each item: a broken one is kept as invalid, in its place.
pub(super) fn read_all(field: &Field<'_>, defaults: &Defaults, problems: &mut Problems) -> Vec<Entry> {
    let Some(items) = field.items(problems) else { return Vec::new() };
    items.map(|item| read(&item, defaults, problems)).collect()
}

fn read(item: &Field<'_>, defaults: &Defaults, problems: &mut Problems) -> Entry {
    let mut own_problems = Problems::new();
    let (mut written, mut required) = (None, true);
    let spec = read_spec(item, defaults, (&mut written, &mut required), &mut own_problems);
    let spec = match (spec, own_problems.first()) {
        (Some(spec), None) => Ok(spec),
        (_, Some(first)) => Err(format!("{} (line {}); {}", first.message, first.line, first.remedy)),
        (None, None) => Err("this entry has no image".to_owned()),
    };
    problems.append(&mut own_problems);
    Entry { image: written.unwrap_or_else(|| item.path.clone()), line: item.node.line, required, spec }
}

fn read_spec(
    item: &Field<'_>,
    defaults: &Defaults,
    (written, required): (&mut Option<String>, &mut bool),
    problems: &mut Problems,
) -> Option<EntrySpec> {
    *required = defaults.required.unwrap_or(true);
    if matches!(item.node.value, Value::Scalar { .. }) {
        // a plain text is an entry with nothing but its image
        let image = image_name(item, written, problems)?;
        return Some(defaults.complete(image, Defaults::default()));
    }
    let mut fields = Fields::of(item, problems)?;
    let image = fields
        .take_required("image", "write `image: registry/repository:tag`", problems)
        .and_then(|f| image_name(&f, written, problems));
    let own = Defaults::take(&mut fields, problems);
    *required = own.required.unwrap_or(*required);
    fields.refuse_the_rest(FIELDS, problems);
    Some(defaults.complete(image?, own))
}

fn image_name(field: &Field<'_>, written: &mut Option<String>, problems: &mut Problems) -> Option<ImageRef> {
    if let Value::Scalar { text, .. } = &field.node.value
        && !field.node.is_null()
    {
        *written = Some(text.clone());
    }
    let text = field.text(problems)?;
    ImageRef::parse(text).map_err(|e| problems.push(field.problem(format!("`{}`: {e}", shown(text)), e.remedy()))).ok()
}

fn policy(field: &Field<'_>, problems: &mut Problems) -> Option<PullPolicy> {
    let text = field.text(problems)?;
    let found = PullPolicy::ALL.into_iter().find(|p| p.as_str() == text);
    if found.is_none() {
        let names = PullPolicy::ALL.map(PullPolicy::as_str);
        let remedy = match nearest(text, &names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("write one of {}", names.join(", ")),
        };
        problems.push(field.problem(format!("`{}` is no pull policy", shown(text)), &remedy));
    }
    found
}

/// `[{name: …}, …]`, as in a Pod. An empty name is skipped, as the kubelet skips it.
fn secrets(field: &Field<'_>, problems: &mut Problems) -> Option<Arc<[String]>> {
    let mut names = Vec::new();
    for item in field.items(problems)? {
        if matches!(item.node.value, Value::Scalar { .. }) {
            problems.push(item.wrong_type("a mapping with a name", "write `- name: SECRET`, as in a Pod"));
            continue;
        }
        let Some(mut fields) = Fields::of(&item, problems) else { continue };
        if let Some(name) = fields.take("name").and_then(|f| object_name(&f, problems)) {
            names.push(name);
        }
        fields.refuse_the_rest(&["name"], problems);
    }
    Some(names.into())
}

/// The name of a Secret or ServiceAccount: a DNS subdomain, as the API server wants it.
fn object_name(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text(problems)?;
    if text.is_empty() {
        return None;
    }
    let label = |l: &str| {
        let b = l.as_bytes();
        let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        b.first().is_some_and(plain) && b.last().is_some_and(plain) && b.iter().all(|c| plain(c) || *c == b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Some(text.to_owned());
    }
    problems.push(field.problem(
        format!("`{}` is no name of a Kubernetes object", shown(text)),
        "write lower-case letters, digits, dashes and dots, 253 at most; without the namespace, which is the list's own",
    ));
    None
}

/// `nodeSelector`: label keys and their values.
fn labels(field: &Field<'_>, problems: &mut Problems) -> Option<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (key, value) in Fields::of(field, problems)?.into_all() {
        if let Some(text) = value.text(problems) {
            found.insert(key.text.clone(), text.to_owned());
        } else if value.node.is_null() {
            // `key:` with nothing behind it means the empty value in a Pod as well
            problems.pop();
            found.insert(key.text.clone(), String::new());
        }
    }
    Some(found)
}
