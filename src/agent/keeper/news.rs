//! What the keeper does about what it is told: lists, the API server, the runtime and its store, the disk.

use super::{Keeper, Reporter};
use crate::{
    agent::{
        cluster::replace_if_new, disk::Measured, link::LinkEvent, looks::LookNews, sources::Change,
        store_events::StoreNews,
    },
    desired::Desired,
    kubernetes::messages::News,
    list_update::ListUpdate,
    node_view::NodeView,
    runtime::{Runtime, StoreEvent},
    spread,
    stock::Warmth,
};

impl<R: Reporter> Keeper<R> {
    pub(super) fn list(&mut self, update: ListUpdate) {
        let (source, good) = (update.source.clone(), update.read.is_good());
        let change = self.sources.update(update);
        if let Some(good) = good {
            self.metrics.list_reloaded(good);
            self.reporter.list(&source, self.sources.problems(&source));
        }
        if change == Change::InForce {
            self.apply();
        }
    }

    pub(super) fn cluster_news(&mut self, news: News) {
        match news {
            News::Node(view) => self.node(&view),
            News::Slot(answer) => self.budget.answered(answer, self.clock.now()),
            News::Object(key, fingerprint) => {
                let now = self.clock.now();
                for target in self.rotation.told(&key, fingerprint, now) {
                    if let Some(index) = self.stock.find(&target) {
                        tracing::info!(image = %target.canonical, object = %key, "an object changed that the entry names: trying again");
                        self.stock.forgive(index, now);
                    }
                }
            }
        }
    }

    /// The API server told something about this node.
    pub(super) fn node(&mut self, view: &NodeView) {
        self.node.labels.clone_from(&view.labels);
        self.node_problem.clone_from(&view.problem);
        self.stock.node_pressure(view.disk_pressure);
        self.apply();
    }

    pub(super) fn apply(&mut self) {
        let Some(lists) = self.sources.in_force() else { return };
        let mut desired = Desired::merge(&lists, &self.node);
        desired.unknown = self.sources.unread().or_else(|| desired.undecided().then(|| self.labels_unknown()));
        let selects_nodes = lists.iter().any(|l| l.list.selects_nodes());
        self.cluster.need(|needs| replace_if_new(&mut needs.node, selects_nodes));
        let now = self.clock.now();
        // a new node, or an agent that starts again, does not wait: only an edit reaches all nodes at once
        if self.stock.list_read() && spread::is_edit(self.stock.desired(), &desired) {
            self.stock.spread(now + spread::moment(&self.node_name, &desired.revision, desired.limits.spread));
        }
        for unwanted in self.stock.apply(desired, now) {
            if let Some((number, pull)) = self.pulling.remove(&unwanted) {
                pull.abort();
                self.progress.give_up(number);
            }
        }
        self.credential_problems.retain(&self.stock);
        self.look();
    }

    pub(super) fn labels_unknown(&self) -> String {
        let why = self.node_problem.as_deref().unwrap_or("the API server has not told them yet");
        format!("the labels of node {} are not known, by which entries select nodes: {why}", self.node_name)
    }

    pub(super) fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(runtime) => {
                tracing::info!(runtime = %runtime.name_and_version(), endpoint = %runtime.endpoint(), "runtime answers");
                self.parallelism.runtime(runtime.name());
                self.listening.listen((*runtime).clone());
                self.progress.connected((*runtime).clone());
                self.runtime = Some(*runtime);
                self.runtime_problem = None;
                if self.was_linked {
                    self.stock.runtime_back(self.clock.now());
                }
                self.was_linked = true;
                self.look();
            }
            LinkEvent::Down(reason) => {
                tracing::warn!(%reason, "the runtime does not answer; waiting for it");
                self.runtime = None;
                self.runtime_problem = Some(reason);
                self.looks.end();
                self.progress.disconnected();
                self.listening.stop();
                self.disk.unlinked();
                self.pins.end();
                self.look_problem = None;
                self.stock.runtime_gone();
            }
        }
    }

    /// Looks at the store; again afterwards where a look is under way.
    pub(super) fn look(&mut self) {
        // without a list there is nothing to look for, and the first list looks by itself
        if let Some(runtime) = self.runtime.clone().filter(|_| self.stock.list_read()) {
            self.looks.begin(runtime, self.stock.desired().targets.clone(), self.clock.now());
        }
    }

    /// Something happened in the runtime's store. What only this agent's own pulls bring needs no look.
    pub(super) fn store_news(&mut self, news: &StoreNews) {
        match news {
            StoreNews::Event(StoreEvent::Named(name))
                if !self.stock.waits_for(name) && !self.stock.may_have_moved(name) => {}
            StoreNews::Event(StoreEvent::Named(_)) | StoreNews::Again => self.looks.event(true),
            StoreNews::Event(StoreEvent::Gone(name)) => self.looks.event(self.stock.is_listed(name)),
            StoreNews::Absent => {
                let runtime = self.runtime.as_ref().map(Runtime::name_and_version);
                self.listening.say_absent(runtime.unwrap_or_default());
            }
        }
    }

    pub(super) fn look_news(&mut self, news: LookNews) {
        match news {
            LookNews::Due => return self.look(),
            LookNews::Looked(observation) => {
                self.look_problem = None;
                let first = !self.stock.looked() && self.stock.list_read();
                self.stock.looked_at(&observation, self.clock.now());
                self.measure();
                self.pins.begin(self.runtime.as_ref(), &self.stock);
                if first {
                    let Warmth { present, required, .. } = self.stock.warmth();
                    tracing::info!(present, required, "store looked at for the first time");
                }
            }
            LookNews::Failed(problem) | LookNews::Slow(problem) => {
                if self.look_problem.as_ref() != Some(&problem) {
                    tracing::warn!(%problem, "what is in the store is not known as it is now; trying again");
                    self.look_problem = Some(problem);
                }
            }
        }
        if self.looks.wanted_again() {
            self.look();
        }
    }

    /// Looks at the disk, and at its load where that matters.
    pub(super) fn measure(&mut self) {
        if let Some(runtime) = &self.runtime {
            self.disk.measure(runtime, self.stock.needs_io_pressure());
        }
    }

    pub(super) fn measured(&mut self, measured: Measured) {
        let Measured { usage, io_pressure, problems } = measured;
        self.stock.measured(usage, io_pressure, self.clock.now());
        for problem in problems {
            self.reporter.unseen(&problem);
        }
    }
}
