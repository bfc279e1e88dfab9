//! One look at the cluster after the other: the pods, the lists, and what agents answer.

use std::{collections::HashMap, io::IsTerminal as _, sync::Arc};

use futures::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use kube::Client;

use crate::{
    error_text::one_line,
    fleet::{Agent, Picture, Said, Wanted},
    kubernetes::{
        agents::{self, Asker},
        wanted,
        watch::Trouble,
    },
};

/// Agents that are asked at once.
const PARALLEL: usize = 32;
/// A progress bar is shown where so many are asked.
const MANY: u64 = 20;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// Whose pods are not ready, or are ready whether warm or not.
    NotReady,
    /// All.
    Everybody,
}

/// Looks at a cluster.
pub(super) struct Rounds {
    client: Client,
    asker: Asker,
    namespace: String,
    selector: String,
    who: Who,
    proven: Proven,
}

/// Agents that were warm with these lists: while nothing speaks against it they are not asked again.
#[derive(Default)]
struct Proven {
    wanted: Vec<Wanted>,
    /// What they said.
    picture: Picture,
    uids: HashMap<Arc<str>, bool>,
}

impl Rounds {
    pub(super) fn new(client: Client, namespace: String, selector: String, who: Who) -> Self {
        let asker = Asker::new(client.clone(), &namespace);
        Self { client, asker, namespace, selector, who, proven: Proven::default() }
    }

    /// Looks once. An agent that proved to be warm in an earlier look counts as it was then, as long as its pod is the same
    /// one, is as ready as it was, and the lists are the same.
    pub(super) async fn look(&mut self) -> Result<Picture, Trouble> {
        let agents = agents::list(&self.client, &self.namespace, &self.selector).await?;
        let wanted = wanted::of(&self.client, &agents).await;
        self.proven.keep(&agents, &wanted, &self.namespace);
        let mut picture = self.proven.picture.clone();
        picture.agents = agents.len();
        let (asked, ready): (Vec<&Agent>, Vec<&Agent>) = agents
            .iter()
            .filter(|agent| !self.proven.uids.contains_key(&agent.uid))
            .partition(|agent| self.who == Who::Everybody || !agent.ready || agent.settings.ready_when_running);
        for agent in ready {
            picture.add(agent, &Said::NotAsked, &wanted);
        }
        let bar = bar(asked.len() as u64);
        let asker = &self.asker;
        let mut answers = stream::iter(asked)
            .map(|agent| async move {
                let said = match asker.ask(agent).await {
                    Ok(answer) => Said::Answer(Box::new(answer)),
                    Err(why) => Said::Nothing(why),
                };
                (agent, said)
            })
            .buffer_unordered(PARALLEL);
        while let Some((agent, said)) = answers.next().await {
            bar.inc(1);
            let before = picture.proven;
            picture.add(agent, &said, &wanted);
            if picture.proven > before {
                self.proven.picture.add(agent, &said, &wanted);
                self.proven.uids.insert(agent.uid.clone(), agent.ready);
            }
        }
        bar.finish_and_clear();
        Ok(picture.complete())
    }

    /// Whether the next look goes by what an earlier one proved.
    pub(super) fn remembers(&self) -> bool {
        !self.proven.uids.is_empty()
    }

    /// Makes the next look ask everybody.
    pub(super) fn forget(&mut self) {
        self.proven = Proven::default();
    }

    /// An error of listing the pods, with what to do.
    pub(super) fn explained(&self, trouble: Trouble) -> anyhow::Error {
        let namespace = one_line(&self.namespace);
        match trouble {
            Trouble::Forbidden(why) => anyhow::anyhow!(
                "the pods of namespace {namespace} may not be listed: {why}; grant list on pods there (the role prepull-viewer), or see --namespace"
            ),
            other @ Trouble::NoAnswer(_) => {
                anyhow::anyhow!("the pods of namespace {namespace} could not be listed: {other}")
            }
        }
    }
}

impl Proven {
    fn keep(&mut self, agents: &[Agent], wanted: &[Wanted], namespace: &str) {
        let there: HashMap<&Arc<str>, bool> = agents.iter().map(|agent| (&agent.uid, agent.ready)).collect();
        // one that was ready and is not any more may be cold again
        let stands = |(uid, was_ready): (&Arc<str>, &bool)| there.get(uid).is_some_and(|ready| *ready || !was_ready);
        if self.wanted != wanted || !self.uids.iter().all(stands) {
            self.uids.clear();
            self.wanted = wanted.to_vec();
        }
        if self.uids.is_empty() {
            self.picture = Picture::new(namespace, agents.len(), wanted);
        }
    }
}

fn bar(asked: u64) -> ProgressBar {
    if asked < MANY || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(asked);
    if let Ok(style) = ProgressStyle::with_template("asked {pos} of {len} agents {bar:30}") {
        bar.set_style(style);
    }
    bar
}
