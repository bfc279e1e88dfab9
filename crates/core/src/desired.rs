//! What this node is to have: the lists in force, merged, for the node that this is.
//!
//! Several entries for one image become one pull with the union of what they ask for; every text that was written
//! keeps a row of its own, so that people find what they wrote.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    image_ref::{ImageRef, PullPolicy},
    list::{EntrySpec, ImageList, Limits, affinity::NodeFacts},
};

/// A list and where it came from.
#[derive(Debug, Clone)]
pub struct SourcedList {
    /// File path, or `namespace/name` of a ConfigMap.
    pub source: Arc<str>,
    /// Short hash of the text, see [`crate::list::revision`].
    pub revision: Arc<str>,
    /// The namespace whose Secrets and service accounts its entries may name.
    pub namespace: Option<Arc<str>>,
    /// Whether a label selector found it, so that somebody else than the agent's administrator may have written it.
    pub selected: bool,
    /// The list.
    pub list: Arc<ImageList>,
}

/// What makes two entries the same image on this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TargetKey {
    /// The canonical name.
    pub canonical: Arc<str>,
    /// CRI's runtime handler: its snapshotter has a copy of its own.
    pub runtime_handler: Arc<str>,
}

/// A name in a namespace; no namespace where the list has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The list's namespace.
    pub namespace: Option<Arc<str>>,
    /// The object's name.
    pub name: Arc<str>,
}

/// Pull secrets of one image, of all entries for it together. Of more, each list in turn keeps one after the other; the rest is left
/// out, and the image's problems say how many.
pub const MAX_PULL_SECRETS_PER_IMAGE: usize = 50;
/// Service accounts of one image; as [`MAX_PULL_SECRETS_PER_IMAGE`].
pub const MAX_SERVICE_ACCOUNTS_PER_IMAGE: usize = 10;

/// One image to be stocked.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Its identity.
    pub key: TargetKey,
    /// The name as the first entry writes it.
    pub image: ImageRef,
    /// When it is pulled: `Always` if any entry says so, `Never` only if all do.
    pub policy: PullPolicy,
    /// Pull secrets of all entries, in order, each once.
    pub pull_secrets: Vec<ObjectName>,
    /// Service accounts of all entries, in order, each once.
    pub service_accounts: Vec<ObjectName>,
    /// Pull secrets and service accounts that are too many.
    pub left_out: usize,
    /// The highest of all entries.
    pub priority: i64,
    /// The shortest of all entries.
    pub refresh_interval: Duration,
    /// Whether any entry requires it.
    pub required: bool,
    /// Whether any entry pins it.
    pub pin: bool,
    /// The longest of all entries, else `pullTimeout` of the lists' limits.
    pub pull_timeout: Duration,
}

impl Target {
    /// Whether the registry is asked for something else, or with something else, than before. What only changes the
    /// order or the bounds is no reason to ask again for what is there.
    pub fn asks_otherwise(&self, new: &Self) -> bool {
        self.policy != new.policy
            || self.pull_secrets != new.pull_secrets
            || self.service_accounts != new.service_accounts
            || self.image.cri_image() != new.image.cri_image()
    }
}

/// One text as written, in list order.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The image as written.
    pub image: Arc<str>,
    /// What became of it.
    pub kind: RowKind,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq)]
pub enum RowKind {
    /// It stands for the target with this index.
    Target(usize),
    /// It cannot be used.
    Invalid {
        /// Why, with a remedy.
        why: Arc<str>,
        /// Whether it counts for "warm", as far as it could be read.
        required: bool,
    },
    /// It selects other nodes.
    NotForThisNode,
    /// It selects nodes by labels, and this node's are not known yet.
    Undecided {
        /// Whether it counts for "warm" if it is for this node.
        required: bool,
    },
}

/// Everything wanted on this node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Desired {
    /// Images in the order in which they are pulled: by priority; within a priority the lists take turns, each in its own order.
    pub targets: Vec<Target>,
    /// Texts in list order.
    pub rows: Vec<Row>,
    /// The strictest of all lists that the agent's own flags name. A selected list limits nobody else's pulls.
    pub limits: Limits,
    /// One hash for all lists.
    pub revision: String,
    /// Why more could be wanted than is known, in one clause: then the node is not warm.
    pub unknown: Option<String>,
}

impl Desired {
    /// Merges lists for a node.
    pub fn merge(lists: &[SourcedList], node: &NodeFacts) -> Self {
        let limits = lists
            .iter()
            .filter(|l| !l.selected)
            .map(|l| &l.list.limits)
            .fold(None::<Limits>, |all, one| Some(all.map_or_else(|| one.clone(), |all| all.strictest(one))));
        let limits = limits.unwrap_or_default();
        let mut merge = Merge::default();
        for list in lists {
            merge.begin_list(list, &limits);
            for entry in &list.list.entries {
                match &entry.spec {
                    Err(why) => {
                        merge
                            .row(&entry.image, RowKind::Invalid { why: why.as_str().into(), required: entry.required });
                    }
                    Ok(spec) => match node.matches(&spec.node_selector, &spec.node_selector_terms) {
                        Some(true) => merge.entry(&entry.image, spec, list.namespace.as_ref()),
                        Some(false) => merge.row(&entry.image, RowKind::NotForThisNode),
                        None => merge.row(&entry.image, RowKind::Undecided { required: spec.required }),
                    },
                }
            }
        }
        let revision = match lists {
            [one] => one.revision.to_string(),
            several => crate::list::revision(&several.iter().map(|l| &*l.revision).collect::<Vec<_>>().join(" ")),
        };
        merge.finish(limits, revision)
    }

    /// Whether an entry waits for this node's labels.
    pub fn undecided(&self) -> bool {
        self.rows.iter().any(|row| matches!(row.kind, RowKind::Undecided { .. }))
    }
}

/// The highest priority that entries of a selected list have: what the agent's administrator lists can always go before them.
const MAX_SELECTED_PRIORITY: i64 = 0;

#[derive(Default)]
struct Merge {
    /// The `pullTimeout` of entries that name none.
    default_timeout: Duration,
    /// The highest priority of the current list's entries.
    max_priority: i64,
    /// Whether the current list is a selected one.
    selected: bool,
    /// How many targets the current list has brought.
    brought: usize,
    /// The turn in which each target is due: its place among those that its list brought.
    turns: Vec<usize>,
    targets: Vec<Target>,
    /// Whether an entry gave the target's time-out.
    own_timeout: Vec<bool>,
    index: HashMap<TargetKey, usize>,
    rows: Vec<Row>,
    seen: HashMap<(Arc<str>, Same), usize>,
    /// The number of the current list.
    list: u32,
    /// The list that each target's pull secrets and service accounts come from, where they are several.
    named_by: HashMap<(usize, NamedKind), Vec<u32>>,
    /// The secrets and accounts of each target, so that thousands are not compared with each other.
    named: HashSet<(usize, NamedKind, ObjectName)>,
}

/// What rows of one text have in common that are shown as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Same {
    Target(usize),
    Invalid,
    NotForThisNode,
    Undecided,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum NamedKind {
    Secret,
    Account,
}

impl Merge {
    /// Starts the next list, of which `limits` are the node's.
    fn begin_list(&mut self, list: &SourcedList, limits: &Limits) {
        self.brought = 0;
        self.list += 1;
        self.selected = list.selected;
        (self.default_timeout, self.max_priority) = if list.selected {
            (list.list.limits.pull_timeout, MAX_SELECTED_PRIORITY)
        } else {
            (limits.pull_timeout, i64::MAX)
        };
    }

    /// Adds a row. One with the same text and the same fate is there once, required if any of them is; one that cannot
    /// be used never hides behind another that can.
    fn row(&mut self, image: &Arc<str>, kind: RowKind) {
        let (same, is_required) = match &kind {
            RowKind::Target(index) => (Same::Target(*index), false),
            RowKind::Invalid { required, .. } => (Same::Invalid, *required),
            RowKind::NotForThisNode => (Same::NotForThisNode, false),
            RowKind::Undecided { required } => (Same::Undecided, *required),
        };
        let next = self.rows.len();
        let at = *self.seen.entry((image.clone(), same)).or_insert(next);
        if at == next {
            self.rows.push(Row { image: image.clone(), kind });
        } else if let RowKind::Invalid { required, .. } | RowKind::Undecided { required } = &mut self.rows[at].kind {
            *required |= is_required;
        }
    }

    /// Those of the names that the target does not have yet.
    fn new_names(&mut self, target: usize, kind: NamedKind, names: Vec<ObjectName>) -> Vec<ObjectName> {
        let names: Vec<_> = names.into_iter().filter(|name| self.named.insert((target, kind, name.clone()))).collect();
        if !names.is_empty() {
            self.named_by.entry((target, kind)).or_default().extend(std::iter::repeat_n(self.list, names.len()));
        }
        names
    }

    /// Leaves out names of the targets that have too many.
    fn bound_names(&mut self) {
        for ((target, kind), lists) in &self.named_by {
            let target = &mut self.targets[*target];
            let (names, most) = match kind {
                NamedKind::Secret => (&mut target.pull_secrets, MAX_PULL_SECRETS_PER_IMAGE),
                NamedKind::Account => (&mut target.service_accounts, MAX_SERVICE_ACCOUNTS_PER_IMAGE),
            };
            target.left_out += keep_in_turns(names, lists, most);
        }
    }

    fn entry(&mut self, written: &Arc<str>, spec: &EntrySpec, namespace: Option<&Arc<str>>) {
        let named = |name: &str| ObjectName { namespace: namespace.cloned(), name: name.into() };
        let secrets: Vec<_> = spec.image_pull_secrets.iter().map(|n| named(n)).collect();
        let accounts: Vec<_> = spec.service_account_name.iter().map(|n| named(n)).collect();
        let key = TargetKey { canonical: spec.image.canonical().into(), runtime_handler: spec.runtime_handler.clone() };
        let next = self.targets.len();
        let index = *self.index.entry(key.clone()).or_insert(next);
        let secrets = self.new_names(index, NamedKind::Secret, secrets);
        let accounts = self.new_names(index, NamedKind::Account, accounts);
        let priority = spec.priority.min(self.max_priority);
        if index == next {
            self.turns.push(self.brought);
            self.brought += 1;
            self.own_timeout.push(spec.pull_timeout.is_some());
            self.targets.push(Target {
                key,
                image: spec.image.clone(),
                policy: spec.policy,
                pull_secrets: secrets,
                service_accounts: accounts,
                left_out: 0,
                priority,
                refresh_interval: spec.refresh_interval,
                required: spec.required,
                pin: spec.pin,
                pull_timeout: spec.pull_timeout.unwrap_or(self.default_timeout),
            });
        } else {
            let target = &mut self.targets[index];
            target.policy = eager(target.policy, spec.policy);
            target.pull_secrets.extend(secrets);
            target.service_accounts.extend(accounts);
            target.priority = target.priority.max(priority);
            target.refresh_interval = target.refresh_interval.min(spec.refresh_interval);
            target.required |= spec.required;
            target.pin |= spec.pin;
            let is_explicit = self.own_timeout[index];
            match spec.pull_timeout {
                // somebody else's list gives the image more time, and never less
                Some(timeout) if self.selected || is_explicit => target.pull_timeout = target.pull_timeout.max(timeout),
                Some(timeout) => target.pull_timeout = timeout,
                None if self.selected && !is_explicit => {
                    target.pull_timeout = target.pull_timeout.max(self.default_timeout);
                }
                None => {}
            }
            self.own_timeout[index] |= spec.pull_timeout.is_some();
        }
        self.row(written, RowKind::Target(index));
    }

    /// Brings the targets into the order of pulling; rows follow.
    fn finish(mut self, limits: Limits, revision: String) -> Desired {
        self.bound_names();
        let mut order: Vec<usize> = (0..self.targets.len()).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(self.targets[*i].priority), self.turns[*i]));
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new;
        }
        let mut targets: Vec<Option<Target>> = self.targets.into_iter().map(Some).collect();
        let targets = order.iter().filter_map(|old| targets[*old].take()).collect();
        let mut rows = self.rows;
        for row in &mut rows {
            if let RowKind::Target(index) = &mut row.kind {
                *index = place[*index];
            }
        }
        Desired { targets, rows, limits, revision, unknown: None }
    }
}

/// Keeps at most `most` names, in their order: the first of each list, then the second of each, and so on. `lists` has the list of each
/// name. Returns how many are left out.
fn keep_in_turns(names: &mut Vec<ObjectName>, lists: &[u32], most: usize) -> usize {
    let Some(left_out) = names.len().checked_sub(most).filter(|over| *over > 0) else { return 0 };
    let mut so_far: HashMap<u32, usize> = HashMap::new();
    let mut turns: Vec<(usize, usize)> = Vec::with_capacity(names.len());
    for (index, list) in lists.iter().enumerate() {
        let turn = so_far.entry(*list).or_default();
        turns.push((*turn, index));
        *turn += 1;
    }
    turns.sort_unstable();
    let kept: HashSet<usize> = turns.into_iter().take(most).map(|(_, index)| index).collect();
    let mut index = 0;
    names.retain(|_| {
        index += 1;
        kept.contains(&(index - 1))
    });
    left_out
}

/// The policy that pulls more.
fn eager(a: PullPolicy, b: PullPolicy) -> PullPolicy {
    match (a, b) {
        (PullPolicy::Always, _) | (_, PullPolicy::Always) => PullPolicy::Always,
        (PullPolicy::IfNotPresent, _) | (_, PullPolicy::IfNotPresent) => PullPolicy::IfNotPresent,
        (PullPolicy::Never, PullPolicy::Never) => PullPolicy::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> SourcedList {
        SourcedList {
            source: "test".into(),
            revision: crate::list::revision(text).into(),
            namespace: None,
            selected: false,
            list: Arc::new(ImageList::parse(text).unwrap()),
        }
    }

    fn merged(text: &str) -> Desired {
        let node = NodeFacts { labels: Some([].into()), ..NodeFacts::default() };
        Desired::merge(&[list(text)], &node)
    }

    #[test]
    fn without_labels_only_what_does_not_need_them_is_decided() {
        let text = "images:\n  - q.io/a:1\n  - {image: 'q.io/b:1', nodeSelector: {gpu: a}, required: false}\n  - {image: 'q.io/c:1', nodeAffinity: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [other]}]}]}}\n";
        let node = NodeFacts { name: "here".to_owned(), labels: None };
        let desired = Desired::merge(&[list(text)], &node);
        let kinds: Vec<_> = desired.rows.iter().map(|r| r.kind.clone()).collect();
        assert_eq!(kinds, [RowKind::Target(0), RowKind::Undecided { required: false }, RowKind::NotForThisNode]);
        assert!(desired.undecided());
    }

    #[test]
    fn spellings_of_one_image_are_one_pull_with_the_union_of_secrets() {
        let desired = merged(
            "images:\n  - {image: busybox, imagePullSecrets: [{name: a}], imagePullPolicy: Never}\n  - {image: 'docker.io/library/busybox:latest', imagePullSecrets: [{name: b}, {name: a}], imagePullPolicy: IfNotPresent}\n  - {image: busybox, imagePullPolicy: Never}\n",
        );
        assert_eq!(desired.targets.len(), 1);
        let names: Vec<_> = desired.targets[0].pull_secrets.iter().map(|s| &*s.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(desired.targets[0].policy, PullPolicy::IfNotPresent);
        let rows: Vec<_> = desired.rows.iter().map(|r| &*r.image).collect();
        assert_eq!(rows, ["busybox", "docker.io/library/busybox:latest"]);
    }

    #[test]
    fn priority_then_list_order_and_rows_stay_in_list_order() {
        let desired = merged(
            "images:\n  - q.io/a:1\n  - {image: 'q.io/b:1', priority: 5}\n  - Bad//\n  - {image: 'q.io/c:1', priority: 5}\n  - {image: 'q.io/d:1', nodeSelector: {gpu: a}}\n",
        );
        let order: Vec<_> = desired.targets.iter().map(|t| t.image.written()).collect();
        assert_eq!(order, ["q.io/b:1", "q.io/c:1", "q.io/a:1"]);
        let kinds: Vec<_> = desired.rows.iter().map(|r| r.kind.clone()).collect();
        assert_eq!(kinds[0], RowKind::Target(2));
        assert_eq!(kinds[1], RowKind::Target(0));
        assert!(matches!(kinds[2], RowKind::Invalid { .. }));
        assert_eq!(kinds[4], RowKind::NotForThisNode);
    }

    #[test]
    fn an_entry_that_cannot_be_used_hides_behind_no_other() {
        let desired = merged(
            "images:\n  - {image: 'q.io/a:1', nodeSelector: {gpu: a}}\n  - {image: 'q.io/a:1', pin: perhaps, required: false}\n  - {image: 'q.io/a:1', priority: high}\n  - q.io/a:1\n",
        );
        let kinds: Vec<_> = desired.rows.iter().map(|r| r.kind.clone()).collect();
        assert_eq!(kinds.len(), 3, "{kinds:?}");
        assert_eq!(kinds[0], RowKind::NotForThisNode);
        assert_eq!(kinds[2], RowKind::Target(0));
        let RowKind::Invalid { why, required } = &kinds[1] else { panic!("{kinds:?}") };
        assert!(*required, "one of the two is");
        assert!(why.contains("true or false"), "the first one's reason: {why}");
    }

    #[test]
    fn what_waits_for_labels_hides_behind_no_other() {
        let other =
            "nodeAffinity: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [other]}]}]}";
        let text = format!(
            "images:\n  - {{image: 'q.io/a:1', {other}}}\n  - {{image: 'q.io/a:1', nodeSelector: {{gpu: a}}, required: false}}\n  - {{image: 'q.io/a:1', nodeSelector: {{gpu: b}}}}\n"
        );
        let desired = Desired::merge(&[list(&text)], &NodeFacts { name: "here".to_owned(), labels: None });
        let kinds: Vec<_> = desired.rows.iter().map(|r| r.kind.clone()).collect();
        assert_eq!(kinds, [RowKind::NotForThisNode, RowKind::Undecided { required: true }]);
    }

    #[test]
    fn thousands_of_secrets_of_one_image_merge_quickly() {
        use std::fmt::Write as _;
        let mut text = "images:\n".to_owned();
        for n in 0..1000 {
            let names = (0..50).fold(String::new(), |all, m| all + &format!("{{name: s{n}-{m}}},"));
            writeln!(text, "- {{image: a, imagePullSecrets: [{names}]}}").unwrap();
        }
        let list = list(&text);
        let began = tokio::time::Instant::now();
        let desired = Desired::merge(&[list], &NodeFacts::default());
        assert_eq!(desired.targets[0].pull_secrets.len(), MAX_PULL_SECRETS_PER_IMAGE);
        assert_eq!(desired.targets[0].left_out, 50_000 - MAX_PULL_SECRETS_PER_IMAGE);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }

    #[test]
    fn a_selected_list_limits_and_passes_nobody() {
        let node = NodeFacts { labels: Some([].into()), ..NodeFacts::default() };
        let selected = |text: &str| SourcedList { selected: true, ..list(text) };
        let own = "limits: {parallelPulls: 4}\nimages: [q.io/own-1:1, q.io/own-2:1, q.io/shared:1]";
        let team = "limits: {maxDiskUsage: 1%, pullTimeout: 1s, stallTimeout: 1s, spread: 8760h, parallelPulls: 1}\nimages:\n  - {image: 'q.io/team-1:1', priority: 1000}\n  - {image: 'q.io/shared:1', priority: 1000, pullTimeout: 2s}\n  - q.io/team-2:1\n";
        let other = "images: [q.io/other-1:1]";
        let desired = Desired::merge(&[list(own), selected(team), selected(other)], &node);
        let limits = Limits { parallel_pulls: crate::list::Parallel::Fixed(4), ..Limits::default() };
        assert_eq!(desired.limits, limits);
        let timeout = |name: &str| {
            let target = desired.targets.iter().find(|t| t.image.written() == name).unwrap();
            (target.pull_timeout.as_secs(), target.priority)
        };
        assert_eq!(timeout("q.io/own-1:1"), (1800, 0));
        assert_eq!(timeout("q.io/shared:1"), (1800, 0), "a team gives nobody else's image less time");
        assert_eq!(timeout("q.io/team-1:1"), (1, 0), "its own limit is about its own images");
        let order: Vec<_> = desired.targets.iter().map(|t| t.image.written()).collect();
        let turns =
            ["q.io/own-1:1", "q.io/team-1:1", "q.io/other-1:1", "q.io/own-2:1", "q.io/team-2:1", "q.io/shared:1"];
        assert_eq!(order, turns, "the lists take turns");
        let urgent = "images: [q.io/own-1:1, {image: 'q.io/own-2:1', priority: 1}]";
        let desired = Desired::merge(&[list(urgent), selected(team)], &node);
        assert_eq!(desired.targets[0].image.written(), "q.io/own-2:1");
    }

    #[test]
    fn lists_share_the_secrets_that_one_image_may_have() {
        let entry = |list: &str, secrets: usize, accounts: usize| {
            let names = (0..secrets).fold(String::new(), |all, n| all + &format!("{{name: {list}{n}}},"));
            let accounts = (0..accounts)
                .fold(String::new(), |all, n| all + &format!("- {{image: a, serviceAccountName: {list}{n}}}\n"));
            format!("images:\n- {{image: a, imagePullSecrets: [{names}]}}\n{accounts}")
        };
        let merged = |texts: &[String]| {
            let lists: Vec<_> = texts.iter().map(|text| list(text)).collect();
            let target = Desired::merge(&lists, &NodeFacts::default()).targets.remove(0);
            let of = |prefix: &str, names: &[ObjectName]| names.iter().filter(|n| n.name.starts_with(prefix)).count();
            let secrets = (of("own", &target.pull_secrets), of("team", &target.pull_secrets));
            (secrets, (of("own", &target.service_accounts), of("team", &target.service_accounts)), target.left_out)
        };
        assert_eq!(merged(&[entry("own", 50, 10)]), ((50, 0), (10, 0), 0), "at the limit nothing is left out");
        assert_eq!(merged(&[entry("own", 3, 1), entry("team", 50, 20)]), ((3, 47), (1, 9), 14));
        assert_eq!(merged(&[entry("own", 50, 20), entry("team", 50, 1)]), ((25, 25), (9, 1), 61));
    }

    #[test]
    fn a_runtime_handler_has_a_copy_of_its_own() {
        let desired = merged("images:\n  - q.io/a:1\n  - {image: 'q.io/a:1', runtimeHandler: kata}\n");
        assert_eq!(desired.targets.len(), 2);
    }

    #[test]
    fn an_entrys_own_timeout_beats_the_limit() {
        let desired = merged(
            "limits: {pullTimeout: 5m}\nimages:\n  - q.io/a:1\n  - {image: 'q.io/b:1', pullTimeout: 1m}\n  - {image: 'q.io/a:1', pullTimeout: 2m}\n",
        );
        let minutes: Vec<_> = desired.targets.iter().map(|t| t.pull_timeout.as_secs() / 60).collect();
        assert_eq!(minutes, [2, 1]);
    }
}
