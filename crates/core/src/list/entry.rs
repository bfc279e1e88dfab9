//! One image of a list, and the `defaults` that stand in for what it leaves out.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    ListProblem,
    affinity::{self, NodeSelectorTerm},
    fields::{Field, Fields, nearest, shown},
    problems::Problems,
    tree::Value,
};
use crate::image_ref::{ImageRef, PullPolicy};

/// How often an `Always` entry asks its registry again, where nothing else is written.
const DEFAULT_REFRESH: Duration = Duration::from_hours(1);

/// Shorter ones would ask a registry for ever.
const SHORTEST_REFRESH: Duration = Duration::from_secs(1);
/// Longest text that is taken for an image's name, in bytes: several times what a registry and a runtime take.
const LONGEST_NAME: usize = 2048;
/// Most pull secrets of one entry.
const MOST_SECRETS: usize = 50;

/// One entry as it stands in the list.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The image as written; what could be made out of it where the entry is invalid, else `images[N]`.
    pub image: Arc<str>,
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
struct Optional {
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

/// Reads optional fields one by one, and notes what became of each.
struct Reader<'a, 'p> {
    fields: Fields<'a>,
    problems: &'p mut Problems,
    /// Names of the fields that stand there.
    written: Vec<&'static str>,
    /// Names of those that have a problem, with their lines.
    broken: Vec<(&'static str, usize)>,
}

impl<'a> Reader<'a, '_> {
    fn read<T>(&mut self, name: &'static str, read: impl FnOnce(&Field<'a>, &mut Problems) -> Option<T>) -> Option<T> {
        let field = self.fields.take(name)?;
        self.written.push(name);
        let before = self.problems.found();
        let value = read(&field, self.problems);
        if self.problems.found() > before {
            self.broken.push((name, field.node.line));
        }
        value
    }

    fn optional(&mut self) -> Optional {
        let priority = |f: &Field<'a>, p: &mut Problems| f.integer(i64::from(i32::MIN), i64::from(i32::MAX), p);
        Optional {
            policy: self.read("imagePullPolicy", policy),
            image_pull_secrets: self.read("imagePullSecrets", secrets),
            service_account_name: self.read("serviceAccountName", object_name).map(Into::into),
            node_selector: self.read("nodeSelector", labels).map(Arc::new),
            node_selector_terms: self.read("nodeAffinity", affinity::read).map(Into::into),
            runtime_handler: self.read("runtimeHandler", |f, p| f.text(p).map(Into::into)),
            priority: self.read("priority", priority),
            refresh_interval: self.read("refreshInterval", |f, p| f.duration_from(SHORTEST_REFRESH, p)),
            required: self.read("required", Field::truth),
            pin: self.read("pin", Field::truth),
            pull_timeout: self.read("pullTimeout", Field::duration),
        }
    }
}

/// What stands in for the fields that entries leave out.
///
/// A mistake here must not widen what entries do: without its `nodeSelector` a list for a few nodes would be pulled by
/// all. So an entry that would take a field from here that has a problem is invalid; one that writes the field itself
/// is not. Where it is not clear which field was meant (a merge that merges nothing, `defaults` that is no mapping), all
/// entries are invalid. An unknown name is only a problem, except where it looks like one of the fields that select
/// nodes: then it counts as that field, with a problem.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults {
    values: Optional,
    broken: Vec<BrokenDefault>,
}

/// A field of `defaults` that cannot be used.
#[derive(Debug, Clone)]
struct BrokenDefault {
    /// The field that entries would take from it; none: it could be any.
    field: Option<&'static str>,
    /// As written.
    name: String,
    line: usize,
}

impl BrokenDefault {
    fn as_named(name: &str, line: usize) -> Self {
        Self { field: FIELDS.iter().find(|f| **f == name).copied(), name: shown(name), line }
    }

    fn why(&self) -> String {
        let path = if self.name.is_empty() { "defaults".to_owned() } else { format!("defaults.{}", self.name) };
        let own = self.field.map_or_else(String::new, |f| format!(", or write `{f}` in this entry"));
        format!("`{path}` (line {}) has a problem, and this entry takes it from there; correct it{own}", self.line)
    }
}

impl Defaults {
    /// Reads `defaults`: any field of an image but `image`.
    pub(super) fn read(field: Option<Field<'_>>, problems: &mut Problems) -> Self {
        let Some(field) = field else { return Self::default() };
        let Some(fields) = Fields::of(&field, problems) else {
            let whole = BrokenDefault { field: None, name: String::new(), line: field.node.line };
            return Self { broken: vec![whole], ..Self::default() };
        };
        let mut reader = Reader { fields, problems, written: Vec::new(), broken: Vec::new() };
        let values = reader.optional();
        let Reader { fields, problems, broken, .. } = reader;
        let mut broken: Vec<_> = broken.into_iter().map(|(name, line)| BrokenDefault::as_named(name, line)).collect();
        let unclear = fields.unclear().iter().map(|(name, line)| BrokenDefault::as_named(name, *line));
        broken.extend(unclear.filter(|b| b.field.is_some() || b.name == "<<"));
        let selecting =
            |name: &str, line| Some(BrokenDefault { field: Some(selecting(name)?), name: shown(name), line });
        broken.extend(fields.left().filter_map(|key| selecting(&key.text, key.line)));
        fields.refuse_the_rest(&FIELDS[1..], problems);
        Self { values, broken }
    }

    /// Why an entry that writes these fields itself cannot be used, if so.
    fn broken_without(&self, written: &[&str]) -> Option<String> {
        self.broken.iter().find(|b| b.field.is_none_or(|f| !written.contains(&f))).map(BrokenDefault::why)
    }
}

/// Which of the fields that select nodes an unknown name looks like.
fn selecting(name: &str) -> Option<&'static str> {
    let near = nearest(name, &FIELDS[1..]);
    let folded = if name.len() > LONGEST_NAME { String::new() } else { name.to_lowercase() };
    match near {
        Some("nodeSelector") => Some("nodeSelector"),
        Some("nodeAffinity") => Some("nodeAffinity"),
        None if folded.contains("selector") => Some("nodeSelector"),
        None if folded.contains("affinity") || folded.contains("duringscheduling") => Some("nodeAffinity"),
        _ => None,
    }
}

impl Optional {
    /// What an entry means that writes these for `image`.
    fn complete(self, image: ImageRef, shared: &Self) -> EntrySpec {
        let shared = shared.clone();
        EntrySpec {
            policy: self.policy.or(shared.policy).unwrap_or_else(|| PullPolicy::default_of(&image)),
            image_pull_secrets: self.image_pull_secrets.or(shared.image_pull_secrets).unwrap_or_default(),
            service_account_name: self.service_account_name.or(shared.service_account_name),
            node_selector: self.node_selector.or(shared.node_selector).unwrap_or_default(),
            node_selector_terms: self.node_selector_terms.or(shared.node_selector_terms).unwrap_or_default(),
            runtime_handler: self.runtime_handler.or(shared.runtime_handler).unwrap_or_default(),
            priority: self.priority.or(shared.priority).unwrap_or(0),
            refresh_interval: self.refresh_interval.or(shared.refresh_interval).unwrap_or(DEFAULT_REFRESH),
            required: self.required.or(shared.required).unwrap_or(true),
            pin: self.pin.or(shared.pin).unwrap_or(false),
            pull_timeout: self.pull_timeout.or(shared.pull_timeout),
            image,
        }
    }
}

impl EntrySpec {
    /// What a bare image name means, as on `prepull pull`'s command line.
    pub fn of(image: ImageRef) -> Self {
        Optional::default().complete(image, &Optional::default())
    }
}

/// Reads `images`, one entry for each item: a broken one is kept as invalid, in its place. The error is why there are
/// no items.
pub(super) fn read_all(
    field: &Field<'_>,
    defaults: &Defaults,
    problems: &mut Problems,
) -> Result<Vec<Entry>, ListProblem> {
    let items = field.list_items("write one `- ` line for each, or `images: []` for none")?;
    // thousands of images come from a few registries
    let mut registries = HashSet::new();
    let read_one = |item| {
        let mut entry = read(&item, defaults, problems);
        if let Ok(spec) = &mut entry.spec {
            spec.image.share_registry(&mut registries);
        }
        entry
    };
    Ok(items.map(read_one).collect())
}

fn read(item: &Field<'_>, defaults: &Defaults, problems: &mut Problems) -> Entry {
    let mut own = Problems::default();
    let (mut written, mut required) = (None, true);
    let spec = read_spec(item, defaults, (&mut written, &mut required), &mut own);
    let spec = match (spec, own.first()) {
        (Some(spec), None) => spec,
        (_, Some(first)) => Err(format!("{} (line {}); {}", first.message, first.line, first.remedy)),
        (None, None) => Err("this entry has no image".to_owned()),
    };
    problems.append(own);
    let image = match (&spec, written) {
        // the name is kept once
        (Ok(spec), Some(written)) if *written == *spec.image.written() => spec.image.shared_text(),
        (_, Some(written)) => written.into(),
        (_, None) => item.path.as_str().into(),
    };
    Entry { image, line: item.node.line, required, spec }
}

/// The inner error is a problem that stands elsewhere.
fn read_spec(
    item: &Field<'_>,
    defaults: &Defaults,
    (written, required): (&mut Option<String>, &mut bool),
    problems: &mut Problems,
) -> Option<Result<EntrySpec, String>> {
    *required = defaults.values.required.unwrap_or(true);
    if item.node.is_null() {
        problems.push(item.problem("nothing stands here".to_owned(), "remove this line"));
        return None;
    }
    let (image, own, wrote) = if matches!(*item.node.value, Value::Scalar { .. }) {
        // a plain text is an entry with nothing but its image
        (image_name(item, written, problems), Optional::default(), Vec::new())
    } else {
        if let Some(name) = name_with_space(item) {
            problems.push(item.problem(
                format!("the space behind the colon makes a mapping of `{}`", shown(&name)),
                &format!("write `{}`", shown(&name)),
            ));
            *written = Some(name);
            return None;
        }
        let mut fields = Fields::of(item, problems)?;
        let image = fields
            .take_required("image", "write `image: registry/repository:tag`", problems)
            .and_then(|f| image_name(&f, written, problems));
        let mut reader = Reader { fields, problems, written: Vec::new(), broken: Vec::new() };
        let own = reader.optional();
        let Reader { fields, problems, written, .. } = reader;
        fields.refuse_the_rest(FIELDS, problems);
        (image, own, written)
    };
    *required = own.required.unwrap_or(*required);
    let image = image?;
    Some(match defaults.broken_without(&wrote) {
        Some(why) => Err(why),
        None => Ok(own.complete(image, &defaults.values)),
    })
}

/// The image that `- nginx: 1.25` means, which YAML reads as a mapping.
fn name_with_space(item: &Field<'_>) -> Option<String> {
    let Value::Mapping(pairs) = &*item.node.value else { return None };
    let [(key, value)] = pairs.as_slice() else { return None };
    let Value::Scalar { text, .. } = &*value.value else { return None };
    if FIELDS.contains(&key.text.as_str()) || key.text.len() + text.len() >= LONGEST_NAME {
        return None;
    }
    // a field of other tools, or a mistyped one, is no repository
    let field = nearest(&key.text, FIELDS).is_some() || ["name", "repository", "tag"].contains(&key.text.as_str());
    let name = format!("{}:{text}", key.text);
    (!field && !text.is_empty() && ImageRef::parse(&name).is_ok()).then_some(name)
}

fn image_name(field: &Field<'_>, written: &mut Option<String>, problems: &mut Problems) -> Option<ImageRef> {
    if let Value::Scalar { text, .. } = &*field.node.value
        && !field.node.is_null()
    {
        *written = Some(if text.len() > LONGEST_NAME { shown(text) } else { text.clone() });
    }
    let text = field.text(problems)?;
    if text.len() > LONGEST_NAME {
        let message = format!("the image name has {} bytes, at most {LONGEST_NAME} are read", text.len());
        problems.push(field.problem(message, "write registry/repository:tag"));
        return None;
    }
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
    let items = field.items(problems)?;
    if items.len() > MOST_SECRETS {
        let message = format!("{} pull secrets stand here, at most {MOST_SECRETS} are tried", items.len());
        problems.push(field.problem(message, "write fewer"));
        return None;
    }
    for item in items {
        if matches!(*item.node.value, Value::Scalar { .. }) {
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
        // `key:` with nothing behind it means the empty value in a Pod as well
        let text = if value.node.is_null() { Some("") } else { value.text(problems) };
        if let Some(text) = text {
            found.insert(key.text.clone(), text.to_owned());
        }
    }
    Some(found)
}
