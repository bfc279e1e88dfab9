//! What is written to the Node, and when. Pure: time and randomness are arguments, and what the API server has is
//! compared with what should be there, so that nothing is written twice and what somebody removed comes back.

mod taint;

use std::{sync::Arc, time::Duration};

use self::taint::TaintDeadline;
use crate::{
    clock::Moment,
    node_report::{NodeReport, Readiness},
    node_view::{ConditionView, NodeView},
};

/// The label that says whether the node is warm.
pub const LABEL: &str = "prepull.dev/warm";

/// At start the store is looked at and the list read within this time: a restart of the agent on a warm node writes
/// nothing.
pub const GRACE: Duration = Duration::from_secs(2);
/// After an edit thousands of nodes change at once.
const JITTER: Duration = Duration::from_secs(10);
/// A new message alone is worth a write this often.
const MESSAGE_ALONE: Duration = Duration::from_mins(5);
/// The same once more, where somebody else takes it away or the watch lags.
const SAME_AGAIN: Duration = Duration::from_mins(5);
/// After a write that failed, doubling up to the second one.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// What may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts {
    /// The condition `ImagesPrepulled`.
    pub condition: bool,
    /// The label `prepull.dev/warm`.
    pub label: bool,
    /// The removal of the start-up taint.
    pub taint: bool,
}

impl Parts {
    /// Whether anything is.
    pub fn any(self) -> bool {
        self.condition || self.label || self.taint
    }
}

/// One write of condition and label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// The condition, where it is written.
    pub condition: Option<ConditionView>,
    /// Whether the condition's status is another one than the Node has.
    pub transition: bool,
    /// The label's value, where it is written.
    pub label: Option<&'static str>,
}

impl StateWrite {
    /// Whether another write says the same but for the message, which alone is never worth a write at once: not even where
    /// the Node's watch does not tell what was written.
    fn says_the_same(&self, other: &Self) -> bool {
        let kind = |write: &Self| write.condition.as_ref().map(|c| (c.status.clone(), c.reason.clone()));
        self.label == other.label && kind(self) == kind(other)
    }
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Write this.
    pub state: Option<StateWrite>,
    /// Remove the start-up taint.
    pub taint: bool,
    /// Ask the API server for its time, which the start-up taint's deadline needs: [`NodeWrites::server_time`].
    pub server_time: bool,
    /// When to ask again without anything else happening.
    pub wake: Option<Moment>,
}

/// Decides what is written.
#[derive(Debug)]
pub struct NodeWrites {
    parts: Parts,
    taint_key: String,
    start: Moment,
    taint: TaintDeadline,
    /// The Node that was seen last: one that was deleted and made again has nothing of what was written.
    uid: String,
    /// What was written last, and when.
    last: Option<(StateWrite, Moment)>,
    /// The lists that the last write was about.
    revision: Option<Arc<str>>,
    /// When the change that is under way is to be written.
    due: Option<Moment>,
    /// Nothing is tried before.
    hold: Moment,
    failures: u32,
}

impl NodeWrites {
    /// From now on. The taint is removed `timeout` after the Node was created or the node booted, whichever is later.
    /// `uptime` is how long the node has been up.
    pub fn new(parts: Parts, taint_key: String, timeout: Duration, start: Moment, uptime: Option<Duration>) -> Self {
        Self {
            parts,
            taint_key,
            start,
            taint: TaintDeadline::new(timeout, start, uptime),
            uid: String::new(),
            last: None,
            revision: None,
            due: None,
            hold: start,
            failures: 0,
        }
    }

    /// What to do now. `random` is from 0 to 1.
    pub fn plan(&mut self, report: &NodeReport, node: &NodeView, now: Moment, random: f64) -> Due {
        let mut due = Due::default();
        // before the Node was seen nothing can be compared
        let Some(labels) = &node.labels else { return due };
        if self.uid != node.uid {
            self.uid.clone_from(&node.uid);
            (self.last, self.hold, self.failures) = (None, self.start, 0);
            self.taint.forget();
        }
        self.plan_taint(report, node, now, &mut due);
        let label = if report.readiness == Readiness::Warm { "true" } else { "false" };
        let label = (self.parts.label && labels.get(LABEL).is_none_or(|has| has != label)).then_some(label);
        let wanted = ConditionView {
            status: report.readiness.status().to_owned(),
            reason: report.reason.to_owned(),
            message: report.message.clone(),
        };
        let has = node.condition.as_ref();
        let transition = self.parts.condition && has.is_none_or(|c| c.status != wanted.status);
        let kind = transition || self.parts.condition && has.is_none_or(|c| c.reason != wanted.reason);
        let message = self.parts.condition && has.is_none_or(|c| c.message != wanted.message);
        if label.is_none() && !kind && !message {
            self.due = None;
            return due;
        }
        let write = StateWrite { condition: message.then_some(wanted.clone()), transition, label };
        let write = if kind { StateWrite { condition: Some(wanted), ..write } } else { write };
        let at = if label.is_some() || kind {
            let edited = self.revision.as_ref().is_some_and(|written| *written != report.revision);
            let jitter = if edited { JITTER.mul_f64(random) } else { Duration::ZERO };
            *self.due.get_or_insert(now + jitter)
        } else {
            self.due = None;
            self.last.as_ref().map_or(self.start, |(_, at)| *at) + MESSAGE_ALONE
        };
        let settled = if report.readiness == Readiness::Warm { self.start } else { self.start + GRACE };
        let again = match &self.last {
            Some((last, at)) if last.says_the_same(&write) => *at + SAME_AGAIN,
            _ => self.start,
        };
        let at = at.max(settled).max(again).max(self.hold);
        if at <= now {
            due.state = Some(write);
        }
        due.wait_until(at, now);
        due
    }

    fn plan_taint(&mut self, report: &NodeReport, node: &NodeView, now: Moment, due: &mut Due) {
        let taints = || node.taints.iter().filter(|t| t.key == self.taint_key);
        let is_tainted = taints().next().is_some();
        self.taint.observe(is_tainted, now);
        if !self.parts.taint || !is_tainted {
            return;
        }
        let is_warm = report.readiness == Readiness::Warm;
        let at = if is_warm { Some(now) } else { self.taint.due(node, taints(), now) };
        let at_or_ask = at.unwrap_or(now).max(self.hold);
        if at_or_ask <= now {
            (due.taint, due.server_time) = (at.is_some(), at.is_none());
        }
        due.wait_until(at_or_ask, now);
    }

    /// The API server's time is `time` since the Unix epoch now.
    pub fn server_time(&mut self, time: Duration, now: Moment) {
        self.taint.set_server_time(now, time);
        self.failures = 0;
    }

    /// The write was accepted.
    pub fn wrote(&mut self, write: StateWrite, report: &NodeReport, now: Moment) {
        self.last = Some((write, now));
        self.revision = Some(report.revision.clone());
        self.due = None;
        self.failures = 0;
    }

    /// The taint was removed; the Node's watch has not told so yet.
    pub fn removed(&mut self, now: Moment) {
        self.failures = 0;
        self.hold = now + FIRST_RETRY;
    }

    /// A write was not accepted, or is not allowed. `random` is from 0 to 1: an outage ends for all nodes at once, and
    /// they must not all come back at once.
    pub fn failed(&mut self, now: Moment, random: f64) {
        let delay = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(LONGEST_RETRY);
        self.failures += 1;
        self.hold = now + delay.mul_f64(0.5 + random / 2.0);
    }
}

impl Due {
    fn wait_until(&mut self, at: Moment, now: Moment) {
        if at > now {
            self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
        }
    }
}

#[cfg(test)]
mod tests;
