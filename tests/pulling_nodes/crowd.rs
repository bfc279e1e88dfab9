//! Many nodes in one process that share the slots of a real API server: the agent's own budget and requests, and pulls
//! that are nothing but time. Their clock runs faster than the wall's, so that half-minutes do not take half-minutes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use kube::Client;
use prepull::{
    budget::{Answer, Ask, Budget, Event, Need},
    clock::Moment,
    kubernetes::slots::Slots,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};

/// How much faster the nodes' clock runs.
pub(crate) const SPEED: u32 = 8;

/// A node's state as a test wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All is well.
    Works,
    /// It does nothing; its pulls go on in its runtime, as under SIGSTOP.
    Paused,
    /// The API server is out of its reach.
    CutOff,
    /// It is gone, with its pulls.
    Killed,
}

/// What all nodes did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Pulls under way on nodes that work.
    pulling: AtomicUsize,
    /// Most of those at once.
    most: AtomicUsize,
    /// Pulls that began.
    pub(crate) begun: AtomicUsize,
    /// Pulls that ended.
    pub(crate) done: AtomicUsize,
    /// Requests that were sent: looks, and writes.
    pub(crate) looks: AtomicUsize,
    pub(crate) writes: AtomicUsize,
    /// Writes that another node's were faster than.
    pub(crate) conflicts: AtomicUsize,
}

impl Tally {
    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let now = self.pulling.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    /// Most pulls at once on nodes that work and reach the API server.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// The fast clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fast(Instant);

impl Fast {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Moment {
        Moment::after_start(self.0.elapsed() * SPEED)
    }

    fn instant(self, moment: Moment) -> Instant {
        self.0 + moment.since(Moment::default()) / SPEED
    }
}

/// One node of the crowd.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) slots: Slots,
    pub(crate) cap: watch::Receiver<Option<u32>>,
    pub(crate) mode: watch::Receiver<Mode>,
    /// How long each of its pulls takes by the fast clock, last one first.
    pub(crate) work: Vec<Duration>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) clock: Fast,
}

impl Node {
    /// Pulls what it has to, and gives the slot back.
    pub(crate) async fn run(mut self) -> Result<()> {
        let mut budget = Budget::new(self.name.as_str().into());
        // when the pull under way ends, and whether it counts
        let mut pull: Option<(Moment, bool)> = None;
        loop {
            let mode = *self.mode.borrow_and_update();
            let now = self.clock.now();
            if mode != Mode::Works
                && let Some((_, counted @ true)) = &mut pull
            {
                self.tally.pulling.fetch_sub(1, Ordering::SeqCst);
                *counted = false;
            }
            match mode {
                Mode::Killed => return Ok(()),
                Mode::Paused => {
                    self.mode.changed().await?;
                    continue;
                }
                Mode::Works | Mode::CutOff => {}
            }
            if let Some((_, counted)) = pull.take_if(|(end, _)| *end <= now) {
                self.tally.done.fetch_add(1, Ordering::SeqCst);
                if counted {
                    self.tally.pulling.fetch_sub(1, Ordering::SeqCst);
                }
            }
            let cap = *self.cap.borrow_and_update();
            if pull.is_none() && !self.work.is_empty() && budget.admission(cap).admits(now) {
                let takes = self.work.pop().unwrap_or_default();
                // one that is cut off has a slot until nobody believes it any more
                self.tally.begin();
                pull = Some((now + takes, true));
            }
            let need = Need { cap, wants: pull.is_none() && !self.work.is_empty(), pulling: pull.is_some() };
            let mut ask = budget.step(Event::Need(need), now, fastrand::f64());
            let asked = ask.is_some();
            while let Some(request) = ask {
                let answer = self.answer(request, mode).await;
                ask = budget.step(Event::Answer(answer), self.clock.now(), fastrand::f64());
            }
            if asked {
                continue;
            }
            if pull.is_none() && self.work.is_empty() && budget.wake().is_none() {
                return Ok(());
            }
            let wake = [budget.wake(), pull.map(|(end, _)| end)].into_iter().flatten().min();
            tokio::select! {
                changed = self.mode.changed() => changed?,
                changed = self.cap.changed() => changed?,
                () = tokio::time::sleep_until(wake.map_or_else(Instant::now, |wake| self.clock.instant(wake))), if wake.is_some() => {}
            }
        }
    }

    async fn answer(&mut self, ask: Ask, mode: Mode) -> Answer {
        if mode == Mode::CutOff {
            tokio::time::sleep(Duration::from_millis(200)).await;
            return Answer::NoAnswer("cut off".to_owned());
        }
        let counter = if matches!(ask, Ask::Look(_)) { &self.tally.looks } else { &self.tally.writes };
        counter.fetch_add(1, Ordering::SeqCst);
        let answer = self.slots.answer(ask).await;
        if answer == Answer::Conflict {
            self.tally.conflicts.fetch_add(1, Ordering::SeqCst);
        }
        answer
    }
}

/// All nodes, and the ends by which a test changes them.
pub(crate) struct Crowd {
    pub(crate) tally: Arc<Tally>,
    pub(crate) cap: watch::Sender<Option<u32>>,
    pub(crate) modes: Vec<watch::Sender<Mode>>,
    nodes: JoinSet<Result<()>>,
}

impl Crowd {
    /// Starts so many nodes under a cap, whose names begin as said; each pulls what `work` says.
    pub(crate) fn start(
        client: &Client,
        namespace: &str,
        names: &str,
        count: usize,
        cap: u32,
        work: impl Fn(usize) -> Vec<Duration>,
    ) -> Self {
        let (tally, clock) = (Arc::new(Tally::default()), Fast::start());
        let cap = watch::Sender::new(Some(cap));
        let mut nodes = JoinSet::new();
        let modes = (0..count).map(|n| {
            let (sender, mode) = watch::channel(Mode::Works);
            let name = format!("{names}-{n}");
            let slots = Slots::new(client.clone(), namespace, name.clone());
            let node = Node { name, slots, cap: cap.subscribe(), mode, work: work(n), tally: tally.clone(), clock };
            nodes.spawn(node.run());
            sender
        });
        let modes = modes.collect();
        Self { tally, cap, modes, nodes }
    }

    /// Waits until every node has done its work, for so long by the wall's clock.
    pub(crate) async fn done(&mut self, patience: Duration) -> Result<()> {
        let all = async {
            while let Some(ended) = self.nodes.join_next().await {
                ended??;
            }
            anyhow::Ok(())
        };
        let in_time = tokio::time::timeout(patience, all).await;
        ensure!(in_time.is_ok(), "after {patience:?} some nodes still wait: {:?}", self.tally);
        in_time?
    }
}
