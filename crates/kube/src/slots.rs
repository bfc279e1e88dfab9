//! The slots of `pullingNodes`: Leases `prepull-slot-0` and so on in the agent's namespace, which exist before anybody
//! wants one. Carries out what [`prepull_core::budget`] asks for, one request at a time, and decides nothing.

use std::time::{Duration, SystemTime};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::mpsc, time::timeout};

use super::{messages::News, watch::Trouble};
use prepull_core::budget::{Answer, Ask, EXPIRY};

/// Well below the time for which a renewal is good.
const ANSWER_BOUND: Duration = Duration::from_secs(10);

/// The name of a slot.
pub fn name(slot: u32) -> String {
    format!("prepull-slot-{slot}")
}

/// Answers requests until no more come.
pub async fn run(
    client: Client,
    namespace: String,
    node: String,
    mut asks: mpsc::Receiver<Ask>,
    news: mpsc::Sender<News>,
) {
    let mut slots = Slots::new(client, &namespace, node);
    while let Some(ask) = asks.recv().await {
        // the keeper has gone: nobody misses the answer
        if news.send(News::Slot(slots.answer(ask).await)).await.is_err() {
            return;
        }
    }
}

/// The slots, as one node sees them.
#[derive(Debug)]
pub struct Slots {
    leases: Api<Lease>,
    node: String,
    /// The slot as it was last read or written: what is written keeps what others wrote there.
    last: Option<Lease>,
}

impl Slots {
    /// Those of a namespace.
    pub fn new(client: Client, namespace: &str, node: String) -> Self {
        Self { leases: Api::namespaced(client, namespace), node, last: None }
    }

    /// Makes one request, and waits for its answer no longer than ten seconds.
    pub async fn answer(&mut self, ask: Ask) -> Answer {
        let answered = timeout(ANSWER_BOUND, self.request(ask)).await;
        let Ok(made) = answered else {
            return Answer::NoAnswer(format!("the API server did not answer within {} s", ANSWER_BOUND.as_secs()));
        };
        match made {
            Ok(Some(lease)) => {
                let version = lease.metadata.resource_version.clone().unwrap_or_default();
                let holder = holder(&lease).map(str::to_owned);
                self.last = Some(lease);
                Answer::Slot { version, holder }
            }
            Ok(None) => Answer::Conflict,
            Err(kube::Error::Api(status)) if status.code == 409 => Answer::Conflict,
            Err(kube::Error::Api(status)) if status.code == 404 => Answer::Missing,
            Err(error) => match Trouble::of_request(&error) {
                Trouble::Forbidden(why) => Answer::Forbidden(why),
                trouble @ Trouble::NoAnswer(_) => Answer::NoAnswer(trouble.to_string()),
            },
        }
    }

    /// None where what is to be written was read in another version.
    async fn request(&self, ask: Ask) -> Result<Option<Lease>, kube::Error> {
        let (slot, version, holds) = match ask {
            Ask::Look(slot) => return self.leases.get(&name(slot)).await.map(Some),
            Ask::Hold(slot, version) => (slot, version, true),
            Ask::Free(slot, version) => (slot, version, false),
        };
        let name = name(slot);
        let read = |lease: &&Lease| {
            lease.metadata.name.as_deref() == Some(&name) && lease.metadata.resource_version.as_ref() == Some(&version)
        };
        let Some(mut lease) = self.last.as_ref().filter(read).cloned() else { return Ok(None) };
        let before = lease.spec.take().unwrap_or_default();
        lease.spec = Some(if holds { held(before, &self.node) } else { free(before) });
        lease.metadata.managed_fields = None;
        self.leases.replace(&name, &PostParams::default(), &lease).await.map(Some)
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

/// The times are for people: no agent compares them with anything.
fn held(before: LeaseSpec, node: &str) -> LeaseSpec {
    let now = Timestamp::try_from(SystemTime::now()).ok().map(MicroTime);
    let same = before.holder_identity.as_deref() == Some(node);
    LeaseSpec {
        acquire_time: if same { before.acquire_time } else { now.clone() },
        lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!same))),
        holder_identity: Some(node.to_owned()),
        lease_duration_seconds: i32::try_from(EXPIRY.as_secs()).ok(),
        renew_time: now,
        ..before
    }
}

fn free(before: LeaseSpec) -> LeaseSpec {
    LeaseSpec { holder_identity: None, acquire_time: None, renew_time: None, lease_duration_seconds: None, ..before }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_says_who_holds_it_and_how_often_it_changed_hands() {
        let first = held(LeaseSpec::default(), "node-1");
        assert_eq!((first.holder_identity.as_deref(), first.lease_transitions), (Some("node-1"), Some(1)));
        let renewed = held(first.clone(), "node-1");
        assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(1), &first.acquire_time));
        assert_eq!(held(renewed, "node-2").lease_transitions, Some(2));
        let freed = free(first);
        assert_eq!((freed.holder_identity, freed.renew_time, freed.lease_transitions), (None, None, Some(1)));
    }
}
