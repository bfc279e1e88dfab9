//! A watch that says when it is lost and starts over by itself, with a back-off that is kind to an API server in need.
//!
//! kube's own watcher renews a watch that ended well, from where it was. Where it fails, this one lists again instead of
//! resuming, because that tells when the API server answers again although nothing changed; the list is of one object,
//! or of the few that a selector names.

use std::{fmt, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use kube::{
    Api, Resource,
    runtime::watcher::{self, Config, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until, timeout};

use prepull_core::{error_text::one_line, retries::Retries};

const FIRST_DELAY: Duration = Duration::from_millis(500);
/// With jitter up to twice this: thousands of nodes must not come at once.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// Somebody has to grant an absent right, which may take days, and what needs it is optional.
const LONGEST_REFUSAL: Duration = Duration::from_mins(1);
/// An API server that says nothing for so long does not answer.
const ANSWER_BOUND: Duration = Duration::from_secs(30);
/// A watch that stood so long was well: the next failure is a first one.
const STOOD_WELL: Duration = Duration::from_secs(30);

/// What a watch tells.
#[derive(Debug)]
pub enum Told<K> {
    /// Everything that is there now.
    All(Vec<K>),
    /// One object is new, or changed.
    Applied(K),
    /// One object is gone.
    Deleted(K),
    /// The watch is lost; it starts over by itself. Told once until it stands again, and again for another trouble.
    Lost(Trouble),
}

/// Why a watch is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A right is absent.
    Forbidden(String),
    /// Anything else.
    NoAnswer(String),
}

impl Trouble {
    fn of(error: &watcher::Error) -> Self {
        match error {
            watcher::Error::InitialListFailed(e)
            | watcher::Error::WatchStartFailed(e)
            | watcher::Error::WatchFailed(e) => Self::of_request(e),
            watcher::Error::WatchError(status) => Self::of_status(status),
            watcher::Error::NoResourceVersion => Self::NoAnswer(error.to_string()),
        }
    }

    /// What a failed request means.
    pub fn of_request(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status),
            other => Self::NoAnswer(one_line(&chain(other))),
        }
    }

    fn of_status(status: &kube::core::Status) -> Self {
        let text = one_line(&status.message);
        if status.code == 403 { Self::Forbidden(text) } else { Self::NoAnswer(text) }
    }

    /// Whether a right is absent.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden(_))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(text) => write!(f, "the API server refuses: {text}"),
            Self::NoAnswer(text) => write!(f, "the API server does not answer as it should: {text}"),
        }
    }
}

/// An error with its causes, each once: kube's texts often hold that of their cause already.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// A watch on some objects of a kind.
pub struct Watch<K> {
    api: Api<K>,
    config: Config,
    events: Option<BoxStream<'static, watcher::Result<Event<K>>>>,
    listed: Vec<K>,
    retry_at: Option<Instant>,
    delays: Retries,
    refusals: Retries,
    stands_since: Option<Instant>,
    told: Option<Trouble>,
}

impl<K> Watch<K>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    /// On the object with this name: the only selector that a right with `resourceNames` admits.
    pub fn one(api: Api<K>, name: &str) -> Self {
        Self::new(api, Config::default().fields(&format!("metadata.name={name}")))
    }

    /// On what a label selector names.
    pub fn labelled(api: Api<K>, selector: &str) -> Self {
        Self::new(api, Config::default().labels(selector))
    }

    fn new(api: Api<K>, config: Config) -> Self {
        Self {
            api,
            config,
            events: None,
            listed: Vec::new(),
            retry_at: None,
            delays: delays(LONGEST_DELAY),
            refusals: delays(LONGEST_REFUSAL),
            stands_since: None,
            told: None,
        }
    }

    /// Waits for the next news. Nothing is lost where this is dropped and called again.
    pub async fn next(&mut self) -> Told<K> {
        loop {
            if let Some(at) = self.retry_at {
                sleep_until(at).await;
                self.retry_at = None;
            }
            let events = self.events.get_or_insert_with(|| watcher(self.api.clone(), self.config.clone()).boxed());
            // a standing watch has bounds of its own; before it stands, an API server may hang
            let event = if self.stands_since.is_some() {
                events.next().await
            } else if let Ok(event) = timeout(ANSWER_BOUND, events.next()).await {
                event
            } else {
                let why = format!("it said nothing for {} s", ANSWER_BOUND.as_secs());
                self.start_over(false);
                match self.lost(Trouble::NoAnswer(why)) {
                    Some(told) => return told,
                    None => continue,
                }
            };
            match event {
                Some(Ok(Event::Init)) => self.listed.clear(),
                Some(Ok(Event::InitApply(object))) => self.listed.push(object),
                Some(Ok(Event::InitDone)) => {
                    self.stands_since = Some(Instant::now());
                    self.told = None;
                    return Told::All(std::mem::take(&mut self.listed));
                }
                Some(Ok(Event::Apply(object))) => return Told::Applied(object),
                Some(Ok(Event::Delete(object))) => return Told::Deleted(object),
                // too old to be resumed: no trouble, it is listed again. Not at once, for a server may say so each time
                Some(Err(watcher::Error::WatchError(status))) if status.code == 410 => self.start_over(false),
                Some(Err(error)) => {
                    let trouble = Trouble::of(&error);
                    self.start_over(trouble.is_forbidden());
                    if let Some(told) = self.lost(trouble) {
                        return told;
                    }
                }
                None => self.start_over(false),
            }
        }
    }

    /// What is told of a trouble: each kind once until the watch stands.
    fn lost(&mut self, trouble: Trouble) -> Option<Told<K>> {
        let new = self.told.as_ref().is_none_or(|told| told.is_forbidden() != trouble.is_forbidden());
        new.then(|| {
            self.told = Some(trouble.clone());
            Told::Lost(trouble)
        })
    }

    /// Lists again at once: what was told last was not enough to act on.
    pub fn again(&mut self) {
        self.events = None;
        self.stands_since = None;
        self.listed.clear();
    }

    fn start_over(&mut self, refused: bool) {
        self.events = None;
        self.listed.clear();
        if self.stands_since.take().is_some_and(|since| since.elapsed() >= STOOD_WELL) {
            (self.delays, self.refusals) = (delays(LONGEST_DELAY), delays(LONGEST_REFUSAL));
        }
        let delays = if refused { &mut self.refusals } else { &mut self.delays };
        self.retry_at = Some(Instant::now() + delays.delay());
    }
}

fn delays(longest: Duration) -> Retries {
    Retries::new(FIRST_DELAY, longest)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{Client, client::Body};
    use serde_json::json;

    use super::*;

    /// How often an API server is asked in an hour that answers nothing but this.
    async fn asked_within_an_hour(code: u16) -> usize {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let server = tower::service_fn(move |_: Request<Body>| {
            counter.fetch_add(1, Ordering::Relaxed);
            let status = json!({"kind": "Status", "status": "Failure", "message": "no", "reason": "No", "code": code});
            let answer = Response::builder().status(code).body(Body::from(status.to_string().into_bytes())).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        });
        let mut watch = Watch::one(Api::<ConfigMap>::namespaced(Client::new(server, "a"), "a"), "a");
        assert!(matches!(watch.next().await, Told::Lost(_)));
        assert!(timeout(Duration::from_hours(1), watch.next()).await.is_err(), "told once");
        asked.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_asked_about_more_rarely_than_an_outage() {
        let (refused, down) = (asked_within_an_hour(403).await, asked_within_an_hour(503).await);
        assert!((30..80).contains(&refused), "every 60 to 120 s: {refused}");
        assert!((180..400).contains(&down), "every 10 to 20 s: {down}");
    }
}
