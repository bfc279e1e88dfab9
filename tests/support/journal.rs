//! What a CRI server was asked for, by whom, when, and how many pulls ran at once.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use prepull::{
    cri::{
        AuthConfig, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest,
        RemoveImageRequest, StatusRequest, VersionRequest,
    },
    image_ref::ImageRef,
};
use tokio::{sync::watch, time::Instant};
use tonic::{Code, Response, Status};

/// The calls of our part of CRI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    Version,
    Status,
    ListImages,
    ImageStatus,
    PullImage,
    RemoveImage,
    ImageFsInfo,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered,
    /// With an error.
    Failed(Code, String),
    /// The client went away, or its deadline passed.
    Cancelled,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    id: u64,
    /// Which.
    pub method: Method,
    /// The image as it stood in the request; empty where a call names none.
    pub image: String,
    /// The runtime handler in the request.
    pub runtime_handler: String,
    /// The credential in the request. Test passwords only: a test may print it.
    pub login: Option<Login>,
    /// When it came.
    pub started: Instant,
    /// When and how it ended.
    pub ended: Option<(Instant, Outcome)>,
}

impl Call {
    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.ended.as_ref().map(|(_, outcome)| outcome)
    }

    /// How long it took, if it has ended.
    pub fn took(&self) -> Option<Duration> {
        self.ended.as_ref().map(|(end, _)| *end - self.started)
    }
}

/// CRI's `AuthConfig`, open to comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: String,
    pub auth: String,
    pub server_address: String,
    pub identity_token: String,
    pub registry_token: String,
}

impl From<&AuthConfig> for Login {
    fn from(auth: &AuthConfig) -> Self {
        Self {
            username: auth.username.clone(),
            password: auth.password.clone(),
            auth: auth.auth.clone(),
            server_address: auth.server_address.clone(),
            identity_token: auth.identity_token.clone(),
            registry_token: auth.registry_token.clone(),
        }
    }
}

/// What a journal wants to know of a request.
pub trait Described {
    /// The image, where there is one.
    fn image(&self) -> Option<&ImageSpec> {
        None
    }

    /// The credential, where there is one.
    fn auth(&self) -> Option<&AuthConfig> {
        None
    }
}

impl Described for VersionRequest {}
impl Described for StatusRequest {}
impl Described for ImageFsInfoRequest {}

impl Described for ListImagesRequest {
    fn image(&self) -> Option<&ImageSpec> {
        self.filter.as_ref()?.image.as_ref()
    }
}

impl Described for ImageStatusRequest {
    fn image(&self) -> Option<&ImageSpec> {
        self.image.as_ref()
    }
}

impl Described for RemoveImageRequest {
    fn image(&self) -> Option<&ImageSpec> {
        self.image.as_ref()
    }
}

impl Described for PullImageRequest {
    fn image(&self) -> Option<&ImageSpec> {
        self.image.as_ref()
    }

    fn auth(&self) -> Option<&AuthConfig> {
        self.auth.as_ref()
    }
}

/// The journal at one moment.
#[derive(Debug, Default)]
pub struct Pages {
    /// All calls in the order in which they came.
    pub calls: Vec<Call>,
    begun: u64,
}

impl Pages {
    /// The calls of one method.
    pub fn of(&self, method: Method) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| call.method == method)
    }

    /// How many pulls run now.
    pub fn pulling(&self) -> usize {
        self.of(Method::PullImage).filter(|call| call.ended.is_none()).count()
    }

    /// How many pulls ever ran at once.
    pub fn most_pulling(&self) -> usize {
        most_at_once(self.of(Method::PullImage))
    }

    /// How many pulls from one registry ever ran at once.
    pub fn most_pulling_from(&self, registry: &str) -> usize {
        most_at_once(self.of(Method::PullImage).filter(|call| registry_of(&call.image) == registry))
    }
}

/// A client that gives a call up may make the next one at once, and a server hears of both in no order.
const HEARD_OF_LATE: Duration = Duration::from_millis(50);

/// The most calls that ran at one moment.
fn most_at_once<'a>(calls: impl Iterator<Item = &'a Call>) -> usize {
    let mut changes = Vec::new();
    for call in calls {
        let ended = call.ended.as_ref().map(|(end, outcome)| match outcome {
            Outcome::Cancelled => call.started.max(end.checked_sub(HEARD_OF_LATE).unwrap_or(*end)),
            Outcome::Answered | Outcome::Failed(..) => *end,
        });
        changes.push((call.started, 1));
        changes.extend(ended.map(|end| (end, -1)));
    }
    // where one ends as another begins, the end is first
    changes.sort_unstable();
    let mut now = 0;
    let most = changes.iter().map(|(_, change)| {
        now += change;
        now
    });
    usize::try_from(most.max().unwrap_or(0)).unwrap_or(0)
}

/// A journal that a server writes and a test reads; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<watch::Sender<Pages>>);

impl Journal {
    /// Reads it as it is now.
    pub fn read<T>(&self, look: impl FnOnce(&Pages) -> T) -> T {
        look(&self.0.borrow())
    }

    /// A copy of the calls of one method.
    pub fn calls(&self, method: Method) -> Vec<Call> {
        self.read(|pages| pages.of(method).cloned().collect())
    }

    /// How many calls of one method there were.
    pub fn count(&self, method: Method) -> usize {
        self.read(|pages| pages.of(method).count())
    }

    /// Waits until the journal says so.
    pub async fn wait_until(&self, patience: Duration, is: impl FnMut(&Pages) -> bool) -> Result<()> {
        let mut pages = self.0.subscribe();
        tokio::time::timeout(patience, pages.wait_for(is))
            .await
            .with_context(|| format!("the calls did not become so within {patience:?}"))?
            .context("the journal has ended")?;
        Ok(())
    }

    /// Forgets what is over; calls that still run are kept.
    pub fn clear(&self) {
        self.0.send_modify(|pages| pages.calls.retain(|call| call.ended.is_none()));
    }

    /// Writes that a call came.
    pub fn begin(&self, method: Method, request: &impl Described) -> Entry {
        let spec = request.image().cloned().unwrap_or_default();
        let mut call = Call {
            id: 0,
            method,
            image: spec.image,
            runtime_handler: spec.runtime_handler,
            login: request.auth().map(Login::from),
            started: Instant::now(),
            ended: None,
        };
        let mut id = 0;
        self.0.send_modify(|pages| {
            id = pages.begun;
            pages.begun += 1;
            call.id = id;
            pages.calls.push(call);
        });
        Entry { journal: self.clone(), id, outcome: Outcome::Cancelled }
    }
}

/// A call that runs. Dropped before it was told how the call ended, it writes that the client went away.
#[derive(Debug)]
pub struct Entry {
    journal: Journal,
    id: u64,
    outcome: Outcome,
}

impl Entry {
    /// Writes how the call ended.
    pub fn end<T>(mut self, result: &Result<Response<T>, Status>) {
        self.outcome = match result {
            Ok(_) => Outcome::Answered,
            Err(status) => Outcome::Failed(status.code(), status.message().to_owned()),
        };
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.journal.0.send_modify(|pages| {
            if let Some(call) = pages.calls.iter_mut().rfind(|call| call.id == self.id) {
                call.ended = Some((Instant::now(), self.outcome.clone()));
            }
        });
    }
}

/// The registry of an image's name; the whole text where it is no name.
pub fn registry_of(image: &str) -> String {
    ImageRef::parse(image).map_or_else(|_| image.to_owned(), |parsed| parsed.registry().to_string())
}
