//! Keeps images pinned: one round at a time after whatever may have changed a record, and later and later while rounds
//! fail. Nothing is remembered that the runtime's records do not say; a new connection begins anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tonic::{Code, Status as RpcStatus};

use crate::{
    desired::RowKind,
    display::bytes,
    error_text::one_line,
    image_ref::ImageRef,
    list::units::written_bytes,
    pins::{LeftOut, Pinning, Wanted},
    runtime::{NOTICED_WITHIN, Pinned, Runtime, code_name},
    status::Status,
    stock::Stock,
};

/// After a round that failed; it doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest time between rounds that fail.
const LONGEST_RETRY: Duration = Duration::from_mins(1);
/// Rounds in a row in which the runtime takes no notice of the label: then it is taken not to know it.
const MOST_UNNOTICED: u32 = 4;
/// What was taken not to know the label is tried again after so long: it may only have been slow.
const TRY_AGAIN: Duration = Duration::from_hours(1);
/// Images that a problem names.
const MOST_NAMED: usize = 3;

/// What the rounds tell.
#[derive(Debug)]
pub(super) enum PinNews {
    /// It is time for one.
    Due,
    /// One has ended.
    Ended(Result<Pinned, RpcStatus>),
}

/// The pins of one keeper.
#[derive(Debug)]
pub(super) struct Pins {
    /// Whether this keeper pins: `prepull pull` leaves pins to the agent, which knows all lists.
    enabled: bool,
    running: JoinSet<Result<Pinned, RpcStatus>>,
    /// Something happened while one was under way that it may have missed.
    again: bool,
    retry_at: Option<Instant>,
    retry: Duration,
    /// Whether the runtime on this connection was seen to honour the label, or is taken not to.
    honoured: Option<bool>,
    /// Rounds in a row in which it was not.
    unnoticed: u32,
    /// When what is taken not to honour it is tried again.
    try_again: Option<Instant>,
    /// Why the runtime on this connection cannot pin.
    unable: Option<String>,
    /// Whether the runtime on this connection may have pins of this agent's.
    ours: bool,
    /// What is wrong, for people.
    problem: Option<String>,
    /// Why images are not pinned, by canonical name.
    left_out: HashMap<Arc<str>, String>,
}

impl Pins {
    /// Nothing known yet.
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            running: JoinSet::new(),
            again: false,
            retry_at: None,
            retry: FIRST_RETRY,
            honoured: None,
            unnoticed: 0,
            try_again: None,
            unable: None,
            ours: true,
            problem: None,
            left_out: HashMap::new(),
        }
    }

    /// Waits until there is something to tell. Dropping the future loses nothing.
    pub(super) async fn news(&mut self) -> PinNews {
        let retry = self.retry_at;
        tokio::select! {
            Some(Ok(round)) = self.running.join_next() => PinNews::Ended(round),
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {
                self.retry_at = None;
                PinNews::Due
            }
            else => std::future::pending().await,
        }
    }

    /// Takes in what the rounds told, and says whether the store is to be looked at because records changed.
    pub(super) fn take(&mut self, news: PinNews, runtime: Option<&Runtime>, stock: &Stock) -> bool {
        let changed = match news {
            PinNews::Due => {
                self.begin(runtime, stock);
                return false;
            }
            PinNews::Ended(round) => self.ended(round, runtime, stock),
        };
        // a look is followed by a round in any case
        if self.again && !changed {
            self.begin(runtime, stock);
        }
        changed
    }

    /// Begins a round after something that may have changed a record; another one afterwards where one runs already.
    pub(super) fn begin(&mut self, runtime: Option<&Runtime>, stock: &Stock) {
        let Some(runtime) = runtime.filter(|_| self.enabled && stock.list_read() && stock.looked()) else { return };
        if !self.running.is_empty() {
            self.again = true;
            return;
        }
        self.again = false;
        // one that failed is followed by the next when its time has come
        if self.retry_at.is_some() {
            return;
        }
        if stock.desired().limits.pin_cap_is_unknown() {
            let problem =
                "images are neither pinned nor unpinned, because limits.maxPinnedSize cannot be read; correct it"
                    .to_owned();
            self.tell(Some(problem).filter(|_| self.ours || wants_pins(stock)), HashMap::new());
            return;
        }
        let pinning = pinning(stock);
        if !self.ours && (pinning.wanted.is_empty() || !self.may_try()) {
            let problem = self.unable.clone().filter(|_| wants_pins(stock));
            self.tell(problem, HashMap::new());
            return;
        }
        let (runtime, honoured) = (runtime.clone(), self.honoured);
        self.running.spawn(async move { runtime.pin(&pinning, honoured).await });
    }

    /// Whether the runtime may honour the label; one that did not is asked anew after a long while.
    fn may_try(&mut self) -> bool {
        if self.try_again.is_some_and(|at| Instant::now() >= at) {
            (self.honoured, self.unnoticed, self.try_again) = (None, 0, None);
        }
        self.honoured != Some(false)
    }

    /// Ends what runs: its connection is gone, and whatever answers next may be another runtime.
    pub(super) fn end(&mut self) {
        *self = Self { problem: self.problem.take(), ..Self::new(self.enabled) };
    }

    /// Adds to a status why images are not pinned.
    pub(super) fn add_to(&self, status: &mut Status, stock: &Stock) {
        status.add_pins(stock, self.problem.as_ref(), |key| self.left_out.get(&key.canonical).cloned());
    }

    fn ended(&mut self, round: Result<Pinned, RpcStatus>, runtime: Option<&Runtime>, stock: &Stock) -> bool {
        let name = runtime.map(Runtime::name_and_version).unwrap_or_default();
        let pinned = match round {
            Ok(pinned) => pinned,
            Err(status) if status.code() == Code::Unimplemented => {
                self.unable = Some(no_containerd(&name));
                self.honoured = Some(false);
                Pinned { honoured: Some(false), ..Pinned::default() }
            }
            Err(status) => {
                let (code, text) = (code_name(&status), one_line(status.message()));
                let problem =
                    format!("images cannot be pinned or unpinned: {name} answers {code}: {text}; trying again");
                return self.failed(Some(problem));
            }
        };
        let Pinned { changed, honoured, ours_left, left_out } = pinned;
        if honoured == Some(false) && self.honoured != Some(false) {
            self.ours = true;
            self.unnoticed += 1;
            if self.unnoticed < MOST_UNNOTICED {
                let problem = self.unable.clone().unwrap_or_else(|| not_noticed(&name));
                return self.failed(Some(problem).filter(|_| wants_pins(stock)));
            }
            // what was written is taken back by the round that follows the look
            self.unable = Some(not_honoured(&name));
            self.try_again = Some(Instant::now() + TRY_AGAIN);
        } else {
            self.ours = ours_left;
        }
        self.retry = FIRST_RETRY;
        self.honoured = honoured;
        if honoured == Some(true) {
            (self.unable, self.unnoticed) = (None, 0);
        }
        let cap = stock.desired().limits.max_pinned_size;
        let unable = self.unable.clone().filter(|_| wants_pins(stock));
        let problem = unable.or_else(|| does_not_fit(&left_out, cap));
        let why = |one: LeftOut| (one.name.clone(), why_not(&one, cap));
        self.tell(problem, left_out.into_iter().map(why).collect());
        changed || (honoured == Some(false) && self.ours)
    }

    /// A round failed: the next one comes later. The store is to be looked at, for it may have changed something before.
    fn failed(&mut self, problem: Option<String>) -> bool {
        self.retry_at = Some(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
        let left_out = std::mem::take(&mut self.left_out);
        self.tell(problem, left_out);
        true
    }

    /// Keeps what is wrong for the status, and logs it where it is new.
    fn tell(&mut self, problem: Option<String>, left_out: HashMap<Arc<str>, String>) {
        self.left_out = left_out;
        if self.problem != problem {
            if let Some(problem) = &problem {
                tracing::warn!(%problem, "not every image is pinned that should be");
            } else {
                tracing::info!("nothing keeps images from being pinned any more");
            }
            self.problem = problem;
        }
    }
}

/// What is to be pinned of what the runtime last had, in the order in which images are pulled.
fn pinning(stock: &Stock) -> Pinning {
    let desired = stock.desired();
    let wanted = (0..desired.targets.len()).filter_map(|index| {
        let (target, _, stored) = stock.target(index);
        let stored = stored.filter(|_| target.pin)?;
        let name = target.key.canonical.clone();
        Some(Wanted { name, digest: stored.digest.clone(), size: stored.size })
    });
    let held = desired.rows.iter().filter_map(|row| match &row.kind {
        RowKind::Invalid { .. } => ImageRef::parse(&row.image).ok().map(|image| image.canonical().into()),
        RowKind::Target(_) | RowKind::NotForThisNode | RowKind::Undecided { .. } => None,
    });
    Pinning {
        wanted: wanted.collect(),
        held: held.collect(),
        complete: desired.unknown.is_none(),
        cap: desired.limits.max_pinned_size,
    }
}

fn wants_pins(stock: &Stock) -> bool {
    stock.desired().targets.iter().any(|target| target.pin)
}

fn not_noticed(runtime: &str) -> String {
    format!(
        "images are not seen to be pinned yet: {runtime} has not reported one as pinned within {} s of its label; trying again",
        NOTICED_WITHIN.as_secs()
    )
}

fn not_honoured(runtime: &str) -> String {
    format!(
        "pin has no effect on this node: {runtime} did not report an image as pinned that carried its label, {MOST_UNNOTICED} times for {} s, so the kubelet may collect it; this is tried again every hour, and containerd does from 1.7 on",
        NOTICED_WITHIN.as_secs()
    )
}

fn no_containerd(runtime: &str) -> String {
    format!(
        "pin has no effect on this node: {runtime} has no image service of containerd; where it is CRI-O, name the images in its own setting pinned_images"
    )
}

fn does_not_fit(left_out: &[LeftOut], cap: Option<u64>) -> Option<String> {
    let (first, cap) = (left_out.get(..left_out.len().min(MOST_NAMED))?, cap?);
    if first.is_empty() {
        return None;
    }
    let names: Vec<_> = first.iter().map(|one| &*one.name).collect();
    let more = left_out.len() - first.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!(
        "not pinned, because all pinned images together may have {} (limits.maxPinnedSize): {}{more}; raise it, or pin less",
        written_bytes(cap),
        names.join(", ")
    ))
}

fn why_not(one: &LeftOut, cap: Option<u64>) -> String {
    format!(
        "not pinned: it has {}, {} are pinned before it, and limits.maxPinnedSize is {}",
        bytes(one.size),
        bytes(one.pinned),
        cap.map(written_bytes).unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::{
        clock::Moment,
        desired::{Desired, SourcedList},
        list::{ImageList, affinity::NodeFacts},
    };

    fn stock() -> Stock {
        let list = Arc::new(ImageList::parse("images: [{image: 'q.io/a:1', pin: true}]").unwrap());
        let list = SourcedList { source: "test".into(), revision: "r".into(), namespace: None, selected: false, list };
        let mut stock = Stock::new(true);
        stock.apply(Desired::merge(&[list], &NodeFacts::default()), Moment::default());
        stock
    }

    fn round(honoured: bool) -> PinNews {
        PinNews::Ended(Ok(Pinned { changed: true, honoured: Some(honoured), ours_left: true, left_out: Vec::new() }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_takes_notice_late_keeps_its_pins() {
        let (stock, mut pins) = (stock(), Pins::new(true));
        for _ in 1..MOST_UNNOTICED {
            pins.take(round(false), None, &stock);
            assert!(pins.retry_at.is_some() && pins.honoured.is_none() && pins.unable.is_none());
            assert!(pins.problem.as_ref().is_some_and(|p| p.contains("yet")), "{:?}", pins.problem);
            pins.retry_at = None;
        }
        pins.take(round(true), None, &stock);
        assert_eq!((pins.honoured, &pins.problem, pins.unnoticed), (Some(true), &None, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_does_is_given_up_and_tried_again_much_later() {
        let (stock, mut pins) = (stock(), Pins::new(true));
        for _ in 0..MOST_UNNOTICED {
            pins.retry_at = None;
            assert!(pins.take(round(false), None, &stock));
        }
        assert_eq!((pins.honoured, pins.retry_at), (Some(false), None), "the next round takes back what was written");
        assert!(pins.problem.as_ref().is_some_and(|p| p.contains("no effect")), "{:?}", pins.problem);
        let taken_back = Pinned { changed: true, honoured: Some(false), ..Pinned::default() };
        pins.take(PinNews::Ended(Ok(taken_back)), None, &stock);
        assert!(!pins.ours && pins.unnoticed == MOST_UNNOTICED);
        assert!(!pins.may_try());
        advance(TRY_AGAIN).await;
        assert!(pins.may_try());
        assert_eq!((pins.honoured, pins.unnoticed), (None, 0));
        assert!(pins.problem.is_some(), "until it is seen to be honoured");
    }
}
