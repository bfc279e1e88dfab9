//! What the entries and limits of a list mean, in the list's own words.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::Serialize;

use crate::{
    error_text::one_line,
    image_ref::PullPolicy,
    list::{
        Entry, EntrySpec, Limits, Parallel,
        affinity::NodeSelectorTerm,
        units::{written_bytes, written_duration},
    },
};

/// What an entry means.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meaning {
    line: usize,
    image: String,
    pub(super) valid: bool,
    /// Why it is not.
    error: Option<String>,
    canonical: Option<String>,
    image_pull_policy: Option<&'static str>,
    /// Of `Always` only.
    refresh_interval: Option<String>,
    /// Its own; without one the limit counts.
    pull_timeout: Option<String>,
    runtime_handler: Option<String>,
    priority: Option<i64>,
    required: bool,
    pin: Option<bool>,
    image_pull_secrets: Vec<String>,
    service_account_name: Option<String>,
    selects_nodes: bool,
    node_selector: BTreeMap<String, String>,
    node_selector_terms: Vec<NodeSelectorTerm>,
    /// Line of the first entry for the same image, with which it is one pull on nodes that both are for.
    merges_with: Option<usize>,
}

impl Meaning {
    /// Of all entries, which mean something together.
    pub(super) fn of_all(entries: &[Entry]) -> Vec<Self> {
        let mut first = HashMap::new();
        entries
            .iter()
            .map(|entry| match &entry.spec {
                Ok(spec) => {
                    let key = (spec.image.canonical(), spec.runtime_handler.clone());
                    let line = *first.entry(key).or_insert(entry.line);
                    Self::of_valid(entry, spec, (line != entry.line).then_some(line))
                }
                Err(why) => Self { error: Some(why.clone()), ..Self::empty(entry) },
            })
            .collect()
    }

    fn of_valid(entry: &Entry, spec: &EntrySpec, merges_with: Option<usize>) -> Self {
        Self {
            valid: true,
            canonical: Some(spec.image.canonical()),
            image_pull_policy: Some(spec.policy.as_str()),
            refresh_interval: (spec.policy == PullPolicy::Always).then(|| written_duration(spec.refresh_interval)),
            pull_timeout: spec.pull_timeout.map(written_duration),
            runtime_handler: Some(spec.runtime_handler.to_string()).filter(|handler| !handler.is_empty()),
            priority: Some(spec.priority),
            pin: Some(spec.pin),
            image_pull_secrets: spec.image_pull_secrets.to_vec(),
            service_account_name: spec.service_account_name.as_deref().map(str::to_owned),
            selects_nodes: !spec.node_selector.is_empty() || !spec.node_selector_terms.is_empty(),
            node_selector: (*spec.node_selector).clone(),
            node_selector_terms: spec.node_selector_terms.to_vec(),
            merges_with,
            ..Self::empty(entry)
        }
    }

    fn empty(entry: &Entry) -> Self {
        Self {
            line: entry.line,
            image: entry.image.to_string(),
            valid: false,
            error: None,
            canonical: None,
            image_pull_policy: None,
            refresh_interval: None,
            pull_timeout: None,
            runtime_handler: None,
            priority: None,
            required: entry.required,
            pin: None,
            image_pull_secrets: Vec::new(),
            service_account_name: None,
            selects_nodes: false,
            node_selector: BTreeMap::new(),
            node_selector_terms: Vec::new(),
            merges_with: None,
        }
    }

    /// For people, who may have been told already why it cannot be used.
    pub(super) fn row(&self, told: bool) -> [String; 4] {
        let labels = self.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
        let terms = self.node_selector_terms.iter().map(ToString::to_string).collect::<Vec<_>>();
        let some = |words: &[String], before: &str, between: &str| {
            (!words.is_empty()).then(|| format!("{before} {}", words.join(between)))
        };
        let parts = [
            self.canonical.clone(),
            self.error
                .as_ref()
                .map(|why| if told { "cannot be used".to_owned() } else { format!("cannot be used: {why}") }),
            self.merges_with.map(|line| format!("one pull with line {line}")),
            self.priority.filter(|priority| *priority != 0).map(|priority| format!("priority {priority}")),
            (!self.required).then(|| "not required".to_owned()),
            (self.pin == Some(true)).then(|| "pinned".to_owned()),
            self.refresh_interval.as_ref().map(|every| format!("asks again every {every}")),
            self.pull_timeout.as_ref().map(|bound| format!("pull timeout {bound}")),
            self.runtime_handler.as_ref().map(|handler| format!("runtime handler {handler}")),
            some(&self.image_pull_secrets, "pull secrets", " "),
            self.service_account_name.as_ref().map(|account| format!("service account {account}")),
            some(&labels, "on nodes with", " and "),
            some(&terms, "on nodes with", ", or with "),
        ];
        let means = parts.into_iter().flatten().map(|part| one_line(&part)).collect::<Vec<_>>().join(", ");
        [self.line.to_string(), one_line(&self.image), self.image_pull_policy.unwrap_or("-").to_owned(), means]
    }
}

/// The limits in force, those by default included.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimitsMeaning {
    parallel_pulls: String,
    parallel_pulls_per_registry: Option<usize>,
    pulling_nodes: Option<u32>,
    spread: String,
    max_disk_usage: String,
    resume_disk_usage: String,
    max_pinned_size: Option<String>,
    #[serde(rename = "maxIOPressure")]
    max_io_pressure: Option<f64>,
    pull_timeout: String,
    stall_timeout: String,
}

impl LimitsMeaning {
    pub(super) fn of(limits: &Limits) -> Self {
        Self {
            parallel_pulls: match limits.parallel_pulls {
                Parallel::Auto => "auto".to_owned(),
                Parallel::Fixed(n) => n.to_string(),
            },
            parallel_pulls_per_registry: limits.parallel_pulls_per_registry,
            pulling_nodes: limits.pulling_nodes,
            spread: written_duration(limits.spread),
            max_disk_usage: format!("{}%", limits.max_disk_usage),
            resume_disk_usage: format!("{}%", limits.resume_disk_usage),
            max_pinned_size: limits.max_pinned_size.map(written_bytes),
            max_io_pressure: limits.max_io_pressure,
            pull_timeout: written_duration(limits.pull_timeout),
            stall_timeout: written_duration(limits.stall_timeout),
        }
    }
}

impl fmt::Display for LimitsMeaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parallelPulls {}", self.parallel_pulls)?;
        if let Some(n) = self.parallel_pulls_per_registry {
            write!(f, ", parallelPullsPerRegistry {n}")?;
        }
        if let Some(n) = self.pulling_nodes {
            write!(f, ", pullingNodes {n}")?;
        }
        write!(f, ", spread {}", self.spread)?;
        write!(f, ", maxDiskUsage {}, resumeDiskUsage {}", self.max_disk_usage, self.resume_disk_usage)?;
        if let Some(size) = &self.max_pinned_size {
            write!(f, ", maxPinnedSize {size}")?;
        }
        if let Some(pressure) = self.max_io_pressure {
            write!(f, ", maxIOPressure {pressure}")?;
        }
        write!(f, ", pullTimeout {}, stallTimeout {}", self.pull_timeout, self.stall_timeout)
    }
}
