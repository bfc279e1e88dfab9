//! The whole cluster, as it is shown.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;

use super::{Agent, Answer, ImageCount, NodeRow, Settings, Tally, Wanted};
use crate::error_text::one_line;

/// What became of asking an agent.
#[derive(Debug)]
pub enum Said {
    /// It was not asked: its pod is ready, and that says enough.
    NotAsked,
    /// It answered.
    Answer(Box<Answer>),
    /// It could not be asked, or gave no answer, for this reason.
    Nothing(String),
}

/// A node of which nothing is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SilentNode {
    /// The node; empty where the pod has none yet.
    pub node: Arc<str>,
    /// Its agent's pod.
    pub pod: Arc<str>,
    /// Why.
    pub reason: String,
}

/// A list, and who follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowedList {
    /// `namespace/name` of its ConfigMap.
    pub source: String,
    /// Its revision as it is now.
    pub revision: Option<String>,
    /// Why nobody can follow it, or why it is not known.
    pub problem: Option<String>,
    /// Agents that answered and are to follow it.
    pub agents: usize,
    /// Of these with this very revision.
    pub up_to_date: usize,
}

/// Everything that `prepull status` shows.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Picture {
    /// The agents' namespace.
    pub namespace: String,
    /// Agents, those of dead nodes included.
    pub agents: usize,
    /// Whose nodes are warm: by their answer, or by their readiness where they were not asked.
    pub warm: usize,
    /// Who answered.
    pub asked: usize,
    /// Who is ready and was not asked; nothing of theirs is in `images`.
    pub not_asked: usize,
    /// Warm by their own answer, with every list as it is now.
    pub proven: usize,
    /// The lists.
    pub lists: Vec<FollowedList>,
    /// Images on the nodes that answered.
    pub images: Vec<ImageCount>,
    /// Nodes, those that are not warm first.
    pub nodes: Vec<NodeRow>,
    /// Nodes of which nothing is known.
    pub silent: Vec<SilentNode>,
    /// Whose list is a file, so that nobody can tell whether it is the one as it is now.
    #[serde(skip)]
    of_files: usize,
    #[serde(skip)]
    unusable_list: bool,
    #[serde(skip)]
    tally: Tally,
}

impl Picture {
    /// Nothing said yet.
    pub fn new(namespace: &str, agents: usize, wanted: &[Wanted]) -> Self {
        let list = |w: &Wanted| FollowedList {
            // it stands in the arguments of a pod
            source: one_line(&w.source),
            revision: w.revision.clone(),
            problem: w.problem.as_deref().map(one_line),
            agents: 0,
            up_to_date: 0,
        };
        Self {
            namespace: namespace.to_owned(),
            agents,
            lists: wanted.iter().map(list).collect(),
            unusable_list: wanted.iter().any(|w| w.problem.is_some() && !w.passing),
            ..Self::default()
        }
    }

    /// Whether there is a list that no agent can follow as it is, or that may not be read: waiting changes nothing.
    pub fn has_unusable_list(&self) -> bool {
        self.unusable_list
    }

    /// Whose list is a file, where that are too many for so many of 100 to prove anything.
    pub fn never_proven(&self, percent: f64) -> Option<usize> {
        let others = self.agents - self.of_files.min(self.agents);
        (self.of_files > 0 && !enough(others, percent, self.agents)).then_some(self.of_files)
    }

    /// Takes in what became of one agent. `wanted` are the lists of all agents.
    pub fn add(&mut self, agent: &Agent, said: &Said, wanted: &[Wanted]) {
        self.of_files += usize::from(agent.settings.follow_a_file());
        match said {
            Said::NotAsked => {
                self.not_asked += 1;
                self.warm += usize::from(agent.ready);
                let (node, pod) = (agent.node.clone(), agent.pod.clone());
                self.nodes.push(NodeRow { node, pod, warm: agent.ready, ..NodeRow::default() });
            }
            Said::Nothing(reason) => {
                let reason = one_line(reason);
                self.silent.push(SilentNode { node: agent.node.clone(), pod: agent.pod.clone(), reason });
            }
            Said::Answer(answer) => {
                let mut row = self.tally.add(&agent.node, &agent.pod, answer);
                row.up_to_date = follows(&agent.settings, answer, wanted);
                for (list, wanted) in self.lists.iter_mut().zip(wanted) {
                    if is_for(&agent.settings, wanted) {
                        list.agents += 1;
                        list.up_to_date += usize::from(wanted.is_followed(answer));
                    }
                }
                self.asked += 1;
                self.warm += usize::from(row.warm);
                self.proven += usize::from(row.warm && row.up_to_date == Some(true));
                self.nodes.push(row);
            }
        }
    }

    /// Sorts and sums up, when all were added.
    #[must_use]
    pub fn complete(mut self) -> Self {
        self.images = std::mem::take(&mut self.tally).into_images();
        let well = |row: &NodeRow| (row.warm, !row.has_old_list());
        self.nodes.sort_by(|a, b| well(a).cmp(&well(b)).then_with(|| a.node.cmp(&b.node)));
        self.silent.sort_by(|a, b| a.node.cmp(&b.node));
        self
    }

    /// Whether so many of 100 agents are warm; `proven` counts only those that say so with the lists as they are now.
    pub fn is_warm(&self, percent: f64, proven: bool) -> bool {
        let warm = if proven { self.proven } else { self.warm };
        self.agents > 0 && enough(warm, percent, self.agents)
    }
}

fn enough(some: usize, percent: f64, all: usize) -> bool {
    some as f64 * 100.0 >= percent * all as f64
}

/// Whether an agent has every list that it is to follow as it is now; none where it follows none that can be compared. A
/// selector that selects none now is followed by who has none of it in force.
fn follows(settings: &Settings, answer: &Answer, wanted: &[Wanted]) -> Option<bool> {
    if settings.follow_a_file() {
        return None;
    }
    let mut its = wanted.iter().filter(|w| is_for(settings, w));
    Some(its.all(|w| w.is_followed(answer)) && !follows_another(settings, answer, wanted))
}

/// Whether one of the selected lists that it has in force is gone.
fn follows_another(settings: &Settings, answer: &Answer, wanted: &[Wanted]) -> bool {
    let Some((namespace, _)) = &settings.selected else { return false };
    let sources: BTreeSet<&str> = wanted.iter().map(|w| w.source.as_str()).collect();
    answer.lists.iter().any(|list| {
        let selected = list.source.split_once('/').is_some_and(|(at, name)| at == namespace && !name.contains('/'));
        selected && !list.revision.is_empty() && !sources.contains(list.source.as_str())
    })
}

fn is_for(settings: &Settings, wanted: &Wanted) -> bool {
    let selected = settings
        .selected
        .as_ref()
        .is_some_and(|(namespace, _)| wanted.source.split_once('/').is_some_and(|(at, _)| at == namespace));
    selected || settings.configmaps.contains(&wanted.source)
}
