//! Follows running pulls: asks the runtime about once a second how far they are, while there are any, and ends those
//! that stand still.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tonic::Status as RpcStatus;

use super::Reporter;
use crate::{
    clock::Moment,
    desired::{Target, TargetKey},
    error_class::{ErrorClass, PullError},
    image_ref::{Digest, RegistryHost},
    progress::{
        ImageProgress, LeaseId, NodeProgress, RuntimeTime, Sample, Stall, Tracker, catalogue::Catalogue, goes_on,
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
/// Bound of the last sample and of the end of a lease.
const FAREWELL: Duration = Duration::from_secs(5);

/// What was counted: bytes by registry.
pub(super) type Counted = Vec<(RegistryHost, u64)>;

/// What a pull came to that ended.
pub(super) struct Ended {
    /// None where it was not followed.
    pub(super) counted: Option<Counted>,
    /// How it ended, where it was a failure: a download that broke off may go on.
    pub(super) outcome: Outcome,
}

/// The lease of a pull whose download broke off: it keeps what came, until the pull has ended that goes on from there.
struct Kept {
    runtime: Runtime,
    lease: LeaseId,
    /// Bytes that it holds.
    held: u64,
}

/// The attempt's end of a pull that is followed.
pub(super) struct Follow {
    number: u64,
    lease: LeaseId,
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
        match runtime.lease(&self.lease, target.pull_timeout.saturating_add(GRACE)).await {
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

    /// The pull ended: what it brought, under its number, before its lease is let go. That of one that ended badly stays
    /// for [`Following::end`].
    pub(super) async fn finish(self, runtime: &Runtime, well: bool) -> Option<Sample> {
        self.leased_at.get()?;
        let sample = timeout(FAREWELL, runtime.brought(self.number, &self.lease, well)).await.ok().and_then(Result::ok);
        if well {
            release(runtime, &self.lease).await;
        }
        sample
    }
}

/// A pull that is followed, or will be when its lease is made.
struct Followed {
    key: TargetKey,
    registry: RegistryHost,
    runtime: Runtime,
    lease: LeaseId,
    leased_at: Arc<OnceLock<RuntimeTime>>,
    tracked: bool,
    stalled: Option<oneshot::Sender<PullError>>,
}

/// All pulls of a keeper that are followed.
pub(super) struct Following {
    /// Makes the names of leases differ from those of other agents on this node, and of earlier ones.
    name: String,
    pulls: BTreeMap<u64, Followed>,
    kept: HashMap<TargetKey, Kept>,
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
            name: format!("prepull-{}-{:08x}", std::process::id(), fastrand::u32(..)),
            pulls: BTreeMap::new(),
            kept: HashMap::new(),
            tracker: Tracker::default(),
            catalogue: Catalogue::default(),
            poll: JoinSet::new(),
            counted: HashSet::new(),
            next: Instant::now(),
            leased: Arc::default(),
        }
    }

    /// A pull begins.
    pub(super) fn begin(&mut self, number: u64, runtime: &Runtime, target: &Target) -> Follow {
        let (sender, receiver) = oneshot::channel();
        let leased_at = Arc::new(OnceLock::new());
        let lease: LeaseId = format!("{}-{number}", self.name).into();
        let follow = Follow {
            number,
            lease: lease.clone(),
            leased_at: leased_at.clone(),
            made: self.leased.clone(),
            stalled: receiver,
        };
        let followed = Followed {
            key: target.key.clone(),
            registry: target.image.registry().clone(),
            runtime: runtime.clone(),
            lease,
            leased_at,
            tracked: false,
            stalled: Some(sender),
        };
        let first = Instant::now() + INTERVAL;
        self.next = if self.pulls.is_empty() { first } else { self.next.min(first) };
        self.pulls.insert(number, followed);
        follow
    }

    /// A pull ended by itself in this way, and `last` is what it brought. None where it was not followed.
    pub(super) fn end(&mut self, number: u64, outcome: Outcome, last: Option<&Sample>, now: Moment) -> Ended {
        self.track(now);
        let Some(followed) = self.pulls.remove(&number) else { return Ended { counted: None, outcome } };
        let before = self.kept.remove(&followed.key);
        let Some(leased_at) = followed.leased_at.get() else {
            before.map(let_go);
            return Ended { counted: None, outcome };
        };
        let counted = last.and_then(|last| {
            if !self.poll.is_empty() {
                let all = last.leases.get(&number).into_iter();
                self.counted.extend(all.flat_map(|leased| leased.blobs.iter().chain(&leased.ingests)).cloned());
            }
            self.tracker.settle(number, last, now)
        });
        let held = last.map_or(0, |last| last.held(number));
        let outcome = match outcome {
            Outcome::Failed(error) => {
                let gained = last.map_or(0, |last| last.gained(number, *leased_at, before.as_ref().map(|b| b.held)));
                let error = if gained > 0 { error.after_bytes() } else { error };
                if error.broke_off && goes_on(gained, held) { Outcome::BrokeOff(error) } else { Outcome::Failed(error) }
            }
            outcome => outcome,
        };
        let lease = Kept { runtime: followed.runtime, lease: followed.lease, held };
        match &outcome {
            Outcome::BrokeOff(_) => {
                self.tracker.suspend(number);
                self.kept.insert(followed.key, lease);
            }
            // its attempt let go of it
            Outcome::Pulled { .. } => self.tracker.end(number),
            Outcome::Failed(_) | Outcome::Interrupted => {
                self.tracker.end(number);
                let_go(lease);
            }
        }
        before.map(let_go);
        Ended { counted: Some(counted.into_iter().collect()), outcome }
    }

    /// A pull was given up.
    pub(super) fn give_up(&mut self, number: u64) {
        if let Some(Followed { key, runtime, lease, leased_at, .. }) = self.pulls.remove(&number) {
            self.tracker.end(number);
            self.kept.remove(&key).map(let_go);
            if leased_at.get().is_some() {
                let_go(Kept { runtime, lease, held: 0 });
            }
        }
    }

    /// Lets go of what is kept for images that are no longer wanted.
    pub(super) fn retain(&mut self, stock: &Stock) {
        let gone = |key: &TargetKey, _: &mut Kept| stock.find(key).is_none();
        for (_, kept) in self.kept.extract_if(gone) {
            let_go(kept);
        }
    }

    /// All pulls were given up.
    pub(super) fn give_all_up(&mut self) {
        let numbers: Vec<_> = self.pulls.keys().copied().collect();
        for number in numbers {
            self.give_up(number);
        }
        self.kept.drain().for_each(|(_, kept)| let_go(kept));
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
        let leases: Vec<_> = leased().map(|(number, followed)| (*number, followed.lease.to_string())).collect();
        // all of them are on one connection: a new one comes when the pulls of the old one have ended
        let Some(runtime) = leased().next_back().map(|(_, followed)| followed.runtime.clone()) else { return };
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

/// Lets go of a lease, which ends by itself if it cannot be ended now.
async fn release(runtime: &Runtime, lease: &str) {
    let _ = timeout(FAREWELL, runtime.release(lease)).await;
}

fn let_go(kept: Kept) {
    tokio::spawn(async move { release(&kept.runtime, &kept.lease).await });
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
