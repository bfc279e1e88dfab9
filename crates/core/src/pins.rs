//! Which image records of containerd are to carry its pinned label, and which no longer. Pure: records in, steps out.
//!
//! containerd has several records for one image: its name, `repository@digest`, and its ID. CRI reports an image as
//! pinned, and the kubelet's garbage collector leaves it, when any of them carries the label (tried on 1.7 and 2.1).
//! Every pull replaces the record that it names, labels and all, even where nothing changed; the record of the ID it
//! leaves. So both are labelled: the name, where people look, and the ID, which keeps the image pinned when a pod pulls
//! it again. A second label says that it was this agent: what somebody else pinned is never touched.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// containerd's label of records whose image is not to be collected, and its value.
pub const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
/// The label by which this agent knows its own pins, and its value.
pub const OURS: (&str, &str) = ("prepull.dev/pinned", "true");

/// An image record, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name: `repository:tag`, `repository@digest` or the image's ID, `sha256:…`.
    pub name: String,
    /// The digest that it points to, by which records of one image belong together.
    pub digest: String,
    /// Bytes of the image; 0 where they do not matter or are not known.
    pub size: u64,
    /// Whether it has the pinned label.
    pub pinned: bool,
    /// Whether it has this agent's own label.
    pub ours: bool,
}

impl Record {
    /// Whether somebody else pinned it.
    fn is_foreign(&self) -> bool {
        self.pinned && !self.ours
    }

    /// Whether its name is the image's ID.
    fn is_id(&self) -> bool {
        self.name.starts_with("sha256:")
    }
}

/// An image that is to be pinned and is in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The canonical name, which is the name of its record.
    pub name: Arc<str>,
    /// The digest by which the runtime knows it.
    pub digest: Arc<str>,
    /// Its bytes.
    pub size: u64,
}

/// What is to be pinned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pinning {
    /// Images, those first that go first where not all fit.
    pub wanted: Vec<Wanted>,
    /// Names that an entry has which cannot be used: a typing mistake unpins nothing.
    pub held: Vec<Arc<str>>,
    /// Whether this is all that is wanted. While a list or the node's labels are not known, nothing is unpinned.
    pub complete: bool,
    /// Bytes that all pinned images may have together.
    pub cap: Option<u64>,
}

/// A change of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The record's name.
    pub record: String,
    /// What it points to.
    pub digest: String,
    /// What becomes of it.
    pub change: Change,
}

impl Step {
    fn of(record: &Record, change: Change) -> Self {
        Self { record: record.name.clone(), digest: record.digest.clone(), change }
    }
}

/// What becomes of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It gets both labels, for the image of this name.
    Pin(Arc<str>),
    /// It loses both labels.
    Unpin,
}

/// An image that is not pinned because it does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its canonical name.
    pub name: Arc<str>,
    /// Its bytes.
    pub size: u64,
    /// Bytes of what is pinned before it.
    pub pinned: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Changes, those first that make room.
    pub steps: Vec<Step>,
    /// What does not fit.
    pub left_out: Vec<LeftOut>,
    /// An image that carries the label already, by which can be seen whether the runtime honours it.
    pub witness: Option<Arc<str>>,
    /// Whether records of this agent's are left afterwards.
    pub ours_left: bool,
}

/// Plans. Of the images that are wanted, in their order, each is pinned that still fits.
pub fn plan(pinning: &Pinning, records: &[Record]) -> Plan {
    let by_name: HashMap<&str, &Record> = records.iter().map(|r| (r.name.as_str(), r)).collect();
    let mut ids: HashMap<&str, Vec<&Record>> = HashMap::new();
    for record in records.iter().filter(|r| r.is_id()) {
        ids.entry(&record.digest).or_default().push(record);
    }
    let foreign: HashSet<&str> = records.iter().filter(|r| r.is_foreign()).map(|r| r.digest.as_str()).collect();
    // what has no record any more is no longer in the store
    let there: Vec<(&Wanted, &Record)> =
        pinning.wanted.iter().filter_map(|w| Some((w, *by_name.get(&*w.name)?))).collect();
    let held: HashSet<&str> =
        pinning.held.iter().filter_map(|name| by_name.get(&**name)).map(|r| r.digest.as_str()).collect();
    let wanted: HashMap<&str, u64> = there.iter().map(|(w, r)| (r.digest.as_str(), w.size)).collect();

    // what stays pinned whatever is decided here
    let mut fixed: HashMap<&str, u64> = HashMap::new();
    for record in records.iter().filter(|r| r.pinned) {
        let digest = record.digest.as_str();
        let listed = wanted.get(digest);
        let kept = !pinning.complete || held.contains(digest);
        if foreign.contains(digest) || (listed.is_none() && kept) {
            let size = fixed.entry(digest).or_default();
            *size = (*size).max(record.size).max(listed.copied().unwrap_or_default());
        }
    }
    let mut total = fixed.values().fold(0_u64, |sum, size| sum.saturating_add(*size));
    let mut chosen: HashSet<&str> = HashSet::new();
    let mut plan = Plan::default();
    let mut keep: HashSet<&str> = HashSet::new();
    let mut pins = Vec::new();
    for (want, record) in &there {
        let digest = record.digest.as_str();
        let is_foreign = foreign.contains(digest);
        if !is_foreign && !chosen.contains(digest) {
            let with = total.saturating_add(want.size);
            if pinning.cap.is_some_and(|cap| with > cap) {
                plan.left_out.push(LeftOut { name: want.name.clone(), size: want.size, pinned: total });
                continue;
            }
            total = with;
            chosen.insert(digest);
        }
        for of_it in ids.get(digest).into_iter().flatten().chain([record]) {
            let new = keep.insert(&of_it.name);
            if of_it.pinned {
                plan.witness.get_or_insert_with(|| want.name.clone());
            }
            if new && !is_foreign && !(of_it.pinned && of_it.ours) {
                pins.push(Step::of(of_it, Change::Pin(want.name.clone())));
            }
        }
    }
    let left_out: HashSet<&str> =
        plan.left_out.iter().filter_map(|l| by_name.get(&*l.name)).map(|r| &*r.digest).collect();
    for record in records.iter().filter(|r| r.ours && !keep.contains(r.name.as_str())) {
        let digest = record.digest.as_str();
        let known = pinning.complete || left_out.contains(digest);
        if known && !held.contains(digest) {
            plan.steps.push(Step::of(record, Change::Unpin));
        } else {
            plan.ours_left = true;
        }
    }
    plan.ours_left |= !pins.is_empty() || records.iter().any(|r| r.ours && keep.contains(r.name.as_str()));
    plan.steps.append(&mut pins);
    plan
}

/// What takes every pin of this agent's away again.
pub fn take_back(records: &[Record]) -> Vec<Step> {
    let ours = records.iter().filter(|r| r.ours);
    ours.map(|record| Step::of(record, Change::Unpin)).collect()
}

#[cfg(test)]
mod tests;
