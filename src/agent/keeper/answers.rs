//! What the keeper says when it is asked: nothing is kept for it, everything is told as it is at this moment.

use std::time::SystemTime;

use super::{Keeper, Reporter};
use crate::{
    http::{Query, Readiness},
    node_report::ReadyWhen,
    runtime::Runtime,
    status::Status,
    stock::Warmth,
};

impl<R: Reporter> Keeper<R> {
    pub(super) fn answer(&mut self, query: Query) {
        // whoever asked may have gone away: then nobody misses the answer
        match query {
            Query::Health(reply) => drop(reply.send(())),
            Query::Readiness(reply) => drop(reply.send(self.readiness())),
            Query::Status(reply) => drop(reply.send(self.status())),
            Query::Metrics(reply) => {
                let status = self.status();
                match self.metrics.page(&status) {
                    Ok(page) => drop(reply.send(page)),
                    Err(e) => tracing::error!(error = %e, "metrics cannot be shown"),
                }
            }
        }
    }

    /// How far the node is, and what of the lists and the runtime explains it.
    fn warmth(&self) -> Warmth {
        let mut warmth = self.stock.warmth();
        if !self.stock.list_read() {
            warmth.reason = self.sources.unread().unwrap_or(warmth.reason);
        }
        let budget_problem = self.budget.problem();
        let problem = self.runtime_problem.as_ref().or(self.look_problem.as_ref()).or(budget_problem.as_ref());
        if let Some(problem) = problem.filter(|_| !warmth.warm) {
            warmth.reason = format!("{}; {problem}", warmth.reason);
        }
        warmth
    }

    fn readiness(&self) -> Readiness {
        let warmth = self.warmth();
        let ready = match self.ready_when {
            ReadyWhen::Warm => warmth.warm,
            ReadyWhen::Running => true,
        };
        Readiness { ready, warmth }
    }

    pub(super) fn status(&self) -> Status {
        let mut status = Status {
            runtime: self.runtime.as_ref().map(Runtime::name_and_version).unwrap_or_default(),
            runtime_problem: self.runtime_problem.clone().or_else(|| self.look_problem.clone()),
            lists: self.sources.status(),
            lists_rejected: i64::try_from(self.sources.rejected()).unwrap_or(i64::MAX),
            ..Status::of(&self.stock, self.warmth(), &self.node_name, self.clock.now(), SystemTime::now())
        };
        self.budget.explain(&self.sources, &mut status);
        status.add_problems(&self.stock, |key| self.credential_problems.of(key));
        self.pins.add_to(&mut status, &self.stock);
        status.add_progress(&self.stock, self.progress.node(), |key| self.progress.of(key));
        status
    }
}
