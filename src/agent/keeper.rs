//! The loop that keeps the stock: one task owns all state, takes events in, and carries out what the plan says.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tonic::Status as RpcStatus;

use super::{
    ReadyWhen, Reporter,
    link::LinkEvent,
    lists::{ListUpdate, Read},
};
use crate::{
    clock::{Clock, Moment},
    credentials::{
        Source as CredentialSource,
        lookup::{self, Credentials, Request},
    },
    desired::{Desired, SourcedList, Target, TargetKey},
    http::Query,
    list::affinity::NodeFacts,
    metrics::Metrics,
    plan::Action,
    puller,
    runtime::{Runtime, code_name},
    status::{ListStatus, Status},
    stock::{Observation, Outcome, Stock, Warmth},
};

/// After a look that failed, or a pull whose call broke while the connection stands.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Time that ended pulls get to tell the runtime so.
const FAREWELL: Duration = Duration::from_millis(100);

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
    /// List sources, in the order in which their lists merge.
    pub sources: Vec<Arc<str>>,
    /// Where credentials are looked for.
    pub credentials: Arc<Credentials>,
    /// End when nothing is left to do.
    pub once: Option<Once>,
}

/// How `prepull pull` ends.
#[derive(Debug, Clone, Copy)]
pub struct Once {
    /// Until when failures are tried again; none: one attempt for each image.
    pub retry_until: Option<Moment>,
}

/// One list source.
#[derive(Debug)]
struct Source {
    name: Arc<str>,
    /// The last good list.
    list: Option<SourcedList>,
    problems: Vec<String>,
}

/// A pull that ended.
struct Done {
    key: TargetKey,
    began: Moment,
    outcome: Outcome,
    lookups: Vec<(CredentialSource, lookup::Outcome)>,
    /// What was wrong while credentials were looked for.
    problems: Vec<String>,
}

/// The keeper of the stock.
pub struct Keeper<R> {
    node: NodeFacts,
    node_name: Arc<str>,
    resync: Duration,
    ready_when: ReadyWhen,
    sources: Vec<Source>,
    metrics: Metrics,
    clock: Clock,
    reporter: R,
    stock: Stock,
    runtime: Option<Runtime>,
    was_linked: bool,
    looks: JoinSet<Result<Observation, RpcStatus>>,
    /// Something happened while a look was under way that it may have missed.
    look_again: bool,
    next_look: Instant,
    pulls: JoinSet<Done>,
    pulling: HashMap<TargetKey, AbortHandle>,
    wake: Option<Moment>,
    warm: Option<bool>,
    warmed_once: bool,
    once: Option<Once>,
    credentials: Arc<Credentials>,
    /// What was wrong with the credentials of each image, at its last attempt.
    credential_problems: HashMap<TargetKey, Vec<String>>,
}

impl<R: Reporter> Keeper<R> {
    /// With nothing known yet.
    pub fn new(settings: Settings, metrics: Metrics, clock: Clock, reporter: R) -> Self {
        let source = |name| Source { name, list: None, problems: Vec::new() };
        Self {
            node_name: settings.node.name.as_str().into(),
            node: settings.node,
            resync: settings.resync,
            ready_when: settings.ready_when,
            sources: settings.sources.into_iter().map(source).collect(),
            metrics,
            clock,
            reporter,
            // where each image has one attempt, none waits for another one's registry
            stock: Stock::new(settings.once.is_none_or(|o| o.retry_until.is_some())),
            runtime: None,
            was_linked: false,
            looks: JoinSet::new(),
            look_again: false,
            next_look: Instant::now() + settings.resync,
            pulls: JoinSet::new(),
            pulling: HashMap::new(),
            wake: None,
            warm: None,
            warmed_once: false,
            once: settings.once,
            credentials: settings.credentials,
            credential_problems: HashMap::new(),
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
                Some(look) = self.looks.join_next() => self.looked(look),
                Some(done) = self.pulls.join_next() => self.pulled(done),
                Some(query) = inputs.queries.recv() => {
                    self.answer(query);
                    continue;
                }
                () = sleep_until(self.next_look), if self.runtime.is_some() => self.look(),
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
        if !self.pulling.is_empty() {
            // the runtime hears of it by the connection, which needs a moment to say so
            sleep(FAREWELL).await;
        }
        status
    }

    /// Whether this keeper works once, and has.
    fn finished(&self) -> bool {
        let Some(once) = self.once else { return false };
        let patient = once.retry_until.is_some_and(|until| self.clock.now() < until);
        if self.runtime.is_none() && self.was_linked && !patient {
            return true;
        }
        self.stock.list_read() && self.stock.looked() && self.stock.at_rest(patient)
    }

    /// Plans, starts what may start, and tells what changed.
    fn turn(&mut self) {
        let now = self.clock.now();
        let plan = self.stock.plan(now);
        self.wake = [plan.wake, self.once.and_then(|o| o.retry_until)].into_iter().flatten().min();
        for action in plan.actions {
            match action {
                Action::Start(index) => self.start(index, now),
                // noted by the stock itself
                Action::Hold(..) => {}
            }
        }
        for transition in self.stock.take_transitions() {
            self.reporter.transition(&transition);
        }
        let warmth = self.stock.warmth();
        if self.warm != Some(warmth.warm) && self.stock.list_read() && self.stock.looked() {
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
        self.stock.started(index, now);
        let handle = self.pulls.spawn(attempt(runtime, target, self.credentials.clone(), now));
        self.pulling.insert(key, handle);
    }

    fn pulled(&mut self, done: Result<Done, tokio::task::JoinError>) {
        // a pull that was ended by this keeper has nothing to tell
        let Ok(Done { key, began, outcome, lookups, problems }) = done else { return };
        let now = self.clock.now();
        self.pulling.remove(&key);
        for (source, result) in lookups {
            self.metrics.credential_lookup(source, result);
        }
        self.note_credential_problems(&key, problems);
        if let Some(index) = self.stock.find(&key) {
            let (target, _, _) = self.stock.target(index);
            self.metrics.pulled(target.image.registry(), &outcome, now.since(began));
        }
        if outcome == Outcome::Interrupted {
            self.look_soon();
        }
        self.stock.finished(&key, outcome, began, now, fastrand::f64());
    }

    /// Keeps what was wrong for the status, and logs what is new.
    fn note_credential_problems(&mut self, key: &TargetKey, problems: Vec<String>) {
        for problem in &problems {
            if !self.credential_problems.values().flatten().any(|known| known == problem) {
                tracing::warn!(%problem, "a source of credentials has a problem");
            }
        }
        if problems.is_empty() {
            self.credential_problems.remove(key);
        } else {
            self.credential_problems.insert(key.clone(), problems);
        }
    }

    fn list(&mut self, update: ListUpdate) {
        let Some(source) = self.sources.iter_mut().find(|s| s.name == update.source) else { return };
        let good = matches!(update.read, Read::List { .. });
        self.metrics.list_reloaded(good);
        match update.read {
            Read::List { revision, list } => {
                source.problems = ListStatus::lines(&list.problems);
                tracing::info!(list = %source.name, revision = %revision, entries = list.entries.len(), problems = source.problems.len(), "list read");
                for problem in &source.problems {
                    tracing::warn!(list = %source.name, problem = %problem, "the list has a problem");
                }
                source.list =
                    Some(SourcedList { source: source.name.clone(), revision, namespace: update.namespace, list });
            }
            Read::NotAList(problem) => source.refuse(problem.to_string()),
            Read::Nothing(why) => source.refuse(why),
        }
        if good {
            self.apply();
        }
    }

    fn apply(&mut self) {
        // warm means that every list was read: one that is missing could ask for anything
        if self.sources.iter().any(|s| s.list.is_none()) {
            return;
        }
        let lists: Vec<SourcedList> = self.sources.iter().filter_map(|s| s.list.clone()).collect();
        let desired = Desired::merge(&lists, &self.node);
        for unwanted in self.stock.apply(desired, self.clock.now()) {
            if let Some(pull) = self.pulling.remove(&unwanted) {
                pull.abort();
            }
        }
        let stock = &self.stock;
        self.credential_problems.retain(|key, _| stock.find(key).is_some());
        self.look();
    }

    fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(runtime) => {
                tracing::info!(runtime = %runtime.name_and_version(), endpoint = %runtime.endpoint(), "runtime answers");
                self.runtime = Some(*runtime);
                if self.was_linked {
                    self.stock.runtime_back(self.clock.now());
                }
                self.was_linked = true;
                self.looks.abort_all();
                self.looks = JoinSet::new();
                self.look();
            }
            LinkEvent::Down(reason) => {
                tracing::warn!(%reason, "the runtime does not answer; waiting for it");
                self.runtime = None;
                self.stock.runtime_gone();
            }
        }
    }

    /// Looks at the store; again afterwards where a look is under way.
    fn look(&mut self) {
        self.next_look = Instant::now() + self.resync;
        let Some(runtime) = self.runtime.clone() else { return };
        if !self.looks.is_empty() {
            self.look_again = true;
            return;
        }
        self.look_again = false;
        let (targets, began) = (self.stock.desired().targets.clone(), self.clock.now());
        self.looks.spawn(async move { runtime.look(targets, began).await });
    }

    fn look_soon(&mut self) {
        self.next_look = self.next_look.min(Instant::now() + LOOK_AGAIN);
    }

    fn looked(&mut self, look: Result<Result<Observation, RpcStatus>, tokio::task::JoinError>) {
        match look {
            Ok(Ok(observation)) => {
                let first = !self.stock.looked() && self.stock.list_read();
                self.stock.looked_at(&observation, self.clock.now());
                if first {
                    let Warmth { present, required, .. } = self.stock.warmth();
                    tracing::info!(present, required, "store looked at for the first time");
                }
            }
            Ok(Err(status)) => {
                tracing::warn!(code = code_name(&status), error = %crate::error_text::one_line(status.message()), "the runtime's store cannot be looked at; trying again");
                self.look_soon();
            }
            Err(_) => {}
        }
        if self.look_again {
            self.look();
        }
    }

    fn answer(&mut self, query: Query) {
        // whoever asked may have gone away: then nobody misses the answer
        match query {
            Query::Health(reply) => drop(reply.send(())),
            Query::Warmth(reply) => drop(reply.send(self.readiness())),
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

    fn readiness(&self) -> Warmth {
        let warmth = self.stock.warmth();
        match self.ready_when {
            ReadyWhen::Warm => warmth,
            ReadyWhen::Running => Warmth { warm: true, ..warmth },
        }
    }

    fn status(&self) -> Status {
        let lists = self.sources.iter().map(|source| ListStatus {
            source: source.name.clone(),
            revision: source.list.as_ref().map_or_else(|| "".into(), |l| l.revision.clone()),
            problems: source.problems.clone(),
        });
        let problems = |key: &TargetKey| self.credential_problems.get(key).cloned().unwrap_or_default();
        let mut status = Status {
            runtime: self.runtime.as_ref().map(Runtime::name_and_version).unwrap_or_default(),
            lists: lists.collect(),
            ..Status::of(&self.stock, self.stock.warmth(), &self.node_name, self.clock.now(), SystemTime::now())
        };
        status.add_problems(&self.stock, problems);
        status
    }
}

impl Source {
    /// Keeps the last good list, and says what is wrong with the new text.
    fn refuse(&mut self, problem: String) {
        let kept = self.list.as_ref().map_or("none was read before", |_| "the last good one stays in force");
        tracing::error!(list = %self.name, %problem, kept, "the list cannot be used");
        self.problems = vec![problem];
    }
}

/// One attempt: the credentials as they are now, then the pull.
async fn attempt(runtime: Runtime, target: Target, credentials: Arc<Credentials>, began: Moment) -> Done {
    let request = Request { image: &target.image, pull_secrets: &[], service_account_secrets: &[], offline: false };
    let found = credentials.lookup(request).await;
    let outcome = puller::pull(&runtime, &target, &found.credentials).await;
    Done { key: target.key, began, outcome, lookups: found.outcomes, problems: found.problems }
}
