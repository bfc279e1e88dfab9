//! The keeper's part in `pullingNodes`: hands on what the budget asks, and tells what is wrong with it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use super::{Reporter, cluster::Cluster, sources::Sources};
use crate::{
    budget::{Admission, Answer, Ask, Budget, Event, Need},
    clock::Moment,
    image_state::Wait,
    kubernetes::messages::News,
    process_clock::Clock,
    status::Status,
};

/// Time that giving a slot back may take.
const LAST_WORD: Duration = Duration::from_secs(2);

const WITHOUT_API_SERVER: &str =
    "limits.pullingNodes has no effect here: the slots are Leases, and with --images no API server is contacted";

/// This node's budget.
#[derive(Debug)]
pub(super) struct NodeBudget {
    budget: Budget,
    /// None: there is no API server, and no cap.
    asks: Option<mpsc::Sender<Ask>>,
    need: Need,
    /// The problem that was told.
    told: Option<String>,
    /// Whether it was told that the API server does not answer.
    silent: bool,
}

impl NodeBudget {
    pub(super) fn new(node: Arc<str>, asks: Option<mpsc::Sender<Ask>>) -> Self {
        Self { budget: Budget::new(node), asks, need: Need::default(), told: None, silent: false }
    }

    /// Whether pulls may begin under this cap.
    pub(super) fn admission(&self, cap: Option<u32>) -> Admission {
        self.budget.admission(cap.filter(|_| self.asks.is_some()))
    }

    /// Says what is needed after a turn, and comes back with the moment at which it wants to be asked again.
    pub(super) fn turned(&mut self, need: Need, now: Moment) -> Option<Moment> {
        self.asks.as_ref()?;
        self.need = need;
        let ask = self.budget.step(Event::Need(need), now, fastrand::f64());
        self.ask(ask);
        self.budget.wake()
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, answer: Answer, now: Moment) {
        let ask = self.budget.step(Event::Answer(answer), now, fastrand::f64());
        self.ask(ask);
    }

    /// What is wrong with the cap.
    pub(super) fn problem(&self) -> Option<String> {
        self.budget.problem()
    }

    /// Tells a problem of the cap once, of the lists that ask for it. That the API server does not answer is for the
    /// log alone, after a while: it is no mistake in a list, and every node would tell it.
    pub(super) fn tell_problem(&mut self, sources: &Sources, reporter: &mut impl Reporter, now: Moment) {
        let silence = self.budget.silence(now);
        if silence.is_some() != self.silent {
            self.silent = silence.is_some();
            if let Some(why) = silence {
                tracing::warn!(%why, "no slot of pullingNodes can be asked for; trying again");
            } else {
                tracing::info!("slots of pullingNodes are asked for again");
            }
        }
        let problem = self.budget.problem();
        if problem == self.told {
            return;
        }
        if let Some(problem) = &problem {
            tracing::warn!(%problem, "the cap on pulling nodes is not kept as it is written");
            for list in sources.with_cap() {
                reporter.list(list, std::slice::from_ref(problem));
            }
        } else {
            tracing::info!("the cap on pulling nodes is kept again");
        }
        self.told = problem;
    }

    /// Says of the lists what is wrong with their cap, and of each image that waits for a slot what it waits for.
    pub(super) fn explain(&self, sources: &Sources, status: &mut Status) {
        let capped: Vec<_> = sources.with_cap().collect();
        let problem = self.budget.problem();
        for list in status.lists.iter_mut().filter(|list| capped.contains(&&list.source)) {
            list.problems.extend(problem.clone());
            if self.asks.is_none() {
                list.notes.push(WITHOUT_API_SERVER.to_owned());
            }
        }
        for image in status.images.iter_mut().filter(|image| image.wait == Some(Wait::Budget)) {
            image.message = Some(self.budget.sentence());
        }
    }

    /// Gives the slot back because the agent ends. Where that takes long, it expires by itself.
    pub(super) async fn give_back(&mut self, cluster: &mut Cluster, clock: Clock) {
        let given = async {
            while self.budget.holds() {
                let _ = self.turned(Need { wants: false, pulling: false, ..self.need }, clock.now());
                match cluster.news().await {
                    Some(News::Slot(answer)) => self.answered(answer, clock.now()),
                    Some(News::Node(_) | News::Object(..)) => {}
                    None => break,
                }
            }
        };
        let _ = timeout(LAST_WORD, given).await;
    }

    fn ask(&mut self, ask: Option<Ask>) {
        if let (Some(ask), Some(asks)) = (ask, &self.asks) {
            // one at a time fits; and nobody is there any more only when the process ends
            let _ = asks.try_send(ask);
        }
    }
}
