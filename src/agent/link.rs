//! The link to the runtime: found, kept, and found again.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    retries::Retries,
    runtime::{self, Endpoint, Observer, Runtime, RuntimeError},
};

/// The kubelet's own delays for the same socket.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(3);
/// A runtime that hangs up sooner than this flaps: it is left alone for longer and longer.
const STABLE: Duration = Duration::from_secs(10);
const LONGEST_FLAP: Duration = Duration::from_secs(30);

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
    let delays = |longest| Retries::new(FIRST_DELAY, longest);
    let mut flaps = delays(LONGEST_FLAP);
    loop {
        let mut waits = delays(LONGEST_DELAY);
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
            sleep(waits.delay()).await;
        };
        let mut closed = runtime.closed();
        if events.send(LinkEvent::Up(Box::new(runtime))).await.is_err() {
            return;
        }
        let since = Instant::now();
        closed.wait().await;
        if since.elapsed() >= STABLE {
            flaps = delays(LONGEST_FLAP);
        }
        if events.send(LinkEvent::Down("the container runtime closed the connection".to_owned())).await.is_err() {
            return;
        }
        sleep(flaps.delay()).await;
    }
}

/// One try.
pub async fn connect(endpoint: Option<&Endpoint>, observer: &Observer) -> Result<Runtime, String> {
    match endpoint {
        Some(endpoint) => Runtime::connect(endpoint, observer.clone()).await.map_err(|e: RuntimeError| e.to_string()),
        None => runtime::find_among(&runtime::endpoint::USUAL, observer).await.map_err(|found| match found.as_slice() {
            [] => format!(
                "there is no container runtime at any of {}; name its socket with --runtime-endpoint, and see that its folder is mounted",
                runtime::endpoint::USUAL.join(", ")
            ),
            reasons => format!("no container runtime answers: {}", reasons.join("; ")),
        }),
    }
}
