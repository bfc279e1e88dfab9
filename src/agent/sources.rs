//! The lists in force: what every source last gave, in the order in which their lists merge.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    desired::SourcedList,
    list::{ImageList, ListProblem},
    list_update::{ListUpdate, Read},
    status::ListStatus,
};

/// Where lists come from.
#[derive(Debug, Clone, Default)]
pub struct SourceNames {
    /// Sources that are always there, in the order in which they were named.
    pub named: Vec<Arc<str>>,
    /// What stands for the lists that come and go, if there are such.
    pub selector: Option<Arc<str>>,
}

/// One list source.
#[derive(Debug, Default)]
struct Source {
    /// Whether it has told anything yet.
    told: bool,
    /// The last good list.
    list: Option<SourcedList>,
    problems: Vec<String>,
    /// Whether what it told last cannot be used.
    rejected: bool,
}

/// Lists that come and go.
#[derive(Debug)]
struct Selected {
    name: Arc<str>,
    /// Whether all were told once.
    complete: bool,
    told: bool,
    problem: Option<String>,
    /// Whether they cannot be followed, for another reason than that nobody answers.
    rejected: bool,
    /// In the order in which they merge.
    lists: BTreeMap<Arc<str>, Source>,
}

/// All sources.
#[derive(Debug)]
pub(super) struct Sources {
    named: Vec<(Arc<str>, Source)>,
    selected: Option<Selected>,
}

/// What an update changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// What is in force.
    InForce,
    /// Nothing that is in force: the text cannot be used, or is out of reach.
    Nothing,
}

impl Sources {
    pub(super) fn new(names: SourceNames) -> Self {
        let selected = |name| Selected {
            name,
            complete: false,
            told: false,
            problem: None,
            rejected: false,
            lists: BTreeMap::new(),
        };
        Self {
            named: names.named.into_iter().map(|name| (name, Source::default())).collect(),
            selected: names.selector.map(selected),
        }
    }

    /// Takes an update in, and says what it changed. A source that nobody configured changes nothing.
    pub(super) fn update(&mut self, update: ListUpdate) -> Change {
        let ListUpdate { source: name, namespace, read } = update;
        if let Some((_, source)) = self.named.iter_mut().find(|(named, _)| *named == name) {
            return source.update(&name, namespace, false, read);
        }
        let Some(selected) = &mut self.selected else { return Change::Nothing };
        if selected.name != name {
            if matches!(read, Read::Gone) {
                selected.lists.remove(&name);
                tracing::info!(list = %name, "list is no longer selected");
                return if selected.complete { Change::InForce } else { Change::Nothing };
            }
            let change = selected.lists.entry(name.clone()).or_default().update(&name, namespace, true, read);
            // the others of the first round come first
            return if selected.complete { change } else { Change::Nothing };
        }
        selected.told = true;
        let nothing = matches!(read, Read::Nothing(_));
        match read {
            Read::Complete => {
                selected.complete = true;
                selected.rejected = false;
                selected.problem = None;
            }
            Read::Nothing(why) | Read::OutOfReach(why) => {
                selected.rejected |= nothing;
                tracing::warn!(list = %name, problem = %why, "the selected lists cannot be followed");
                selected.problem = Some(why);
            }
            Read::List { .. } | Read::NotAList(_) | Read::Gone => {}
        }
        Change::InForce
    }

    /// The lists in force, in the order in which they merge; none before every source has told something, and before
    /// any list was read.
    pub(super) fn in_force(&self) -> Option<Vec<SourcedList>> {
        let all_told = self.named.iter().all(|(_, s)| s.told) && self.selected.as_ref().is_none_or(|s| s.told);
        let lists: Vec<SourcedList> = self.all().filter_map(|(_, s)| s.list.clone()).collect();
        let none_selected = self.selected.as_ref().is_some_and(|s| s.complete);
        (all_told && (none_selected || !lists.is_empty())).then_some(lists)
    }

    /// Why more could be wanted than the lists in force say.
    pub(super) fn unread(&self) -> Option<String> {
        if let Some(selected) = self.selected.as_ref().filter(|s| !s.complete) {
            let why = selected.problem.as_deref().unwrap_or("the API server has not told them yet");
            return Some(format!("the lists of {} were not read yet: {why}", selected.name));
        }
        let (name, source) = self.all().find(|(_, s)| s.list.is_none())?;
        let why = source.problems.first().map_or(String::new(), |p| format!(": {p}"));
        Some(format!("the list {name} was not read yet{why}"))
    }

    pub(super) fn status(&self) -> Vec<ListStatus> {
        let row = |(name, source): (&Arc<str>, &Source)| ListStatus {
            source: name.clone(),
            revision: source.list.as_ref().map_or_else(|| "".into(), |l| l.revision.clone()),
            problems: source.problems.clone(),
            notes: source.notes(),
            pins: source.list.as_ref().is_some_and(|l| l.list.pins()),
        };
        let mut rows: Vec<_> = self.all().map(row).collect();
        if let Some((name, problem)) = self.selected.as_ref().and_then(|s| s.problem.as_ref().map(|p| (&s.name, p))) {
            let problems = vec![problem.clone()];
            rows.push(ListStatus {
                source: name.clone(),
                revision: "".into(),
                problems,
                notes: Vec::new(),
                pins: false,
            });
        }
        rows
    }

    /// Returns the lists whose cap on the nodes that pull is in force; a selected list has none.
    pub(super) fn with_cap(&self) -> impl Iterator<Item = &Arc<str>> {
        let caps = |source: &Source| source.list.as_ref().is_some_and(|l| l.list.limits.pulling_nodes.is_some());
        self.named
            .iter()
            .map(|(name, source)| (name, source))
            .filter(move |(_, source)| caps(source))
            .map(|(name, _)| name)
    }

    /// How many sources told something last that cannot be used. One that is only out of reach told nothing.
    pub(super) fn rejected(&self) -> usize {
        let lists = self.all().filter(|(_, source)| source.rejected).count();
        lists + usize::from(self.selected.as_ref().is_some_and(|s| s.rejected))
    }

    /// What is wrong with a source.
    pub(super) fn problems(&self, name: &Arc<str>) -> &[String] {
        self.all().find(|(known, _)| *known == name).map_or(&[], |(_, source)| &source.problems)
    }

    fn all(&self) -> impl Iterator<Item = (&Arc<str>, &Source)> {
        let selected = self.selected.iter().flat_map(|s| &s.lists);
        self.named.iter().map(|(name, source)| (name, source)).chain(selected)
    }
}

/// Problems of one list that are logged one by one: a broken generator must not flood the logs of 5,000 nodes.
const MOST_LOGGED: usize = 10;

impl Source {
    fn update(&mut self, name: &Arc<str>, namespace: Option<Arc<str>>, selected: bool, read: Read) -> Change {
        self.told = true;
        match read {
            Read::List { revision, list } => {
                self.problems = ListStatus::lines(&list.problems);
                tracing::info!(list = %name, revision = %revision, entries = list.entries.len(), problems = self.problems.len(), "list read");
                for problem in self.problems.iter().take(MOST_LOGGED) {
                    tracing::warn!(list = %name, problem = %problem, "the list has a problem");
                }
                if let Some(more) = self.problems.len().checked_sub(MOST_LOGGED).filter(|more| *more > 0) {
                    tracing::warn!(list = %name, more, "the list has more problems; `prepull check` shows all");
                }
                self.rejected = false;
                let list = self.with_good_limits(list);
                let before = self.notes();
                self.list = Some(SourcedList { source: name.clone(), revision, namespace, selected, list });
                for note in self.notes().iter().filter(|note| !before.contains(note)) {
                    tracing::warn!(list = %name, notice = %note, "the list has a notice");
                }
                return Change::InForce;
            }
            Read::NotAList(problem) => self.refuse(name, ListProblem::to_string(&problem)),
            Read::Nothing(why) => self.refuse(name, why),
            Read::OutOfReach(why) => {
                tracing::warn!(list = %name, problem = %why, kept = self.kept(), "the list is out of reach");
                self.problems = vec![why];
            }
            Read::Gone | Read::Complete => {}
        }
        // others may have waited for this source to tell anything
        if self.list.is_none() { Change::InForce } else { Change::Nothing }
    }

    /// Returns what people should know about a list that has no mistake.
    fn notes(&self) -> Vec<String> {
        self.list.iter().filter_map(ignored_limits).collect()
    }

    /// The list, with the last good value of each limit that cannot be read.
    fn with_good_limits(&self, list: Arc<ImageList>) -> Arc<ImageList> {
        let Some(last) = self.list.as_ref().filter(|_| !list.limits.unread.is_empty()) else { return list };
        let mut list = Arc::unwrap_or_clone(list);
        list.limits.keep(&last.list.limits);
        Arc::new(list)
    }

    /// Keeps the last good list, and says what is wrong with the new text.
    fn refuse(&mut self, name: &Arc<str>, problem: String) {
        tracing::error!(list = %name, %problem, kept = self.kept(), "the list cannot be used");
        self.problems = vec![problem];
        self.rejected = true;
    }

    fn kept(&self) -> &'static str {
        self.list.as_ref().map_or("none was read before", |_| "the last good one stays in force")
    }
}

/// Returns the notice for a selected list that sets limits of the node.
fn ignored_limits(list: &SourcedList) -> Option<String> {
    let ignored = if list.selected { list.list.limits.node_wide() } else { Vec::new() };
    (!ignored.is_empty()).then(|| {
        format!(
            "limits not in force ({}): a list found by a label selector limits only its own pulls, by pullTimeout. Fix: set them in a list that the agent's flags name",
            ignored.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Sources {
        Sources::new(SourceNames { named: vec!["file".into()], selector: Some("team?x".into()) })
    }

    fn tell(sources: &mut Sources, source: &str, read: Read) -> Change {
        sources.update(ListUpdate { source: source.into(), namespace: None, read })
    }

    fn names(sources: &Sources) -> Option<Vec<String>> {
        sources.in_force().map(|lists| lists.iter().map(|l| l.source.to_string()).collect())
    }

    #[test]
    fn nothing_is_in_force_before_every_source_has_told_something() {
        let mut sources = sources();
        assert_eq!(tell(&mut sources, "file", Read::of_text("images: []")), Change::InForce);
        assert_eq!(names(&sources), None);
        assert_eq!(tell(&mut sources, "team/b", Read::of_text("images: []")), Change::Nothing);
        assert_eq!(tell(&mut sources, "team/a", Read::of_text("images: []")), Change::Nothing);
        assert_eq!(tell(&mut sources, "team?x", Read::Complete), Change::InForce);
        assert_eq!(names(&sources).unwrap(), ["file", "team/a", "team/b"]);
        assert_eq!(sources.unread(), None);
        assert_eq!(tell(&mut sources, "team/a", Read::Gone), Change::InForce);
        assert_eq!(names(&sources).unwrap(), ["file", "team/b"]);
    }

    #[test]
    fn a_source_that_cannot_be_read_holds_up_no_other_and_is_told() {
        let mut sources = sources();
        tell(&mut sources, "team?x", Read::Nothing("forbidden".to_owned()));
        tell(&mut sources, "file", Read::of_text("images: []"));
        assert_eq!(names(&sources).unwrap(), ["file"]);
        assert_eq!(sources.unread().unwrap(), "the lists of team?x were not read yet: forbidden");
        assert_eq!(sources.rejected(), 1);
        tell(&mut sources, "team?x", Read::Complete);
        assert_eq!(sources.rejected(), 0);
        tell(&mut sources, "team/a", Read::of_text("- a"));
        assert!(sources.unread().unwrap().starts_with("the list team/a was not read yet: "));
        assert_eq!(names(&sources).unwrap(), ["file"]);
    }

    #[test]
    fn the_last_good_value_of_a_limit_outlives_bad_ones() {
        let mut sources = Sources::new(SourceNames { named: vec!["a/b".into()], selector: None });
        let mut told = |limits: &str| {
            tell(&mut sources, "a/b", Read::of_text(&format!("limits: {limits}\nimages: [q.io/a:1]")));
            let limits = sources.in_force().unwrap()[0].list.limits.clone();
            let marks = (limits.max_disk_usage, limits.resume_disk_usage);
            (limits.max_pinned_size, limits.pulling_nodes, limits.max_io_pressure, marks)
        };
        let bad = "{maxPinnedSize: 20GB, pullingNodes: many, maxIOPressure: 40%, maxDiskUsage: 60}";
        assert_eq!(told(bad), (None, Some(1), Some(10.0), (80, 75)), "none was ever good");
        let good = told("{maxPinnedSize: 20Gi, pullingNodes: 50, maxIOPressure: 40, maxDiskUsage: 60%}");
        assert_eq!(good, (Some(20 << 30), Some(50), Some(40.0), (60, 55)));
        assert_eq!([told(bad), told(bad), told("none")], [good; 3]);
        assert_eq!(told("{maxDiskUsage: 70%, resumeDiskUsage: 50}").3, (70, 55), "one mark may be good");
        assert_eq!(told("{maxDiskUsage: 50%, resumeDiskUsage: 50}").3, (50, 45), "and the last one too high for it");
        assert_eq!(told("{}"), (None, None, None, (80, 75)), "what is left out is no mistake");
        assert_eq!(
            told("{pullingNodes: 5O, maxIOPressure: high}"),
            (None, Some(1), Some(10.0), (80, 75)),
            "nor a good value"
        );
        told("{}");
        assert!(sources.status()[0].problems.is_empty());
    }

    #[test]
    fn limits_of_a_selected_list_are_a_notice() {
        let mut sources = sources();
        let text = "limits: {maxDiskUsage: 1%, pullTimeout: 1s, pullingNodes: many}\nimages: []";
        tell(&mut sources, "file", Read::of_text(text));
        tell(&mut sources, "team/a", Read::of_text(text));
        tell(&mut sources, "team?x", Read::Complete);
        let status = sources.status();
        assert!(status[0].notes.is_empty(), "{status:?}");
        let [note] = status[1].notes.as_slice() else { panic!("{status:?}") };
        assert!(note.starts_with("limits not in force (pullingNodes, maxDiskUsage, resumeDiskUsage): "), "{note}");
        assert_eq!(sources.with_cap().count(), 1);
        tell(&mut sources, "team/a", Read::of_text("limits: {pullTimeout: 1s}\nimages: []"));
        assert!(sources.status()[1].notes.is_empty());
    }

    #[test]
    fn the_last_good_list_outlives_bad_texts_and_outages() {
        let mut sources = Sources::new(SourceNames { named: vec!["a/b".into()], selector: None });
        assert_eq!(tell(&mut sources, "a/b", Read::Nothing("absent".to_owned())), Change::InForce);
        assert_eq!(names(&sources), None);
        tell(&mut sources, "a/b", Read::of_text("images: [q.io/a:1]"));
        for bad in [Read::of_text("["), Read::Nothing("deleted".into()), Read::OutOfReach("no answer".into())] {
            assert_eq!(tell(&mut sources, "a/b", bad), Change::Nothing);
            assert_eq!(sources.rejected(), 1, "an outage says nothing about the text");
            assert_eq!(names(&sources).unwrap(), ["a/b"]);
            assert_eq!(sources.status()[0].problems.len(), 1);
            assert!(!sources.status()[0].revision.is_empty());
        }
        tell(&mut sources, "a/b", Read::of_text("images: [q.io/a:1]"));
        assert!(sources.status()[0].problems.is_empty());
        assert_eq!(sources.rejected(), 0);
        tell(&mut sources, "a/b", Read::OutOfReach("no answer".into()));
        assert_eq!(sources.rejected(), 0);
    }
}
