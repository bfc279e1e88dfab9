//! Shows other processes that this one is alive, so that none takes its leases for those of a process that was killed; and
//! removes the leases of those. `runtime/leases` has the rule.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};
use tonic::Code;

use super::kept::{Keeping, Lease};
use crate::runtime::{
    Runtime,
    leases::{MARK_AFTER, STALE_AFTER},
};

/// The newest lease of this process, and the mark that it has in the runtime.
#[derive(Default)]
pub(super) struct Mark {
    newest: Option<Instant>,
    current: Option<Lease>,
    made: u64,
}

impl Mark {
    /// A lease of a pull was made.
    pub(super) fn leased(&mut self) {
        self.newest = Some(Instant::now());
    }

    /// Makes a mark if the newest lease is so old. A failure is made good by the next one, long before the leases are stale.
    pub(super) fn keep_fresh(&mut self, instance: &str, runtime: &Runtime, keeping: &mut Keeping) {
        if self.newest.is_none_or(|newest| newest.elapsed() < MARK_AFTER) {
            return;
        }
        let now = Instant::now();
        self.newest = Some(now);
        self.made += 1;
        let id = format!("{instance}-mark-{}", self.made);
        let lease = Lease { runtime: runtime.clone(), id: id.as_str().into(), until: now + STALE_AFTER };
        let before = self.current.replace(lease);
        let (runtime, instance) = (runtime.clone(), instance.to_owned());
        keeping.beside(async move {
            match runtime.lease(&id, &instance, None, STALE_AFTER).await {
                Ok(_) => {
                    if let Some(before) = before {
                        let _ = before.runtime.release(&before.id).await;
                    }
                }
                Err(status) => tracing::debug!(error = status.message(), "no mark: trying again later"),
            }
        });
    }

    /// Lets go of the mark when there are no leases any more.
    pub(super) fn end(&mut self, keeping: &mut Keeping) {
        self.newest = None;
        if let Some(lease) = self.current.take() {
            keeping.let_go(lease);
        }
    }
}

/// Removes the leases of processes that were killed, now and again, as long as the connection stands.
pub(super) async fn remove_stale(runtime: Runtime, instance: String) {
    loop {
        let now: Duration = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match runtime.remove_stale_leases(&instance, now).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed leases of prepull processes that were killed"),
            // no containerd
            Err(status) if status.code() == Code::Unimplemented => return,
            Err(status) => tracing::debug!(error = status.message(), "stale leases are not known; trying again later"),
        }
        sleep(MARK_AFTER).await;
    }
}
