//! Leases of pulls in containerd, and what becomes of those whose process was killed.
//!
//! containerd cannot change the expiry of a lease, and a pull whose lease has ended fails. So the lease of a pull lasts as
//! long as its `pullTimeout` allows, which may be a year, and a process that is killed leaves it behind. Every lease says which
//! process made it, and a process that has leases makes one at least every [`MARK_AFTER`]. If the newest lease of a process is
//! older than [`STALE_AFTER`], the process is gone, and any other one may remove its leases. Until then the next pull of
//! the same image goes on from the partial download that the lease keeps.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use tonic::{Code, Status};

use super::{
    Runtime,
    content::{bounded, in_namespace, time},
};
use crate::containerd::leases::{CreateRequest, DeleteRequest, Lease, ListRequest, leases_client::LeasesClient};
use prepull_core::progress::RuntimeTime;

/// When a process that has leases but made none for so long makes one that keeps nothing.
pub const MARK_AFTER: Duration = Duration::from_mins(20);
/// When the leases of a process that made no other since are stale.
pub const STALE_AFTER: Duration = Duration::from_hours(1);
/// Most stale leases that are removed at a time; the others are removed the next time.
pub const MAX_REMOVED_LEASES: usize = 1000;

/// The label that names the process.
const INSTANCE: &str = "prepull.dev/instance";
/// The label that names the image, for people who look at what a lease keeps.
const IMAGE: &str = "prepull.dev/image";
/// The label by which containerd ends a lease.
const EXPIRY: &str = "containerd.io/gc.expire";
/// containerd allows 4,096 bytes for a label's key and value together.
const MAX_LABEL_BYTES: usize = 2048;

impl Runtime {
    /// Makes a lease of a process that ends by itself after a time, and says when it was made. It belongs to the pull of
    /// `image`, or to none.
    pub async fn lease(
        &self,
        id: &str,
        instance: &str,
        image: Option<&str>,
        lasts: Duration,
    ) -> Result<RuntimeTime, Status> {
        let end = jiff::Timestamp::try_from(SystemTime::now() + lasts).unwrap_or(jiff::Timestamp::MAX);
        let mut labels =
            HashMap::from([(EXPIRY.to_owned(), format!("{end:.0}")), (INSTANCE.to_owned(), instance.to_owned())]);
        if let Some(image) = image.filter(|image| image.len() <= MAX_LABEL_BYTES) {
            labels.insert(IMAGE.to_owned(), image.to_owned());
        }
        let mut client = LeasesClient::new(self.channel.clone());
        let call = client.create(in_namespace(CreateRequest { id: id.to_owned(), labels }));
        let made = bounded(call).await?.into_inner().lease.as_ref().map(created).unwrap_or_default();
        Ok(made)
    }

    /// Lets go of what only a lease keeps.
    pub async fn release(&self, id: &str) -> Result<(), Status> {
        let mut client = LeasesClient::new(self.channel.clone());
        bounded(client.delete(in_namespace(DeleteRequest { id: id.to_owned(), sync: false }))).await?;
        Ok(())
    }

    /// Removes the leases of processes that are gone, but none of this `instance`, and says how many. `now` is the time since
    /// the Unix epoch.
    pub async fn remove_stale_leases(&self, instance: &str, now: RuntimeTime) -> Result<usize, Status> {
        let mut client = LeasesClient::new(self.channel.clone()).max_decoding_message_size(super::MAX_MESSAGE_BYTES);
        let filters = vec![format!("labels.\"{INSTANCE}\"")];
        let answer = bounded(client.list(in_namespace(ListRequest { filters }))).await?.into_inner();
        let stale = stale(&answer.leases, instance, now);
        for id in &stale {
            match self.release(id).await {
                Ok(()) => {}
                // another process was faster
                Err(status) if status.code() == Code::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        Ok(stale.len())
    }
}

fn created(lease: &Lease) -> RuntimeTime {
    let at = lease.created_at.unwrap_or_default();
    time(at.seconds, at.nanos)
}

/// The leases of other processes whose newest one is too old.
fn stale<'a>(leases: &'a [Lease], own: &str, now: RuntimeTime) -> Vec<&'a str> {
    let mut processes: BTreeMap<&str, (RuntimeTime, Vec<&str>)> = BTreeMap::new();
    for lease in leases {
        let Some(instance) = lease.labels.get(INSTANCE).filter(|instance| *instance != own) else { continue };
        let (newest, ids) = processes.entry(instance).or_default();
        *newest = created(lease).max(*newest);
        ids.push(&lease.id);
    }
    let gone = processes.into_values().filter(|(newest, _)| now.saturating_sub(*newest) >= STALE_AFTER);
    gone.flat_map(|(_, ids)| ids).take(MAX_REMOVED_LEASES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containerd::leases::Timestamp;

    fn lease(id: &str, instance: Option<&str>, minute: i64) -> Lease {
        let labels = instance.map(|instance| (INSTANCE.to_owned(), instance.to_owned()));
        let created_at = Some(Timestamp { seconds: minute * 60, nanos: 0 });
        Lease { id: id.to_owned(), created_at, labels: labels.into_iter().collect() }
    }

    fn stale_at(leases: &[Lease], minute: u64) -> Vec<&str> {
        stale(leases, "own", Duration::from_mins(minute))
    }

    #[test]
    fn leases_are_stale_when_their_process_has_made_no_other_for_an_hour() {
        let leases = [
            lease("dead-1", Some("dead"), 0),
            lease("dead-2", Some("dead"), 30),
            // a pull of many hours, and the mark that its process made last
            lease("alive-1", Some("alive"), 0),
            lease("alive-mark", Some("alive"), 80),
            lease("own-1", Some("own"), 0),
            lease("of-somebody-else", None, 0),
        ];
        assert_eq!(stale_at(&leases, 89), [""; 0]);
        assert_eq!(stale_at(&leases, 90), ["dead-1", "dead-2"]);
        assert_eq!(stale_at(&leases, 140), ["alive-1", "alive-mark", "dead-1", "dead-2"]);
        // a clock that went back
        assert_eq!(stale_at(&leases, 10), [""; 0]);
    }

    #[test]
    fn so_many_are_removed_at_a_time() {
        let of = |count: usize| (0..count).map(|n| lease(&n.to_string(), Some("dead"), 0)).collect::<Vec<_>>();
        for (count, removed) in [(999, 999), (1000, 1000), (1001, 1000)] {
            assert_eq!(stale_at(&of(count), 100).len(), removed);
        }
    }
}
