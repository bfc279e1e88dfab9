//! Tells the cluster what the log is told: notices for Events, and a report on the node as a whole.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::{mpsc, watch};

use super::report::{LogReporter, Reporter};
use crate::{
    clock::Moment,
    disk_guard::Stop,
    image_state::ImageState,
    node_report::NodeReport,
    notices::Notice,
    stock::{Stock, Transition, Warmth},
};

/// Notices that may wait for the API server; more of them are dropped, because the log has them all.
const QUEUE: usize = 64;

/// Logs, and hands on.
pub(super) struct ClusterReporter {
    log: LogReporter,
    notices: mpsc::Sender<Notice>,
    reports: watch::Sender<NodeReport>,
    /// Images whose failure was told.
    failing: HashSet<Arc<str>>,
}

impl ClusterReporter {
    /// With the other ends.
    pub(super) fn new() -> (Self, mpsc::Receiver<Notice>, watch::Receiver<NodeReport>) {
        let (notices, told) = mpsc::channel(QUEUE);
        let (reports, reported) = watch::channel(NodeReport::default());
        (Self { log: LogReporter::default(), notices, reports, failing: HashSet::new() }, told, reported)
    }

    fn notice(&self, notice: Notice) {
        // never waits: an Event is not worth a pull's time
        let _ = self.notices.try_send(notice);
    }
}

impl Reporter for ClusterReporter {
    fn transition(&mut self, transition: &Transition) {
        self.log.transition(transition);
        let image = &transition.image;
        match &transition.to {
            ImageState::BackOff { error, .. } => {
                if self.failing.insert(image.clone()) {
                    let note = format!("Failed to pull image \"{image}\": {error} {}", error.remedy);
                    self.notice(Notice { warning: true, reason: error.reason, subject: image.clone(), note });
                }
            }
            ImageState::Present { .. } if self.failing.remove(image) => {
                let note = format!("Successfully pulled image \"{image}\" after earlier failures");
                self.notice(Notice { warning: false, reason: "Pulled", subject: image.clone(), note });
            }
            ImageState::Present { .. }
            | ImageState::Pending { .. }
            | ImageState::Pulling { .. }
            | ImageState::Missing { .. }
            | ImageState::Invalid { .. }
            | ImageState::NotForThisNode => {}
        }
    }

    fn warmth(&mut self, warmth: &Warmth) {
        self.log.warmth(warmth);
    }

    fn list(&mut self, list: &Arc<str>, problems: &[String]) {
        let Some(first) = problems.first() else { return };
        let more = if problems.len() > 1 { format!(" ({} problems in all)", problems.len()) } else { String::new() };
        let note = format!("List {list}: {first}{more}");
        self.notice(Notice { warning: true, reason: "InvalidList", subject: list.clone(), note });
    }

    fn disk(&mut self, stop: Option<&Stop>, now: Moment) {
        self.log.disk(stop, now);
    }

    fn unseen(&mut self, problem: &str) {
        self.log.unseen(problem);
    }

    fn turned(&mut self, stock: &Stock) {
        // what is no longer listed is not waited for
        if !self.failing.is_empty() {
            let listed: HashSet<&str> = stock.desired().targets.iter().map(|t| t.image.written()).collect();
            self.failing.retain(|image| listed.contains(&**image));
        }
        let report = NodeReport::of(stock);
        self.reports.send_if_modified(|old| {
            let differs = *old != report;
            *old = report;
            differs
        });
    }
}
