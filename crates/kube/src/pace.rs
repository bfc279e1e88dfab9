//! Keeps watches apart: kube begins a watch that ended well again at once, and a server or a proxy that ends each of
//! them as soon as it began would be asked as fast as it answers, by every node.

use std::{
    collections::HashMap,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt as _};
use http::{Request, Uri};
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service};

/// From the begin of a watch to that of the next one on the same objects. A server lets a watch stand for minutes.
const APART: Duration = Duration::from_secs(1);

/// Puts [`Pace`] around a client's service.
#[derive(Debug, Clone, Copy)]
pub(super) struct PaceLayer;

impl<S> Layer<S> for PaceLayer {
    type Service = Pace<S>;

    fn layer(&self, inner: S) -> Pace<S> {
        Pace { inner, begun: HashMap::new() }
    }
}

/// A service whose watches on the same objects do not follow each other too closely. Nothing else waits.
pub(super) struct Pace<S> {
    inner: S,
    /// When the last watch on some objects began, or will; none that is so long ago that it does not matter.
    begun: HashMap<String, Instant>,
}

impl<S> Pace<S> {
    /// When a request may be sent; none: at once.
    fn turn(&mut self, uri: &Uri, now: Instant) -> Option<Instant> {
        let objects = watched(uri)?;
        self.begun.retain(|_, begun| *begun + APART > now);
        let turn = self.begun.get(&objects).map(|begun| *begun + APART);
        self.begun.insert(objects, turn.unwrap_or(now));
        turn
    }
}

impl<S, B> Service<Request<B>> for Pace<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
    S::Response: 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let turn = self.turn(request.uri(), Instant::now());
        // nothing is sent before it is polled
        let answer = self.inner.call(request);
        async move {
            if let Some(turn) = turn {
                sleep_until(turn).await;
            }
            answer.await
        }
        .boxed()
    }
}

/// What a watch is on: path and selectors. None for any other request.
fn watched(uri: &Uri) -> Option<String> {
    let query = uri.query()?;
    let mut parts = query.split('&');
    parts.clone().any(|part| part == "watch=true").then(|| {
        let selectors = parts.by_ref().filter(|part| part.contains("Selector="));
        selectors.fold(uri.path().to_owned(), |key, selector| key + "&" + selector)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_watch_on_the_same_objects_waits() {
        let mut pace = PaceLayer.layer(());
        let now = Instant::now();
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        let watch =
            uri("/api/v1/namespaces/a/configmaps?&watch=true&fieldSelector=metadata.name%3Da&resourceVersion=1");
        assert_eq!(pace.turn(&watch, now), None);
        let renewed =
            uri("/api/v1/namespaces/a/configmaps?&watch=true&fieldSelector=metadata.name%3Da&resourceVersion=2");
        assert_eq!(pace.turn(&renewed, now), Some(now + APART));
        assert_eq!(pace.turn(&renewed, now), Some(now + APART * 2), "each waits for the one before");
        let other = uri("/api/v1/namespaces/a/configmaps?&watch=true&fieldSelector=metadata.name%3Db");
        assert_eq!(pace.turn(&other, now), None);
        for no_watch in
            ["/api/v1/namespaces/a/configmaps?fieldSelector=metadata.name%3Da", "/api/v1/namespaces/a/pods/watch"]
        {
            assert_eq!(pace.turn(&uri(no_watch), now), None);
        }
        assert_eq!(pace.turn(&renewed, now + APART * 4), None);
        assert_eq!(pace.begun.len(), 1, "what does not matter any more is forgotten");
    }
}
