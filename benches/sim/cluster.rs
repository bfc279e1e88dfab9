//! Nodes with the agent's own planner, budget and spread, an API server that keeps slots, and a registry; in simulated
//! time.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use prepull::{
    budget::{Admission, Answer, Ask, Budget, Event, Need},
    clock::Moment,
    desired::{Desired, SourcedList, TargetKey},
    error_class::{ErrorClass, PullError},
    image_state::Stored,
    list::{ImageList, affinity::NodeFacts, revision},
    plan::Action,
    spread,
    stock::{Observation, Outcome, Stock},
};

use crate::registry::{Capacity, Registry};

/// A request takes from the one to the other, in seconds.
const LATENCY: (f64, f64) = (0.02, 0.1);
/// A watch brings an edit to a node within this.
const WATCH: f64 = 1.0;
/// No answer came.
const TIME_OUT: f64 = 10.0;
/// An API server ends a watch after so long, and the agent begins it again.
pub const WATCH_LASTS: f64 = 290.0;

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// When.
    pub at: f64,
    /// So many nodes that hold a slot lose the API server, for so long.
    pub cut_off: (usize, f64),
    /// So many others that hold a slot are gone for good.
    pub gone: usize,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// Nodes.
    pub nodes: usize,
    /// `pullingNodes`.
    pub cap: Option<u32>,
    /// `spread`, as a list says it.
    pub spread: Duration,
    /// Megabytes of each image.
    pub images: Vec<u64>,
    /// The registry.
    pub registry: Capacity,
    /// What goes wrong.
    pub faults: Faults,
}

/// What came of it. Times are seconds since the edit.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// When each node became warm, in order.
    pub warm: Vec<f64>,
    /// Most nodes at once that pulled, and those among them that the API server could reach.
    pub most_nodes: usize,
    /// See above.
    pub most_reachable: usize,
    /// Most pulls at once.
    pub most_pulls: usize,
    /// Pulls that the registry refused.
    pub refused: u64,
    /// Looks at slots, writes to slots, and those of them that came too late.
    pub looks: u64,
    /// See above.
    pub writes: u64,
    /// See above.
    pub conflicts: u64,
    /// Most requests about slots within one second.
    pub busiest_second: u64,
    /// Requests about slots in the hour after the last node was warm.
    pub afterwards: u64,
    /// Nodes that pull, each ten seconds.
    pub pulling: Vec<usize>,
}

struct Node {
    name: Arc<str>,
    stock: Stock,
    budget: Budget,
    need: Need,
    pulling: usize,
    present: usize,
    gone: bool,
    cut_until: f64,
    counted: bool,
    wake: Option<u64>,
}

enum What {
    Edit,
    Wake(u64),
    Serve(Ask),
    Answer(Answer),
    Refused(u64),
    Fault,
    Sample,
}

struct Pull {
    node: usize,
    key: TargetKey,
    began: Moment,
}

/// The run.
pub struct Simulation {
    scenario: Scenario,
    nodes: Vec<Node>,
    registry: Registry,
    slots: Vec<(u64, Option<Arc<str>>)>,
    version: u64,
    pulls: HashMap<u64, Pull>,
    numbers: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, (usize, What)>,
    random: fastrand::Rng,
    now: f64,
    pulling_nodes: usize,
    reachable: usize,
    second: (u64, u64),
    outcomes: Outcomes,
    left: usize,
    refusal: PullError,
    /// From when on nothing is to be asked any more.
    at_rest: f64,
}

fn moment(seconds: f64) -> Moment {
    Moment::after_start(Duration::from_secs_f64(seconds))
}

fn desired(scenario: &Scenario) -> Desired {
    // what `auto` makes of it depends on a node's processors, which are no part of this
    let mut text = String::from("limits: {parallelPulls: 3, ");
    if let Some(cap) = scenario.cap {
        text += &format!("pullingNodes: {cap}, ");
    }
    text += &format!("spread: {}s}}\nimages:\n", scenario.spread.as_secs());
    for (n, megabytes) in scenario.images.iter().enumerate() {
        text += &format!("- registry.example.com/app-{n}:{megabytes}\n");
    }
    let list = Arc::new(ImageList::parse(&text).expect("the list is good"));
    let list =
        SourcedList { source: "sim".into(), revision: revision(&text).into(), namespace: None, selected: false, list };
    Desired::merge(&[list], &NodeFacts::default())
}

impl Simulation {
    /// Nodes that are up with an empty list; the edit comes at once.
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let empty = Observation::new(Moment::default(), Some(Vec::new()), HashMap::new());
        let node = |n: usize| {
            let name: Arc<str> = format!("node-{n}").into();
            let mut stock = Stock::new(true);
            stock.apply(Desired::default(), Moment::default());
            stock.looked_at(&empty, Moment::default());
            Node {
                budget: Budget::new(name.clone()),
                name,
                stock,
                need: Need::default(),
                pulling: 0,
                present: 0,
                gone: false,
                cut_until: 0.0,
                counted: false,
                wake: None,
            }
        };
        Self {
            nodes: (0..scenario.nodes).map(node).collect(),
            registry: Registry::new(scenario.registry),
            slots: vec![(1, None); scenario.cap.unwrap_or(0) as usize],
            version: 1,
            pulls: HashMap::new(),
            numbers: 0,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            random: fastrand::Rng::with_seed(seed),
            now: 0.0,
            pulling_nodes: 0,
            reachable: 0,
            second: (0, 0),
            outcomes: Outcomes::default(),
            left: scenario.nodes,
            refusal: PullError::own(ErrorClass::RateLimited, "429 Too Many Requests"),
            at_rest: f64::INFINITY,
            scenario: scenario.clone(),
        }
    }

    /// Runs until every node is warm, and an hour longer.
    pub fn run(mut self) -> Outcomes {
        let desired = desired(&self.scenario);
        for n in 0..self.nodes.len() {
            let after = self.random.f64() * WATCH;
            self.at(after, n, What::Edit);
        }
        if self.scenario.faults.at > 0.0 {
            self.at(self.scenario.faults.at, 0, What::Fault);
        }
        self.at(0.0, 0, What::Sample);
        let mut end = f64::INFINITY;
        loop {
            let queued = self.queue.peek().map(|Reverse((at, _))| *at as f64 / 1e6);
            let pulled = self.registry.next();
            let registry_first = pulled.is_some_and(|pulled| queued.is_none_or(|queued| pulled <= queued));
            let Some(next) = (if registry_first { pulled } else { queued }).filter(|next| *next <= end) else { break };
            self.now = next.max(self.now);
            self.registry.advance(self.now);
            if registry_first {
                if let Some(number) = self.registry.end() {
                    self.pulled(number, true);
                }
            } else if let Some(Reverse((_, number))) = self.queue.pop()
                && let Some((node, what)) = self.events.remove(&number)
            {
                self.happened(node, what, &desired);
            }
            if self.left == 0 && end.is_infinite() {
                end = self.now + 3600.0;
                // the last slots are given back
                self.at_rest = self.now + 60.0;
            }
        }
        self.outcomes.refused = self.registry.refused;
        self.outcomes.most_pulls = self.registry.most;
        self.outcomes
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds of some hours")]
    fn at(&mut self, when: f64, node: usize, what: What) -> u64 {
        self.numbers += 1;
        self.queue.push(Reverse(((when * 1e6).ceil() as u64, self.numbers)));
        self.events.insert(self.numbers, (node, what));
        self.numbers
    }

    fn happened(&mut self, n: usize, what: What, desired: &Desired) {
        let now = moment(self.now);
        match what {
            What::Sample => {
                self.outcomes.pulling.push(self.pulling_nodes);
                if self.left > 0 {
                    self.at(self.now + 10.0, 0, What::Sample);
                }
            }
            What::Fault => self.fault(),
            What::Edit => {
                let node = &mut self.nodes[n];
                node.stock.spread(now + spread::moment(&node.name, &desired.revision, desired.limits.spread));
                node.stock.apply(desired.clone(), now);
                // what the keeper does after an edit: it looks, and finds nothing
                let observation = Observation::new(now, Some(Vec::new()), HashMap::new());
                node.stock.looked_at(&observation, now);
                self.turn(n);
            }
            What::Wake(_) if self.nodes[n].gone => {}
            What::Wake(number) => {
                if self.nodes[n].wake.take_if(|wake| *wake == number).is_some() {
                    self.turn(n);
                }
            }
            What::Serve(ask) => self.serve(n, &ask),
            What::Answer(answer) => {
                let random = self.random.f64();
                let node = &mut self.nodes[n];
                if node.gone {
                    return;
                }
                let ask = node.budget.step(Event::Answer(answer), now, random);
                self.ask(n, ask);
                self.turn(n);
            }
            What::Refused(number) => self.pulled(number, false),
        }
    }

    /// As the keeper turns.
    fn turn(&mut self, n: usize) {
        let now = moment(self.now);
        let node = &mut self.nodes[n];
        let cap = node.stock.desired().limits.pulling_nodes;
        let admission = node.budget.admission(cap);
        node.stock.slot(admission);
        // a plan is a function of what is known: while a slot is only looked for, it would be the last one again
        let same = admission == Admission::Closed && node.need.wants && node.pulling == 0;
        let (mut wake, mut wants) = (None, true);
        if !same {
            let mut plan = node.stock.plan(now);
            if plan.measure {
                // the disks of these nodes are no limit
                node.stock.measured(None, None, now);
                plan = node.stock.plan(now);
            }
            (wake, wants) = (plan.wake, plan.wants_slot);
            for action in plan.actions {
                if let Action::Start(index) = action {
                    self.start(n, index);
                }
            }
        }
        let random = self.random.f64();
        let node = &mut self.nodes[n];
        node.need = Need { cap, wants, pulling: node.pulling > 0 };
        let ask = node.budget.step(Event::Need(node.need), now, random);
        let wake = [wake, node.budget.wake()].into_iter().flatten().min();
        self.ask(n, ask);
        if let Some(wake) = wake {
            let number = self.numbers + 1;
            let when = wake.since(Moment::default()).as_secs_f64().max(self.now);
            self.nodes[n].wake = Some(self.at(when, n, What::Wake(number)));
        }
    }

    fn start(&mut self, n: usize, index: usize) {
        let now = moment(self.now);
        let node = &mut self.nodes[n];
        let target = node.stock.target(index).0;
        let key = target.key.clone();
        let megabytes: f64 = key.canonical.rsplit(':').next().and_then(|tag| tag.parse().ok()).unwrap_or(1.0);
        node.stock.started(index, now);
        node.pulling += 1;
        self.numbers += 1;
        let number = self.numbers;
        self.pulls.insert(number, Pull { node: n, key, began: now });
        self.count(n);
        if !self.registry.begin(number, megabytes * 1e6) {
            let answered = self.now + self.random.f64() * (LATENCY.1 - LATENCY.0) + LATENCY.0;
            self.at(answered, n, What::Refused(number));
        }
    }

    fn pulled(&mut self, number: u64, well: bool) {
        let Some(Pull { node: n, key, began }) = self.pulls.remove(&number) else { return };
        let (now, random) = (moment(self.now), self.random.f64());
        let node = &mut self.nodes[n];
        if node.gone {
            return;
        }
        let outcome = if well {
            let stored = Stored { digest: key.canonical.clone(), size: 1, pinned: false };
            Outcome::Pulled { stored, credential: None }
        } else {
            Outcome::Failed(self.refusal.clone())
        };
        node.stock.finished(&key, outcome, began, now, random);
        node.stock.take_transitions();
        node.pulling -= 1;
        node.present += usize::from(well);
        if well && node.present == self.scenario.images.len() {
            self.left -= 1;
            self.outcomes.warm.push(self.now);
        }
        self.turn(n);
        self.count(n);
    }

    /// Counts a node among those that pull, or no longer.
    fn count(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let pulls = node.pulling > 0 && !node.gone;
        if pulls == node.counted {
            return;
        }
        node.counted = pulls;
        if pulls && node.cut_until < self.now {
            node.cut_until = 0.0;
        }
        let reachable = node.cut_until == 0.0;
        if pulls {
            self.pulling_nodes += 1;
            self.reachable += usize::from(reachable);
        } else {
            self.pulling_nodes -= 1;
            self.reachable -= usize::from(reachable);
        }
        self.outcomes.most_nodes = self.outcomes.most_nodes.max(self.pulling_nodes);
        self.outcomes.most_reachable = self.outcomes.most_reachable.max(self.reachable);
    }

    fn ask(&mut self, n: usize, ask: Option<Ask>) {
        let Some(ask) = ask else { return };
        if self.now < self.nodes[n].cut_until {
            self.at(self.now + TIME_OUT, n, What::Answer(Answer::NoAnswer("cut off".to_owned())));
            return;
        }
        let arrives = self.now + self.latency();
        self.at(arrives, n, What::Serve(ask));
    }

    fn latency(&mut self) -> f64 {
        0.5 * (LATENCY.0 + self.random.f64() * (LATENCY.1 - LATENCY.0))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of some hours")]
    fn serve(&mut self, n: usize, ask: &Ask) {
        self.outcomes.afterwards += u64::from(self.now > self.at_rest);
        let second = self.now as u64;
        self.second = if self.second.0 == second { (second, self.second.1 + 1) } else { (second, 1) };
        self.outcomes.busiest_second = self.outcomes.busiest_second.max(self.second.1);
        let (slot, write) = match ask {
            Ask::Look(slot) => (*slot, None),
            Ask::Hold(slot, version) => (*slot, Some((version, Some(self.nodes[n].name.clone())))),
            Ask::Free(slot, version) => (*slot, Some((version, None))),
        };
        let there = &mut self.slots[slot as usize];
        let mut conflict = false;
        if let Some((version, holder)) = write {
            self.outcomes.writes += 1;
            conflict = *version != there.0.to_string();
            if conflict {
                self.outcomes.conflicts += 1;
            } else {
                self.version += 1;
                *there = (self.version, holder);
            }
        } else {
            self.outcomes.looks += 1;
        }
        let slot = Answer::Slot { version: there.0.to_string(), holder: there.1.as_deref().map(str::to_owned) };
        let answer = if conflict { Answer::Conflict } else { slot };
        let arrives = self.now + self.latency();
        self.at(arrives, n, What::Answer(answer));
    }

    fn fault(&mut self) {
        let Faults { cut_off: (cut, lasts), gone, .. } = self.scenario.faults;
        let pulling: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].pulling > 0).collect();
        for n in pulling.iter().take(cut) {
            self.reachable -= 1;
            self.nodes[*n].cut_until = self.now + lasts;
        }
        for n in pulling.iter().skip(cut).take(gone) {
            self.nodes[*n].gone = true;
            self.left -= 1;
            self.count(*n);
        }
    }
}
