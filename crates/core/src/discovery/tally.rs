//! Counting: what many objects say about the images that they use, kept in one row for each image.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use super::{
    placement::{Placement, Requirement},
    workload::{Kind, Object, Pods, Spec},
};
use crate::{
    error_text::one_line,
    image_ref::{ImageRef, PullPolicy},
};

/// So many of the workloads that use an image are named.
const NAMED: usize = 3;
/// So many names that are no image's are told.
const TOLD: usize = 20;
/// Longest name that is looked at, as in a list.
const LONGEST_NAME: usize = 2048;
/// Most pull secrets of an image, as in a list.
const MOST_SECRETS: usize = 50;

/// Names that differ and mean the same image are one row. A short name stays apart: a runtime may have rules of its own
/// for those.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    canonical: String,
    qualified: bool,
}

/// What is known of one image.
#[derive(Debug, Default)]
struct Row {
    /// How it is written, and how many pods write it so.
    spellings: BTreeMap<String, u64>,
    /// Pods that are there.
    running: u64,
    /// Pods that workloads ask for.
    wanted: u64,
    policies: BTreeSet<&'static str>,
    placement: Placement,
    namespaces: BTreeSet<Arc<str>>,
    /// The first few by name, and how many there are.
    users: BTreeSet<String>,
    users_in_all: usize,
    /// Pull secrets in the namespace of the list, in the order in which pods have them.
    secrets: Vec<String>,
    /// Those of other namespaces, which that list cannot use.
    foreign: BTreeSet<String>,
    /// Of templates in the namespace of the list.
    accounts: BTreeSet<String>,
    /// A pod in the namespace of the list uses it. Admission has given it the secrets of its service account.
    pod_at_home: bool,
}

/// The images of the objects that were added.
#[derive(Debug, Default)]
pub struct Tally {
    home: Option<String>,
    rows: BTreeMap<Key, Row>,
    invalid: BTreeSet<String>,
    invalid_in_all: usize,
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found {
    /// By the number of pods, then by name.
    pub images: Vec<FoundImage>,
    /// What the list does not have, and why.
    pub problems: Vec<String>,
}

/// An image that workloads use.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundImage {
    /// As most pods write it.
    pub image: String,
    /// Its one normalised name.
    pub canonical: String,
    /// Pods that use it: those that are there, or those that workloads ask for, whichever are more.
    pub pods: u64,
    /// Where they are.
    pub namespaces: Vec<Arc<str>>,
    /// The first few workloads by name, as `namespace/kind/name`.
    pub used_by: Vec<String>,
    /// How many workloads use it; pods of a workload do not count again.
    pub workloads: usize,
    /// The policy, where it is not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<&'static str>,
    /// Pull secrets that a list in the namespace asked for may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<String>,
    /// A service account whose pull secrets such a list may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Pull secrets of other namespaces, as `namespace/name`: a list may use those of its own namespace alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets_elsewhere: Vec<String>,
    /// Labels of the nodes that its pods may run on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<BTreeMap<String, String>>,
    /// The same, where a selector cannot say it: requirements of each term.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector_terms: Option<Vec<Vec<Requirement>>>,
}

impl Tally {
    /// For a list in this namespace, whose pull secrets it may use; none where that is not known.
    pub fn new(home: Option<String>) -> Self {
        Self { home, ..Self::default() }
    }

    /// Adds an object.
    pub fn add(&mut self, kind: Kind, object: &Object) {
        let Some((pod, pods)) = object.pods(kind) else { return };
        let metadata = &object.metadata;
        let namespace: Arc<str> = metadata.namespace.as_str().into();
        let at_home = self.home.as_deref() == Some(&metadata.namespace);
        let user = format!("{namespace}/{}/{}", kind.singular(), metadata.name);
        let counts_as_user = kind != Kind::Pod || object.stands_alone();
        let mut seen: BTreeSet<Key> = BTreeSet::new();
        for (image, policy) in pod.images() {
            let name = if image.len() > LONGEST_NAME { None } else { ImageRef::parse(image).ok() };
            let Some(name) = name else {
                self.refuse(image, &user);
                continue;
            };
            let key = Key { canonical: name.canonical(), qualified: name.is_qualified() };
            let row = self.rows.entry(key.clone()).or_default();
            row.policies.extend(PullPolicy::ALL.map(PullPolicy::as_str).into_iter().find(|p| policy == Some(*p)));
            // two containers of a pod with one image are one pod
            if !seen.insert(key) {
                continue;
            }
            let count = match pods {
                Pods::One => {
                    row.running += 1;
                    1
                }
                Pods::Wanted(wanted) => {
                    row.wanted = row.wanted.saturating_add(wanted);
                    wanted
                }
            };
            let spelling = row.spellings.entry(image.to_owned()).or_default();
            *spelling = spelling.saturating_add(count);
            row.placement.add(pod);
            row.namespaces.insert(namespace.clone());
            if counts_as_user {
                row.name(&user);
            }
            row.take_secrets(pod, pods, &namespace, at_home);
        }
    }

    fn refuse(&mut self, image: &str, user: &str) {
        self.invalid_in_all += 1;
        if self.invalid.len() < TOLD {
            let shown: String = image.chars().take(80).collect();
            self.invalid.insert(format!("{} of {} is no image name", one_line(&shown), one_line(user)));
        }
    }

    /// The service accounts of the list's namespace that may bring pull secrets which no pod has told.
    pub fn accounts_to_ask(&self) -> BTreeSet<String> {
        self.rows.values().filter(|row| !row.pod_at_home).flat_map(|row| row.accounts.iter().cloned()).collect()
    }

    /// What was found, with the pull secrets of those service accounts.
    pub fn into_found(self, account_secrets: &BTreeMap<String, Vec<String>>) -> Found {
        let mut images: Vec<_> =
            self.rows.into_iter().map(|(key, row)| row.into_image(key.canonical, account_secrets)).collect();
        images.sort_by(|a, b| (Reverse(a.pods), &a.image).cmp(&(Reverse(b.pods), &b.image)));
        let told = self.invalid.len();
        let mut problems: Vec<_> = self.invalid.into_iter().collect();
        if told == TOLD && self.invalid_in_all > told {
            problems.push("more names that are no image's are not told".to_owned());
        }
        Found { images, problems }
    }
}

impl Row {
    /// Remembers a workload among the first few.
    fn name(&mut self, user: &str) {
        self.users_in_all += 1;
        self.users.insert(user.to_owned());
        if self.users.len() > NAMED {
            self.users.pop_last();
        }
    }

    fn take_secrets(&mut self, pod: &Spec, pods: Pods, namespace: &str, at_home: bool) {
        let names = pod.image_pull_secrets.iter().flatten().map(|s| s.name.as_str()).filter(|name| !name.is_empty());
        for name in names {
            if !at_home {
                if self.foreign.len() < MOST_SECRETS {
                    self.foreign.insert(format!("{namespace}/{name}"));
                }
            } else if self.secrets.len() < MOST_SECRETS && !self.secrets.iter().any(|s| s == name) {
                self.secrets.push(name.to_owned());
            }
        }
        if at_home {
            match pods {
                Pods::One => self.pod_at_home = true,
                Pods::Wanted(_) if pod.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) => {
                    let account = pod.service_account_name.as_deref().filter(|name| !name.is_empty());
                    self.accounts.insert(account.unwrap_or("default").to_owned());
                }
                Pods::Wanted(_) => {}
            }
        }
    }

    fn into_image(mut self, canonical: String, account_secrets: &BTreeMap<String, Vec<String>>) -> FoundImage {
        let image = self.spellings.iter().max_by_key(|(text, count)| (**count, Reverse(*text)));
        let image = image.map(|(text, _)| text.clone()).unwrap_or_default();
        let mut service_account_name = None;
        if !self.pod_at_home {
            let with_secrets = |account: &String| Some((account.clone(), account_secrets.get(account)?));
            let mut accounts: Vec<_> = self.accounts.iter().filter_map(with_secrets).collect();
            accounts.retain(|(_, secrets)| !secrets.is_empty());
            // an entry names one account; of several, their secrets
            if let [(account, _)] = accounts.as_slice() {
                service_account_name = Some(account.clone());
            } else {
                for secret in accounts.iter().flat_map(|(_, secrets)| secrets.iter()) {
                    if self.secrets.len() < MOST_SECRETS && !self.secrets.contains(secret) {
                        self.secrets.push(secret.clone());
                    }
                }
            }
        }
        FoundImage {
            pods: self.running.max(self.wanted),
            image_pull_policy: policy(&image, &self.policies),
            namespaces: self.namespaces.into_iter().collect(),
            used_by: self.users.into_iter().collect(),
            workloads: self.users_in_all,
            image_pull_secrets: self.secrets,
            service_account_name,
            secrets_elsewhere: self.foreign.into_iter().collect(),
            node_selector: self.placement.selector(),
            node_selector_terms: self.placement.affinity(),
            image,
            canonical,
        }
    }
}

/// What the list has to say about an image's policy. A digest never changes, so nobody has to ask for it again; an image
/// that all of its pods have from elsewhere is never pulled here either.
fn policy(image: &str, policies: &BTreeSet<&'static str>) -> Option<&'static str> {
    let has = |policy: PullPolicy| policies.contains(policy.as_str());
    let meant = if has(PullPolicy::Always) {
        PullPolicy::Always
    } else if policies.is_empty() {
        return None;
    } else if has(PullPolicy::IfNotPresent) {
        PullPolicy::IfNotPresent
    } else {
        PullPolicy::Never
    };
    let digest = ImageRef::parse(image).is_ok_and(|name| name.digest().is_some());
    let meant = if digest && meant == PullPolicy::Always { PullPolicy::IfNotPresent } else { meant };
    (meant != PullPolicy::default_for(image)).then(|| meant.as_str())
}
