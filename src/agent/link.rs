//! The link to the runtime: found, kept, and found again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use tokio::{sync::mpsc, time::sleep};

use crate::runtime::{self, Endpoint, Observer, Runtime, RuntimeError};

/// The kubelet's own delays for the same socket.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// What happened to the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// The runtime answers.
    Up(Box<Runtime>),
    /// It does not, or no longer; the reason in one clause.
    Down(String),
}

/// Connects, and connects again whenever the connection ends. Ends when nobody listens.
pub async fn keep_linked(endpoint: Option<Endpoint>, observer: Observer, events: mpsc::Sender<LinkEvent>) {
    let delays = ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LONGEST_DELAY)
        .with_jitter()
        .without_max_times();
    loop {
        let mut waits = delays.build();
        let mut told = None;
        let runtime = loop {
            match connect(endpoint.as_ref(), &observer).await {
                Ok(runtime) => break runtime,
                Err(reason) => {
                    if told.as_ref() != Some(&reason) {
                        if events.send(LinkEvent::Down(reason.clone())).await.is_err() {
                            return;
                        }
                        told = Some(reason);
                    }
                }
            }
            sleep(waits.next().unwrap_or(LONGEST_DELAY)).await;
        };
        let mut closed = runtime.closed();
        if events.send(LinkEvent::Up(Box::new(runtime))).await.is_err() {
            return;
        }
        closed.wait().await;
        if events.send(LinkEvent::Down("the container runtime closed the connection".to_owned())).await.is_err() {
            return;
        }
    }
}

/// One try.
pub async fn connect(endpoint: Option<&Endpoint>, observer: &Observer) -> Result<Runtime, String> {
    match endpoint {
        Some(endpoint) => Runtime::connect(endpoint, observer.clone()).await.map_err(|e: RuntimeError| e.to_string()),
        None => runtime::find_among(&runtime::endpoint::USUAL, observer).await.ok_or_else(|| {
            format!(
                "no container runtime answers at any of {}; name its socket with --runtime-endpoint",
                runtime::endpoint::USUAL.join(", ")
            )
        }),
    }
}
