//! Follows running pulls: asks the runtime about once a second how far they are, while there are any, and ends those
//! that stand still.

mod kept;
mod mark;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tonic::Status as RpcStatus;

use kept::{Keeping, Lease};
use mark::Mark;

use super::Reporter;
use crate::{
    clock::Moment,
    desired::{Target, TargetKey},
    error_class::{ErrorClass, PullError},
    image_ref::{Digest, RegistryHost},
    progress::{
        ImageProgress, LeaseId, NodeProgress, Offsets, RuntimeTime, Sample, Stall, Tracker, catalogue::Catalogue,
        goes_on,
    },
    runtime::Runtime,
    stock::{Outcome, Stock},
};

/// How often the runtime is asked, and how soon after the beginning of a pull: those that are over by then are hardly ever asked
/// about, because the questions cost more time than they would tell about.
const INTERVAL: Duration = Duration::from_secs(1);
/// How soon after an answer that was an error.
const RETRY: Duration = Duration::from_secs(5);
/// How much longer than the pull's own bound its lease lasts, for the time in which the runtime is asked a last time.
const GRACE: Duration = Duration::from_mins(5);
/// More pulls of one image than so many do not go on from each other: each keeps a lease.
const MOST_LEASES: usize = 32;
/// Bound of the last sample and of the end of a lease.
const FAREWELL: Duration = Duration::from_secs(5);

/// What was counted: bytes by registry.
pub(super) type Counted = Vec<(RegistryHost, u64)>;

/// What a pull came to that ended.
pub(super) struct Ended {
    /// None where it was not followed.
    pub(super) counted: Option<Counted>,
    /// How it ended: a failure may be a download that broke off and goes on.
    pub(super) outcome: Outcome,
    /// How long it took, with the pulls that it went on from.
    pub(super) took: Duration,
}

impl Ended {
    /// With what is known now: without a byte that came, no download broke off.
    fn after(self, gained: u64) -> Self {
        let outcome = match self.outcome {
            Outcome::Failed(error) if gained == 0 => Outcome::Failed(PullError { broke_off: false, ..error }),
            outcome => outcome,
        };
        Self { outcome, ..self }
    }
}

/// The attempt's end of a pull that is followed.
pub(super) struct Follow {
    number: u64,
    /// It goes on from an earlier pull.
    goes_on: bool,
    lease: LeaseId,
    /// Names this process in its leases.
    instance: Arc<str>,
    leased_at: Arc<OnceLock<RuntimeTime>>,
    /// Tells that the lease was made.
    made: Arc<Notify>,
    stalled: oneshot::Receiver<PullError>,
}

impl Follow {
    /// Makes the lease of a pull. None where the runtime knows none, or does not make it now: then the pull is not
    /// followed, and nothing else changes.
    pub(super) async fn lease(&self, runtime: &Runtime, target: &Target) -> Option<LeaseId> {
        if !runtime.tells_progress().await.unwrap_or(false) {
            return None;
        }
        let lasts = target.pull_timeout.saturating_add(GRACE);
        match runtime.lease(&self.lease, &self.instance, Some(&target.key.canonical), lasts).await {
            Ok(made) => {
                // nobody else sets it
                let _ = self.leased_at.set(made);
                self.made.notify_one();
                Some(self.lease.clone())
            }
            Err(status) => {
                tracing::debug!(error = status.message(), "no lease: this pull shows no progress");
                None
            }
        }
    }

    /// Resolves when the pull stands still.
    pub(super) async fn stalled(&mut self) -> PullError {
        match (&mut self.stalled).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }

    /// The pull ended: what it brought, under its number, before its lease is let go. That of a download that broke off stays
    /// for [`Following::end`].
    pub(super) async fn finish(self, runtime: &Runtime, outcome: &Outcome) -> Option<Sample> {
        self.leased_at.get()?;
        let well = matches!(outcome, Outcome::Pulled { .. });
        let sample = timeout(FAREWELL, runtime.brought(self.number, &self.lease, well)).await.ok().and_then(Result::ok);
        if !stays(outcome, self.goes_on) {
            // it ends by itself if it cannot be ended now
            let _ = timeout(FAREWELL, runtime.release(&self.lease)).await;
        }
        sample
    }
}

/// Whether an attempt leaves its lease to [`Following::end`], because another pull may go on from this one. `goes_on` says
/// whether this one went on from an earlier pull.
fn stays(outcome: &Outcome, goes_on: bool) -> bool {
    match outcome {
        Outcome::Failed(error) => error.broke_off || goes_on,
        Outcome::Pulled { .. } | Outcome::Interrupted | Outcome::BrokeOff(_) => false,
    }
}

/// A pull that is followed, or will be when its lease is made.
struct Followed {
    key: TargetKey,
    registry: RegistryHost,
    lease: Lease,
    /// What it goes on from.
    from: Offsets,
    goes_on: bool,
    leased_at: Arc<OnceLock<RuntimeTime>>,
    tracked: bool,
    stalled: Option<oneshot::Sender<PullError>>,
}

/// All pulls of a keeper that are followed.
pub(super) struct Following {
    /// Makes the names of leases differ from those of other agents on this node, and of earlier ones.
    name: Arc<str>,
    pulls: BTreeMap<u64, Followed>,
    keeping: Keeping,
    mark: Mark,
    /// Removes the leases of processes that were killed.
    sweep: JoinSet<()>,
    tracker: Tracker,
    catalogue: Catalogue,
    poll: JoinSet<Result<Sample, RpcStatus>>,
    /// What last samples counted while a poll was under way, whose answer is older.
    counted: HashSet<Digest>,
    next: Instant,
    leased: Arc<Notify>,
}

impl Following {
    pub(super) fn new() -> Self {
        Self {
            name: format!("prepull-{}-{:08x}", std::process::id(), fastrand::u32(..)).into(),
            pulls: BTreeMap::new(),
            keeping: Keeping::default(),
            mark: Mark::default(),
            sweep: JoinSet::new(),
            tracker: Tracker::default(),
            catalogue: Catalogue::default(),
            poll: JoinSet::new(),
            counted: HashSet::new(),
            next: Instant::now(),
            leased: Arc::default(),
        }
    }

    /// The runtime answers.
    pub(super) fn connected(&mut self, runtime: Runtime) {
        self.disconnected();
        while self.sweep.try_join_next().is_some() {}
        self.sweep.spawn(mark::remove_stale(runtime, self.name.to_string()));
    }

    /// The runtime does not answer any more.
    pub(super) fn disconnected(&mut self) {
        self.sweep.abort_all();
    }

    /// A pull begins.
    pub(super) fn begin(&mut self, number: u64, runtime: &Runtime, target: &Target) -> Follow {
        let (sender, receiver) = oneshot::channel();
        let leased_at = Arc::new(OnceLock::new());
        let lease: LeaseId = format!("{}-{number}", self.name).into();
        let kept = self.keeping.of(&target.key);
        let (goes_on, from) = (kept.is_some(), kept.map(|kept| kept.offsets.clone()).unwrap_or_default());
        let follow = Follow {
            number,
            goes_on,
            lease: lease.clone(),
            instance: self.name.clone(),
            leased_at: leased_at.clone(),
            made: self.leased.clone(),
            stalled: receiver,
        };
        let followed = Followed {
            key: target.key.clone(),
            registry: target.image.registry().clone(),
            lease: Lease {
                runtime: runtime.clone(),
                id: lease,
                until: Instant::now() + target.pull_timeout.saturating_add(GRACE),
            },
            from,
            goes_on,
            leased_at,
            tracked: false,
            stalled: Some(sender),
        };
        let first = Instant::now() + INTERVAL;
        self.next = if self.pulls.is_empty() { first } else { self.next.min(first) };
        self.pulls.insert(number, followed);
        follow
    }

    /// A pull ended by itself in this way, and `last` is what it brought. A download that broke off goes on if it `may`.
    pub(super) fn end(&mut self, number: u64, ended: Ended, last: Option<&Sample>, may: bool, now: Moment) -> Ended {
        self.track(now);
        let Some(followed) = self.pulls.remove(&number) else { return ended.after(0) };
        let mut kept = self.keeping.take(&followed.key);
        let took = kept.took.saturating_add(ended.took);
        let leased = followed.leased_at.get().is_some();
        let counted = last.filter(|_| leased).and_then(|last| {
            if !self.poll.is_empty() {
                let all = last.leases.get(&number).into_iter();
                self.counted.extend(all.flat_map(|leased| leased.blobs.iter().chain(&leased.ingests)).cloned());
            }
            self.tracker.settle(number, last, now)
        });
        let gained = self.tracker.gained(number);
        if leased {
            self.tracker.end(number);
        }
        let offsets = last.map(|last| last.offsets(number)).unwrap_or_default();
        let may = may && kept.leases.len() < MOST_LEASES;
        let own = Some(followed.lease).filter(|_| leased && stays(&ended.outcome, followed.goes_on));
        let outcome = match ended.after(gained).outcome {
            Outcome::Failed(error) if error.broke_off && may && goes_on(gained, &offsets) => Outcome::BrokeOff(error),
            outcome => outcome,
        };
        kept.offsets.extend(offsets);
        kept.took = took;
        self.keeping.ended(followed.key, kept, own, &outcome);
        let counted = leased.then(|| counted.into_iter().collect());
        Ended { counted, outcome, took }
    }

    /// A pull was given up.
    pub(super) fn give_up(&mut self, number: u64) {
        if let Some(followed) = self.pulls.remove(&number) {
            self.tracker.end(number);
            if followed.leased_at.get().is_some() {
                self.keeping.let_go(followed.lease);
            }
        }
    }

    /// After each turn: lets go of what no pull will go on from.
    pub(super) fn turned(&mut self, stock: &Stock, now: Moment) {
        self.keeping.tidy(stock, now);
        match self.keeping.runtime() {
            Some(runtime) => self.mark.keep_fresh(&self.name, &runtime, &mut self.keeping),
            None if self.pulls.is_empty() => self.mark.end(&mut self.keeping),
            None => {}
        }
    }

    /// Gives all pulls up, and lets go of all leases as long as the bound allows.
    pub(super) async fn give_all_up(&mut self, bound: Duration) {
        let numbers: Vec<_> = self.pulls.keys().copied().collect();
        for number in numbers {
            self.give_up(number);
        }
        self.mark.end(&mut self.keeping);
        self.keeping.end(bound).await;
    }

    /// Whether there is anything to ask about.
    pub(super) fn is_on(&self) -> bool {
        !self.pulls.is_empty()
    }

    /// Waits for the next answer of the runtime. Dropping the future loses nothing.
    pub(super) async fn news(&mut self) -> Result<Sample, RpcStatus> {
        loop {
            if let Some(answer) = self.poll.join_next().await {
                let answer = answer.unwrap_or_else(|_| Err(RpcStatus::cancelled("the connection ended")));
                self.next = Instant::now() + if answer.is_ok() { INTERVAL } else { RETRY };
                // where small pulls end all the time every answer is older than some of them: it tells of the others all the same
                let counted = std::mem::take(&mut self.counted);
                return answer.map(|sample| Sample { counted, ..sample });
            }
            if self.pulls.values().all(|followed| followed.leased_at.get().is_none()) {
                // nothing to ask about, and never will be where the runtime knows no leases
                self.leased.notified().await;
                continue;
            }
            sleep_until(self.next).await;
            self.ask();
        }
    }

    fn ask(&mut self) {
        let leased = || self.pulls.iter().filter(|(_, followed)| followed.leased_at.get().is_some());
        let leases: Vec<_> = leased().map(|(number, followed)| (*number, followed.lease.id.to_string())).collect();
        // all of them are on one connection: a new one comes when the pulls of the old one have ended
        let Some(runtime) = leased().next_back().map(|(_, followed)| followed.lease.runtime.clone()) else { return };
        self.mark.keep_fresh(&self.name, &runtime, &mut self.keeping);
        // an answer that is an error leaves it as it is
        let known = self.catalogue.clone();
        self.poll.spawn(async move { runtime.sample(&leases, known).await });
    }

    /// Takes an answer in, and ends pulls that stand still for longer than `stall_timeout`.
    pub(super) fn saw(&mut self, answer: Result<Sample, RpcStatus>, stall_timeout: Duration, now: Moment) -> Counted {
        self.track(now);
        let sample = match answer {
            Ok(sample) => sample,
            Err(status) => {
                tracing::debug!(error = status.message(), "the runtime does not say how far pulls are; asking again");
                return Counted::new();
            }
        };
        let counted = self.tracker.saw(&sample, now);
        self.catalogue = sample.catalogue;
        let stalls = self.tracker.stalled(stall_timeout, now);
        for stall in &stalls {
            let sender = self.pulls.get_mut(&stall.number).and_then(|followed| followed.stalled.take());
            if let Some(sender) = sender {
                // an attempt that has just ended needs no telling
                let _ = sender.send(error(stall));
            }
        }
        if !stalls.is_empty() {
            self.tracker.gave_up(now);
        }
        counted
    }

    /// Begins to track pulls whose leases have been made.
    fn track(&mut self, now: Moment) {
        for (number, followed) in &mut self.pulls {
            if let Some(leased_at) = followed.leased_at.get().filter(|_| !followed.tracked) {
                followed.tracked = true;
                self.mark.leased();
                self.tracker.go_on(std::mem::take(&mut followed.from));
                self.tracker.begin(*number, followed.key.clone(), followed.registry.clone(), *leased_at, now);
            }
        }
    }

    /// How far an image is.
    pub(super) fn of(&self, key: &TargetKey) -> Option<&ImageProgress> {
        self.tracker.of(key)
    }

    /// Tells how far each image is.
    pub(super) fn report(&self, stock: &Stock, reporter: &mut impl Reporter) {
        for followed in self.pulls.values() {
            if let (Some(index), Some(progress)) = (stock.find(&followed.key), self.tracker.of(&followed.key)) {
                reporter.progress(stock.target(index).0.image.written(), progress);
            }
        }
    }

    /// How far all are together; none while nothing is followed.
    pub(super) fn node(&self) -> Option<NodeProgress> {
        (!self.tracker.is_idle()).then(|| self.tracker.node())
    }
}

fn error(stall: &Stall) -> PullError {
    let seconds = stall.silent.as_secs();
    let text = if stall.begun {
        format!("the download stands still: no byte came for {seconds} s (stallTimeout), so the pull was ended")
    } else {
        format!("nothing came from the registry for {seconds} s (stallTimeout), so the pull was ended")
    };
    PullError::own(ErrorClass::Stalled, &text)
}
