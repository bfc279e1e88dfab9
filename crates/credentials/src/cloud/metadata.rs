//! Metadata services: asked under a short limit until one has answered, so that nothing off a cloud waits on a dead
//! address.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::{
    answer::Answer,
    http::{Http, HttpError},
};

/// How long the first request to a metadata service may take.
pub(super) const DETECTION_LIMIT: Duration = Duration::from_secs(1);
/// How long a service that let the first request time out is not asked again.
const SILENT_FOR: Duration = Duration::from_mins(5);
/// How long one that refused the connection is not asked again. Shorter, because a refusal costs nothing, and on a node
/// that just started the agent in front of the metadata service may still be missing.
const REFUSED_FOR: Duration = Duration::from_secs(30);

/// A metadata service gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoService {
    /// It did not answer when it was first asked.
    #[error("no metadata service: {cause} (not asked again for {} s)", pause.as_secs())]
    Dead {
        /// What happened when it was asked.
        cause: HttpError,
        /// How long it is left alone from then on.
        pause: Duration,
    },
    /// It has answered before and does not now.
    #[error("the metadata service broke off: {0}")]
    Broken(HttpError),
}

#[derive(Default)]
enum State {
    /// Not asked yet, or it broke after it had answered.
    #[default]
    Unknown,
    /// It has answered, whatever the answer was.
    Alive,
    /// It has not, and is left alone until then.
    Dead { since: Timestamp, until: Timestamp, error: NoService },
}

/// What is known about one metadata service.
#[derive(Default)]
pub(super) struct Guard {
    // a lock because every caller must wait for the one that finds out
    state: Mutex<State>,
}

impl Guard {
    /// Sends a request, under [`DETECTION_LIMIT`] while it is not known whether the service is there, and not at all
    /// while it is known that it is not.
    pub(super) async fn ask(&self, http: &Http, now: Timestamp, request: Request<Bytes>) -> Result<Answer, NoService> {
        let mut state = self.state.lock().await;
        if let State::Dead { since, until, error } = &*state {
            // a clock that was set back must not keep a service dead
            if (*since..*until).contains(&now) {
                return Err(error.clone());
            }
        }
        if matches!(*state, State::Alive) {
            drop(state);
            let answer = http.send(request).await;
            if answer.is_err() {
                *self.state.lock().await = State::Unknown;
            }
            return answer.map_err(NoService::Broken);
        }
        match http.send_within(DETECTION_LIMIT, request).await {
            Ok(answer) => {
                *state = State::Alive;
                Ok(answer)
            }
            Err(cause) => {
                let pause = if matches!(cause, HttpError::Silent { .. }) { SILENT_FOR } else { REFUSED_FOR };
                let error = NoService::Dead { cause, pause };
                *state = State::Dead { since: now, until: now + pause, error: error.clone() };
                Err(error)
            }
        }
    }

    /// As [`Guard::ask`] for a service that takes long to answer what is wanted of it: asks something quick first, once.
    pub(super) async fn detect(&self, http: &Http, now: Timestamp, quick: Request<Bytes>) -> Result<(), NoService> {
        if matches!(*self.state.lock().await, State::Alive) {
            return Ok(());
        }
        self.ask(http, now, quick).await.map(drop)
    }
}
