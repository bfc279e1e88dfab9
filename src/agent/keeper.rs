//! The loop that keeps the stock: one task owns all state, takes events in, and carries out what the plan says.

mod answers;
mod news;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Reporter,
    attempt::{self, Answered, Attempt, Done},
    budget::NodeBudget,
    cluster::{Cluster, replace_if_new},
    disk::Disk,
    link::LinkEvent,
    looks::Looks,
    parallelism::Watch,
    pins::Pins,
    progress::{Counted, Ended, Following},
    rotation::Rotation,
    sources::{SourceNames, Sources},
    store_events::Listening,
};
use crate::{
    budget::Need,
    clock::Moment,
    credentials::lookup::Credentials,
    desired::TargetKey,
    http::Query,
    image_state::ImageState,
    list::affinity::NodeFacts,
    list_update::ListUpdate,
    metrics::Metrics,
    node_report::ReadyWhen,
    plan::Action,
    process_clock::Clock,
    runtime::Runtime,
    status::Status,
    stock::{Outcome, Stock},
};

/// Time that ended pulls get to tell the runtime so.
const FAREWELL: Duration = Duration::from_millis(100);
/// Time that letting go of leases may take in the end: else they end by themselves.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Answers of the runtime that may wait for the loop's next turn; what finds no room is told by the pull's end.
const MOST_ANSWERS: usize = 64;

/// What the keeper listens to.
#[derive(Debug)]
pub struct Inputs {
    /// New lists.
    pub lists: mpsc::Receiver<ListUpdate>,
    /// The runtime coming and going.
    pub link: mpsc::Receiver<LinkEvent>,
    /// Questions.
    pub queries: mpsc::Receiver<Query>,
    /// Turns true when the process is to end.
    pub stop: watch::Receiver<bool>,
}

/// What the keeper is told once.
pub struct Settings {
    /// This node.
    pub node: NodeFacts,
    /// How often the store is looked at without a reason.
    pub resync: Duration,
    /// When the agent counts as ready.
    pub ready_when: ReadyWhen,
    /// Where lists come from.
    pub sources: SourceNames,
    /// The ways from and to the API server.
    pub cluster: Cluster,
    /// Where credentials are looked for.
    pub credentials: Arc<Credentials>,
    /// Where the kernel tells how busy the disks are.
    pub io_pressure: PathBuf,
    /// End when nothing is left to do.
    pub once: Option<Once>,
}

/// How `prepull pull` ends.
#[derive(Debug, Clone, Copy)]
pub struct Once {
    /// Until when failures are tried again; none: one attempt for each image.
    pub retry_until: Option<Moment>,
}

/// The keeper of the stock.
pub struct Keeper<R> {
    node: NodeFacts,
    node_name: Arc<str>,
    ready_when: ReadyWhen,
    /// Why nothing new is known about the node.
    node_problem: Option<String>,
    sources: Sources,
    cluster: Cluster,
    budget: NodeBudget,
    rotation: Rotation,
    metrics: Metrics,
    clock: Clock,
    reporter: R,
    stock: Stock,
    parallelism: Watch,
    runtime: Option<Runtime>,
    /// Why it does not answer.
    runtime_problem: Option<String>,
    was_linked: bool,
    looks: Looks,
    listening: Listening,
    /// Why the store is not known as it is now.
    look_problem: Option<String>,
    disk: Disk,
    pins: Pins,
    pulls: JoinSet<Done>,
    /// Pulls under way, each with its number.
    pulling: HashMap<TargetKey, (u64, AbortHandle)>,
    /// The runtime's answers to them, before it is known what came.
    answers: mpsc::Receiver<Answered>,
    tell_answer: mpsc::Sender<Answered>,
    /// Pulls begun so far.
    begun: u64,
    progress: Following,
    wake: Option<Moment>,
    warm: Option<bool>,
    warmed_once: bool,
    once: Option<Once>,
    credentials: attempt::Sources,
    credential_problems: attempt::Problems,
}

impl<R: Reporter> Keeper<R> {
    /// With nothing known yet.
    pub fn new(mut settings: Settings, metrics: Metrics, clock: Clock, reporter: R) -> Self {
        let node_name: Arc<str> = settings.node.name.as_str().into();
        let (tell_answer, answers) = mpsc::channel(MOST_ANSWERS);
        // where each image has one attempt, none waits for another one's registry
        let stock = Stock::new(settings.once.is_none_or(|o| o.retry_until.is_some()));
        Self {
            budget: NodeBudget::new(node_name.clone(), settings.cluster.asks()),
            node_name,
            node: settings.node,
            ready_when: settings.ready_when,
            node_problem: None,
            sources: Sources::new(settings.sources),
            credentials: attempt::Sources { named: settings.cluster.pull_secrets(), node: settings.credentials },
            cluster: settings.cluster,
            rotation: Rotation::default(),
            metrics,
            clock,
            reporter,
            // who asks for images now gets them now, and a word about the disk
            stock: if settings.once.is_some() { stock.unguarded() } else { stock },
            parallelism: Watch::default(),
            runtime: None,
            runtime_problem: None,
            was_linked: false,
            looks: Looks::new(settings.resync),
            listening: Listening::new(),
            look_problem: None,
            disk: Disk::new(settings.io_pressure),
            // what is pulled once may be but a part of what an agent has pinned
            pins: Pins::new(settings.once.is_none()),
            pulls: JoinSet::new(),
            pulling: HashMap::new(),
            answers,
            tell_answer,
            begun: 0,
            progress: Following::new(),
            wake: None,
            warm: None,
            warmed_once: false,
            once: settings.once,
            credential_problems: attempt::Problems::default(),
        }
    }

    /// Works until told to stop, or until nothing is left to do; then ends the pulls under way and says how things are.
    pub async fn run(mut self, mut inputs: Inputs) -> Status {
        loop {
            let wake = self.wake.map(|moment| self.clock.instant(moment));
            tokio::select! {
                _ = inputs.stop.wait_for(|stop| *stop) => break,
                Some(update) = inputs.lists.recv() => self.list(update),
                Some(event) = inputs.link.recv() => self.link(event),
                Some(news) = self.cluster.news() => self.cluster_news(news),
                news = self.looks.news(), if self.runtime.is_some() => self.look_news(news),
                Some(news) = self.listening.news(), if self.runtime.is_some() => {
                    self.store_news(&news);
                    continue;
                }
                measured = self.disk.news() => self.measured(measured),
                news = self.pins.news() => {
                    if self.pins.take(news, self.runtime.as_ref(), &self.stock) {
                        self.look();
                        // a runtime may notice its own label a moment after it was set
                        self.looks.soon();
                    }
                }
                Some((key, number)) = self.answers.recv() => self.answered(&key, number),
                Some(done) = self.pulls.join_next() => self.pulled(done),
                () = self.parallelism.due() => {
                    if !self.parallelism.look(self.stock.under_way(), self.clock.now()) {
                        continue;
                    }
                }
                answer = self.progress.news(), if self.progress.is_on() => {
                    let counted = self.progress.saw(answer, self.stock.desired().limits.stall_timeout, self.clock.now());
                    self.downloaded(counted);
                    self.progress.report(&self.stock, &mut self.reporter);
                    continue;
                }
                Some(query) = inputs.queries.recv() => {
                    self.answer(query);
                    continue;
                }
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                else => break,
            }
            let began = Instant::now();
            self.turn();
            self.metrics.turned(began.elapsed());
            if self.finished() {
                break;
            }
        }
        let status = self.status();
        self.pulls.abort_all();
        self.progress.give_all_up(LAST_WORDS).await;
        if !self.pulling.is_empty() {
            // the runtime hears of it by the connection, which needs a moment to say so
            sleep(FAREWELL).await;
        }
        self.budget.give_back(&mut self.cluster, self.clock).await;
        status
    }

    /// Whether this keeper works once, and has.
    fn finished(&self) -> bool {
        let Some(once) = self.once else { return false };
        if self.is_over(self.clock.now()) {
            // what runs may end; what still waits would wait beyond the time that was given
            return self.pulling.is_empty();
        }
        let gone = self.runtime.is_none() && self.was_linked;
        let at_rest = self.stock.list_read() && self.stock.looked() && self.stock.at_rest(once.retry_until.is_some());
        at_rest || (gone && once.retry_until.is_none())
    }

    /// Whether the time is over that was given: nothing begins any more.
    fn is_over(&self, now: Moment) -> bool {
        self.once.and_then(|once| once.retry_until).is_some_and(|until| now >= until)
    }

    /// Plans, starts what may start, and tells what changed.
    fn turn(&mut self) {
        let now = self.clock.now();
        self.stock.allow(self.parallelism.number());
        let cap = self.stock.desired().limits.pulling_nodes;
        self.stock.slot(self.budget.admission(cap));
        let plan = self.stock.plan(now);
        let deadline = self.once.and_then(|once| once.retry_until);
        let over = self.is_over(now);
        for action in plan.actions {
            match action {
                Action::Start(_) if over => {}
                Action::Start(index) => self.start(index, now),
                // noted by the stock itself
                Action::Hold(..) => {}
            }
        }
        let need = Need { cap, wants: plan.wants_slot, pulling: !self.pulling.is_empty() };
        let budget = self.budget.turned(need, now);
        self.wake = [plan.wake, deadline.filter(|_| !over), budget].into_iter().flatten().min();
        self.budget.tell_problem(&self.sources, &mut self.reporter, now);
        if plan.measure {
            self.measure();
        }
        self.progress.turned(&self.stock, now);
        self.reporter.disk(self.stock.disk_stop(now).as_ref(), now);
        self.parallelism.turned(!self.pulling.is_empty() && self.stock.waits_for_auto(), now);
        for transition in self.stock.take_transitions() {
            self.reporter.transition(&transition);
        }
        let stock = &self.stock;
        let in_back_off = |key: &TargetKey| {
            stock.find(key).is_some_and(|index| matches!(stock.target(index).1, ImageState::BackOff { .. }))
        };
        let secrets = self.rotation.wanted(in_back_off);
        self.cluster.need(|needs| replace_if_new(&mut needs.secrets, secrets));
        let warmth = self.stock.warmth();
        // what an edit added may be there: that it is missing is told when the look that the edit caused has ended
        let settled = warmth.warm || !self.looks.under_way();
        if settled {
            self.reporter.turned(&self.stock);
        }
        let known = self.stock.list_read() && self.stock.looked() && settled;
        if known && self.warm != Some(warmth.warm) {
            self.warm = Some(warmth.warm);
            self.reporter.warmth(&warmth);
            if warmth.warm && !self.warmed_once {
                self.warmed_once = true;
                self.metrics.first_warm(now.since(Moment::default()));
            }
        }
    }

    fn start(&mut self, index: usize, now: Moment) {
        let Some(runtime) = self.runtime.clone() else { return };
        let (target, _, _) = self.stock.target(index);
        let (key, target) = (target.key.clone(), target.clone());
        self.metrics.pulling(target.image.registry());
        self.stock.started(index, now);
        self.begun += 1;
        let sources = self.credentials.clone();
        let follow = self.progress.begin(self.begun, &runtime, &target);
        let answered = self.tell_answer.clone();
        let attempt = Attempt { number: self.begun, runtime, target, sources, began: now, follow, answered };
        let handle = self.pulls.spawn(attempt.make());
        self.pulling.insert(key, (self.begun, handle));
    }

    /// The runtime says that an image is there. What came is asked while the next one is pulled.
    fn answered(&mut self, key: &TargetKey, number: u64) {
        if self.pulling.get(key).is_some_and(|(current, _)| *current == number) {
            self.parallelism.moved();
            self.stock.answered(key, self.clock.now());
        }
    }

    fn pulled(&mut self, done: Result<Done, tokio::task::JoinError>) {
        // a pull that was ended by this keeper has nothing to tell
        let Ok(Done { number, key, began, outcome, lookups, problems, seen, brought }) = done else { return };
        let now = self.clock.now();
        let may_go_on = !self.is_over(now);
        let ended = Ended { counted: None, outcome, took: now.since(began) };
        let Ended { counted, outcome, took } = self.progress.end(number, ended, brought.as_ref(), may_go_on, now);
        // one that had ended when its entry went away must not be taken for the pull of an entry that came back
        if self.pulling.get(&key).is_none_or(|(current, _)| *current != number) {
            return;
        }
        self.pulling.remove(&key);
        for (source, result) in lookups {
            self.metrics.credential_lookup(source, result);
        }
        self.credential_problems.note(&key, problems);
        if let Some(index) = self.stock.find(&key) {
            let (target, _, before) = self.stock.target(index);
            let registry = target.image.registry();
            self.metrics.pulled(registry, &outcome, took);
            // where the runtime does not say what came, what it has now counts, unless it had that before
            if let (None, Outcome::Pulled { stored, .. }) = (&counted, &outcome)
                && before.is_none_or(|before| before.digest != stored.digest)
            {
                self.metrics.downloaded(registry, stored.size);
            }
        }
        self.downloaded(counted.unwrap_or_default());
        if outcome == Outcome::Interrupted {
            self.looks.soon();
        }
        self.measure();
        let failed = matches!(outcome, Outcome::Failed(_));
        if matches!(outcome, Outcome::Pulled { .. }) {
            self.parallelism.moved();
        }
        self.stock.finished(&key, outcome, began, now, fastrand::f64());
        if self.stock.find(&key).is_some_and(|index| self.stock.target(index).0.pin) {
            // a pull replaces the record that it names, and its labels with it
            self.pins.begin(self.runtime.as_ref(), &self.stock);
        }
        let changed = failed && self.rotation.failed(&key, began, seen);
        if let Some(index) = self.stock.find(&key).filter(|_| changed) {
            self.stock.forgive(index, now);
        }
    }

    /// Bytes came.
    fn downloaded(&mut self, counted: Counted) {
        for (registry, bytes) in counted {
            self.metrics.downloaded(&registry, bytes);
            if bytes > 0 {
                self.parallelism.moved();
            }
        }
    }
}
