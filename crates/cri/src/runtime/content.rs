//! containerd's own services on the same socket: what its content store holds of running pulls.
//!
//! Other runtimes answer Unimplemented. That is asked once for each connection.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use super::Runtime;
use crate::containerd::{
    content::{InfoRequest, ListStatusesRequest, ReadContentRequest, content_client::ContentClient},
    leases::{ListResourcesRequest, leases_client::LeasesClient},
};
use prepull_core::{
    image_ref::Digest,
    progress::{
        Ingest, Leased, RuntimeTime, Sample,
        catalogue::{Blob, Catalogue, Question},
        document::MOST_BYTES,
    },
};

/// The namespace in which containerd's CRI keeps images.
pub(super) const NAMESPACE: &str = "k8s.io";
/// Bound of one call: all of them read from a local database.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Questions about blobs that are under way at once.
const MOST_AT_ONCE: usize = 8;
/// Rounds of questions of one sample: index, manifest, what it names.
const MOST_ROUNDS: usize = 4;

impl Runtime {
    /// Whether the runtime is one that tells how far downloads are. An error says nothing about that.
    pub async fn tells_progress(&self) -> Result<bool, Status> {
        let ask = async || match self.ingests(&["ref==prepull"]).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::Unimplemented => Ok(false),
            Err(status) => Err(status),
        };
        self.tells_progress.get_or_try_init(ask).await.copied()
    }

    /// What the store says about some leases, each under the number of its pull. `known` is what earlier samples taught.
    pub async fn sample(&self, leases: &[(u64, String)], known: Catalogue) -> Result<Sample, Status> {
        // ingests first: what is complete by then is found among the blobs, so nothing is missed in between
        let mut sample = Sample { ingests: self.ingests(&[]).await?, catalogue: known, ..Sample::default() };
        for (number, id) in leases {
            if let Some(leased) = self.leased(id).await? {
                sample.leases.insert(*number, leased);
            }
        }
        let mut asked = HashSet::new();
        for _ in 0..MOST_ROUNDS {
            let questions = sample.catalogue.questions(&sample.leases, &sample.ingests, &asked);
            if questions.is_empty() {
                break;
            }
            for question in questions {
                match question {
                    Question::Stored(digest) => {
                        asked.insert(digest.clone());
                        if let Some(blob) = self.blob(&digest).await? {
                            sample.catalogue.learn_stored(digest, blob);
                        }
                    }
                    Question::Content(digest) => {
                        let bytes = self.content(&digest).await?;
                        sample.catalogue.learn_content(digest, &bytes);
                    }
                }
            }
        }
        sample.catalogue.retain(&sample.leases);
        Ok(sample)
    }

    /// What a pull that has ended brought, under its number: as little is asked as its bytes can be counted by, because the node may be
    /// busy with the next pulls.
    pub async fn brought(&self, number: u64, lease: &str, ended_well: bool) -> Result<Sample, Status> {
        // one that ended well leaves no ingests; otherwise they come first, as in a sample
        let ingests = if ended_well { HashMap::new() } else { self.ingests(&[]).await? };
        let mut sample = Sample { ingests, ..Sample::default() };
        let Some(leased) = self.leased(lease).await? else { return Ok(sample) };
        let asked = leased.blobs.iter().cloned().map(|digest| async move {
            let blob = self.blob(&digest).await?;
            Ok::<_, Status>(blob.map(|blob| (digest, blob)))
        });
        let blobs: Vec<_> = stream::iter(asked).buffer_unordered(MOST_AT_ONCE).try_collect().await?;
        for (digest, blob) in blobs.into_iter().flatten() {
            sample.catalogue.learn_stored(digest, blob);
        }
        sample.leases.insert(number, leased);
        Ok(sample)
    }

    async fn ingests(&self, filters: &[&str]) -> Result<HashMap<Digest, Ingest>, Status> {
        let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
        let mut client = ContentClient::new(self.channel.clone()).max_decoding_message_size(super::MAX_MESSAGE_BYTES);
        let answer = bounded(client.list_statuses(in_namespace(ListStatusesRequest { filters }))).await?;
        let ingest = |status: crate::containerd::content::Status| {
            let started = status.started_at.unwrap_or_default();
            let ingest = Ingest {
                offset: u64::try_from(status.offset).unwrap_or(0),
                total: u64::try_from(status.total).unwrap_or(0),
                started: time(started.seconds, started.nanos),
            };
            Some((digest_of(&status.r#ref)?, ingest))
        };
        Ok(answer.into_inner().statuses.into_iter().filter_map(ingest).collect())
    }

    /// What a lease holds; none where there is no such lease.
    async fn leased(&self, id: &str) -> Result<Option<Leased>, Status> {
        let mut client = LeasesClient::new(self.channel.clone()).max_decoding_message_size(super::MAX_MESSAGE_BYTES);
        let answer = bounded(client.list_resources(in_namespace(ListResourcesRequest { id: id.to_owned() }))).await;
        let resources = match answer {
            Ok(answer) => answer.into_inner().resources,
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(status),
        };
        let mut leased = Leased::default();
        for resource in resources {
            match resource.r#type.as_str() {
                "content" => leased.blobs.extend(Digest::parse(&resource.id).ok()),
                "ingests" => leased.ingests.extend(digest_of(&resource.id)),
                // snapshots
                _ => {}
            }
        }
        Ok(Some(leased))
    }

    async fn blob(&self, digest: &Digest) -> Result<Option<Blob>, Status> {
        let mut client = ContentClient::new(self.channel.clone());
        match bounded(client.info(in_namespace(InfoRequest { digest: digest.to_string() }))).await {
            Ok(answer) => Ok(answer.into_inner().info.map(|info| {
                let created = info.created_at.unwrap_or_default();
                Blob { size: u64::try_from(info.size).unwrap_or(0), created: time(created.seconds, created.nanos) }
            })),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// A document, cut off behind what one may have.
    async fn content(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let mut client = ContentClient::new(self.channel.clone()).max_decoding_message_size(super::MAX_MESSAGE_BYTES);
        let request = ReadContentRequest { digest: digest.to_string(), offset: 0, size: 0 };
        bounded(async {
            let mut stream = match client.read(in_namespace(request)).await {
                Ok(answer) => answer.into_inner(),
                Err(status) if status.code() == Code::NotFound => return Ok(Vec::new()),
                Err(status) => return Err(status),
            };
            let mut bytes = Vec::new();
            while let Some(piece) = stream.message().await? {
                bytes.extend_from_slice(&piece.data);
                if bytes.len() as u64 > MOST_BYTES {
                    break;
                }
            }
            Ok(bytes)
        })
        .await
    }
}

/// The digest that an ingest's name has behind the kind of what it is, as in `layer-sha256:…`.
fn digest_of(name: &str) -> Option<Digest> {
    let text = name.split_once('-').map_or(name, |(_, digest)| digest);
    Digest::parse(text).ok()
}

/// Time since 1970.
pub(super) fn time(seconds: i64, nanos: i32) -> RuntimeTime {
    Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0).min(999_999_999))
}

pub(super) fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    request
}

pub(super) async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("containerd did not answer within {} s", CALL_TIMEOUT.as_secs())))
    })
}
