//! Leases of pulls whose downloads broke off: they keep what came for the pull that goes on from there. And how leases end.

use std::{collections::HashMap, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use super::FAREWELL;
use crate::{
    clock::Moment,
    desired::TargetKey,
    image_state::ImageState,
    progress::{LeaseId, Offsets},
    runtime::Runtime,
    stock::{Outcome, Stock},
};

/// A lease in a runtime.
pub(super) struct Lease {
    pub(super) runtime: Runtime,
    pub(super) id: LeaseId,
    /// When it ends by itself, at the earliest.
    pub(super) until: Instant,
}

/// What pulls left behind whose downloads broke off.
#[derive(Default)]
pub(super) struct Kept {
    /// Of all of them: a later one holds nothing of what an earlier one had unpacked.
    pub(super) leases: Vec<Lease>,
    /// How far the blobs are that are not complete.
    pub(super) offsets: Offsets,
    /// How long those took of the attempt that goes on.
    pub(super) took: Duration,
}

/// What is kept, by image, and the leases that are being let go of.
#[derive(Default)]
pub(super) struct Keeping {
    kept: HashMap<TargetKey, Kept>,
    leaving: JoinSet<()>,
}

impl Keeping {
    /// What there is of an image.
    pub(super) fn of(&self, key: &TargetKey) -> Option<&Kept> {
        self.kept.get(key)
    }

    pub(super) fn take(&mut self, key: &TargetKey) -> Kept {
        self.kept.remove(key).unwrap_or_default()
    }

    /// A pull of the image ended in this way; `own` is its lease, where its attempt left it.
    pub(super) fn ended(&mut self, key: TargetKey, mut kept: Kept, own: Option<Lease>, outcome: &Outcome) {
        let stays = match outcome {
            Outcome::BrokeOff(_) => true,
            // a network or a runtime that was away for a moment costs nothing of what had come; any other failure may come from it
            Outcome::Failed(error) => error.class.cools_registry_down() && !kept.leases.is_empty(),
            Outcome::Interrupted => !kept.leases.is_empty(),
            Outcome::Pulled { .. } => false,
        };
        if !matches!(outcome, Outcome::BrokeOff(_)) {
            // the next one is another attempt
            kept.took = Duration::ZERO;
        }
        kept.leases.extend(own);
        if stays {
            self.kept.insert(key, kept);
        } else {
            self.let_all_go(kept);
        }
    }

    /// Lets go of a lease. It ends by itself if it cannot be ended now.
    pub(super) fn let_go(&mut self, lease: Lease) {
        self.beside(async move {
            let _ = timeout(FAREWELL, lease.runtime.release(&lease.id)).await;
        });
    }

    /// Does something about leases that nobody waits for before the end.
    pub(super) fn beside(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        while self.leaving.try_join_next().is_some() {}
        self.leaving.spawn(work);
    }

    /// Whose connection a lease that is kept is on; none if nothing is kept.
    pub(super) fn runtime(&self) -> Option<Runtime> {
        self.kept.values().flat_map(|kept| &kept.leases).next().map(|lease| lease.runtime.clone())
    }

    /// Lets go of what no pull will go on from: the image is there or no longer wanted, all pulls wait for the space that is
    /// kept, or the first lease has ended.
    pub(super) fn tidy(&mut self, stock: &Stock, now: Moment) {
        if self.kept.is_empty() {
            return;
        }
        let full = stock.disk_stop(now).is_some();
        let now = Instant::now();
        let over = |key: &TargetKey, kept: &mut Kept| {
            let may = stock.find(key).is_some_and(|index| may_go_on(stock.target(index).1, full));
            !may || kept.leases.iter().any(|lease| lease.until <= now)
        };
        let over: Vec<Kept> = self.kept.extract_if(over).map(|(_, kept)| kept).collect();
        for kept in over {
            self.let_all_go(kept);
        }
    }

    /// Lets go of all leases of an image.
    pub(super) fn let_all_go(&mut self, kept: Kept) {
        for lease in kept.leases {
            self.let_go(lease);
        }
    }

    /// Lets go of everything, and waits for it as long as the bound allows.
    pub(super) async fn end(&mut self, bound: Duration) {
        let all: Vec<Kept> = self.kept.drain().map(|(_, kept)| kept).collect();
        for kept in all {
            self.let_all_go(kept);
        }
        let _ = timeout(bound, async { while self.leaving.join_next().await.is_some() {} }).await;
    }
}

/// Whether another pull of the image comes, for which its bytes are worth their space on a disk that is full, or is not.
fn may_go_on(state: &ImageState, full: bool) -> bool {
    match state {
        ImageState::Pulling { .. } => true,
        ImageState::Pending { .. } | ImageState::BackOff { .. } => !full,
        ImageState::Present { .. }
        | ImageState::Missing { .. }
        | ImageState::Invalid { .. }
        | ImageState::NotForThisNode => false,
    }
}
