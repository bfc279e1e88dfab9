//! Pins images by containerd's own image service, which answers at the socket of CRI. What is done is decided by
//! [`prepull_core::pins`]; here records are read and written, and CRI is asked whether it makes a difference.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status, metadata::MetadataValue};

use super::{MAX_MESSAGE_BYTES, Runtime, bounded};
use crate::{
    containerd::images::{
        Descriptor, FieldMask, Image as WireImage, ListImagesRequest, UpdateImageRequest, images_client::ImagesClient,
    },
    cri::ImageSpec,
};
use prepull_core::pins::{self, Change, LeftOut, OURS, PINNED, Pinning, Record, Step};

/// containerd's namespace of everything that CRI shows.
const NAMESPACE: &str = "k8s.io";
/// From so many images on, all records are read instead of those of each: the filters are tried on every record.
const MOST_FILTERED: usize = 64;
/// CRI hears of a changed record by an event, within milliseconds here. After this long it has not taken notice in this
/// round.
pub const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// Between two questions whether it has.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What one round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pinned {
    /// Whether any record changed, so that the store is to be looked at again.
    pub changed: bool,
    /// Whether the runtime was seen to honour the label in this round; none where nothing was there to see it by.
    pub honoured: Option<bool>,
    /// Whether records of this agent's are left.
    pub ours_left: bool,
    /// What did not fit.
    pub left_out: Vec<LeftOut>,
}

impl Runtime {
    /// Brings the records to what `pinning` asks for. Where the runtime is not seen to honour the label, the round ends
    /// there; where it is known not to, nothing is left of the label. The error is `Unimplemented` where this is not containerd.
    pub async fn pin(&self, pinning: &Pinning, honoured: Option<bool>) -> Result<Pinned, Status> {
        let records = self.records(pinning).await?;
        if honoured == Some(false) {
            return self.without_pins(&records).await;
        }
        let plan = pins::plan(pinning, &records);
        let mut pinned = Pinned { changed: false, honoured, ours_left: plan.ours_left, left_out: plan.left_out };
        if pinned.honoured.is_none()
            && let Some(witness) = &plan.witness
        {
            pinned.honoured = self.shows_as_pinned(witness).await?;
        }
        for step in &plan.steps {
            if pinned.honoured == Some(false) {
                break;
            }
            self.carry_out(step).await?;
            pinned.changed = true;
            if let (Change::Pin(image), None) = (&step.change, pinned.honoured) {
                pinned.honoured = self.shows_as_pinned(image).await?;
            }
        }
        Ok(pinned)
    }

    /// Takes away every pin that this agent ever set. The error is `Unimplemented` where there can be none.
    pub async fn unpin_all(&self) -> Result<usize, Status> {
        let steps = pins::take_back(&self.records(&Pinning::default()).await?);
        for step in &steps {
            self.carry_out(step).await?;
        }
        Ok(steps.len())
    }

    async fn without_pins(&self, records: &[Record]) -> Result<Pinned, Status> {
        let steps = pins::take_back(records);
        for step in &steps {
            self.carry_out(step).await?;
        }
        Ok(Pinned { changed: !steps.is_empty(), honoured: Some(false), ours_left: false, left_out: Vec::new() })
    }

    /// Records that are pinned or carry this agent's label, and those of the images in question.
    async fn records(&self, pinning: &Pinning) -> Result<Vec<Record>, Status> {
        let request = in_namespace(ListImagesRequest { filters: filters(pinning) });
        let mut client = self.containerd();
        let images = bounded(client.list(request)).await?.into_inner().images;
        let sizes =
            if pinning.cap.is_some() && !pinning.wanted.is_empty() { self.sizes().await? } else { HashMap::new() };
        let record = |image: WireImage| {
            let size = sizes.get(&image.name).copied().unwrap_or_default();
            record_of(image, size)
        };
        Ok(images.into_iter().map(record).collect())
    }

    /// Bytes of every image, by each of its names.
    async fn sizes(&self) -> Result<HashMap<String, u64>, Status> {
        let mut sizes = HashMap::new();
        for image in self.list().await? {
            for name in image.repo_tags.into_iter().chain(image.repo_digests).chain([image.id]) {
                sizes.insert(name, image.size);
            }
        }
        Ok(sizes)
    }

    /// Changes both labels at once, so that there is never one without the other.
    async fn carry_out(&self, step: &Step) -> Result<(), Status> {
        let pins = matches!(step.change, Change::Pin(_));
        // containerd ends (a nil pointer, seen on 1.7 and 2.1) where the target is not sent, though the mask leaves it out
        let target = Some(Descriptor { digest: step.digest.clone(), ..Descriptor::default() });
        // an empty value removes a label
        let labels = [PINNED, OURS].map(|(label, value)| (label.to_owned(), if pins { value } else { "" }.to_owned()));
        let update = UpdateImageRequest {
            image: Some(WireImage { name: step.record.clone(), labels: labels.into(), target }),
            update_mask: Some(FieldMask { paths: [PINNED, OURS].map(|(label, _)| format!("labels.{label}")).to_vec() }),
        };
        let mut client = self.containerd();
        match bounded(client.update(in_namespace(update))).await {
            Ok(_) => Ok(()),
            // it went away meanwhile, and its pin with it
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Whether CRI comes to report an image as pinned whose record says so; none where the image has gone.
    async fn shows_as_pinned(&self, image: &str) -> Result<Option<bool>, Status> {
        let end = Instant::now() + NOTICED_WITHIN;
        loop {
            let spec = ImageSpec { image: image.to_owned(), ..ImageSpec::default() };
            match self.status(spec).await? {
                None => return Ok(None),
                Some(found) if found.pinned => return Ok(Some(true)),
                Some(_) if Instant::now() >= end => return Ok(Some(false)),
                Some(_) => sleep(ASK_AGAIN).await,
            }
        }
    }

    fn containerd(&self) -> ImagesClient<tonic::transport::Channel> {
        ImagesClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}

/// What containerd is to select; nothing selects everything.
fn filters(pinning: &Pinning) -> Vec<String> {
    if pinning.wanted.len() + pinning.held.len() > MOST_FILTERED {
        return Vec::new();
    }
    let labels = [PINNED, OURS].map(|(label, _)| format!("labels.{label:?}"));
    let names = pinning.wanted.iter().map(|w| &w.name).chain(&pinning.held).map(|name| format!("name=={name:?}"));
    // an image whose pull was cut off at the last moment has no `repository@digest`: then CRI knows it by its ID alone,
    // which is the name of a record
    let digests = pinning.wanted.iter().flat_map(|w| ["target.digest", "name"].map(|f| format!("{f}=={:?}", w.digest)));
    labels.into_iter().chain(names).chain(digests).collect()
}

/// What matters of a record of containerd's, with the size that CRI gives it.
pub fn record_of(image: WireImage, size: u64) -> Record {
    let has = |(label, value): (&str, Option<&str>)| {
        image.labels.get(label).is_some_and(|found| value.is_none_or(|value| found == value))
    };
    Record {
        pinned: has((PINNED.0, Some(PINNED.1))),
        ours: has((OURS.0, None)),
        size,
        digest: image.target.unwrap_or_default().digest,
        name: image.name,
    }
}
