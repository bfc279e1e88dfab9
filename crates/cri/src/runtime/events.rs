//! What containerd tells about images, as it happens.

use prost::Message as _;
use tonic::{Code, Status, Streaming};

use super::{
    Runtime,
    content::{NAMESPACE, in_namespace},
};
use crate::containerd::events::{Envelope, ImageEvent, SubscribeRequest, events_client::EventsClient};

/// Something that happened to an image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    /// A name is there now, or names something else.
    Named(String),
    /// A name is gone.
    Gone(String),
}

/// The events of one subscription.
#[derive(Debug)]
pub struct StoreEvents(Streaming<Envelope>);

impl Runtime {
    /// Subscribes to what happens to images.
    pub async fn store_events(&self) -> Result<StoreEvents, Status> {
        let topics = ["/images/create", "/images/update", "/images/delete"];
        let filters = topics.map(|topic| format!("topic=={topic:?},namespace=={NAMESPACE:?}")).to_vec();
        let mut client = EventsClient::new(self.channel.clone());
        // there is no bound: some servers send their headers with the first event only
        Ok(StoreEvents(client.subscribe(in_namespace(SubscribeRequest { filters })).await?.into_inner()))
    }
}

impl StoreEvents {
    /// Waits for the next one. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<StoreEvent, Status> {
        loop {
            let Some(envelope) = self.0.message().await? else {
                return Err(Status::new(Code::Unavailable, "the subscription ended"));
            };
            if let Some(event) = event_of(&envelope) {
                return Ok(event);
            }
        }
    }
}

/// What an envelope tells about an image; none where it tells nothing that matters here.
pub fn event_of(envelope: &Envelope) -> Option<StoreEvent> {
    if envelope.namespace != NAMESPACE {
        return None;
    }
    let body = envelope.event.as_ref().map(|event| event.value.as_slice()).unwrap_or_default();
    let name = ImageEvent::decode(body).map(|event| event.name);
    match envelope.topic.as_str() {
        "/images/delete" => Some(StoreEvent::Gone(name.unwrap_or_default())),
        // one that cannot be read is one that says nothing
        "/images/create" | "/images/update" => name.ok().map(StoreEvent::Named),
        _ => None,
    }
}
