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
    image_state::{ImageState, Wait},
    progress::{LeaseId, Offsets},
    runtime::Runtime,
    stock::Stock,
};

/// A lease in a runtime.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) runtime: Runtime,
    pub(super) id: LeaseId,
    /// When it ends by itself, at the earliest.
    pub(super) until: Instant,
}

/// What a download that broke off left behind.
pub(super) struct Kept {
    pub(super) lease: Lease,
    /// How far its blobs are that are not complete.
    pub(super) offsets: Offsets,
    /// When the attempt began that goes on; none where the next one is another attempt.
    pub(super) began: Option<Moment>,
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

    pub(super) fn take(&mut self, key: &TargetKey) -> Option<Kept> {
        self.kept.remove(key)
    }

    pub(super) fn keep(&mut self, key: TargetKey, kept: Kept) {
        self.kept.insert(key, kept);
    }

    /// Lets go of a lease. It ends by itself if it cannot be ended now.
    pub(super) fn let_go(&mut self, lease: Lease) {
        while self.leaving.try_join_next().is_some() {}
        self.leaving.spawn(async move {
            let _ = timeout(FAREWELL, lease.runtime.release(&lease.id)).await;
        });
    }

    /// Lets go of what no pull will go on from: the image is there or no longer wanted, or waits for the space that is kept; or
    /// the lease has ended.
    pub(super) fn tidy(&mut self, stock: &Stock) {
        if self.kept.is_empty() {
            return;
        }
        let now = Instant::now();
        let over = |key: &TargetKey, kept: &mut Kept| {
            let wanted = stock.find(key).is_some_and(|index| may_go_on(stock.target(index).1));
            !wanted || kept.lease.until <= now
        };
        let over: Vec<Kept> = self.kept.extract_if(over).map(|(_, kept)| kept).collect();
        over.into_iter().for_each(|kept| self.let_go(kept.lease));
    }

    /// Lets go of everything, and waits for it as long as the bound allows.
    pub(super) async fn end(&mut self, bound: Duration) {
        let all: Vec<Kept> = self.kept.drain().map(|(_, kept)| kept).collect();
        all.into_iter().for_each(|kept| self.let_go(kept.lease));
        let _ = timeout(bound, async { while self.leaving.join_next().await.is_some() {} }).await;
    }
}

/// Whether another pull of the image comes, for which its bytes are worth their space.
fn may_go_on(state: &ImageState) -> bool {
    match state {
        ImageState::Pulling { .. } | ImageState::BackOff { .. } => true,
        ImageState::Pending { why, .. } => *why != Wait::Disk,
        ImageState::Present { .. }
        | ImageState::Missing { .. }
        | ImageState::Invalid { .. }
        | ImageState::NotForThisNode => false,
    }
}
