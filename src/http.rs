//! The one HTTP port: status page, JSON, metrics and probes. Read-only.
//!
//! Every answer is asked of the agent's loop, so that `/healthz` shows that the loop turns and no answer is older than
//! the question. What a client may take of the agent's memory and time is bounded in [`connections`].

mod connections;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, REFRESH,
        RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

use crate::{
    page::{html, text},
    status::Status,
    stock::Warmth,
};

/// The loop must answer within this time, or it counts as stuck.
const LOOP_BOUND: Duration = Duration::from_secs(3);

const TEXT: &str = "text/plain; charset=utf-8";

/// What a page may load: its own style sheet and icon. No script, no form, no frame around it, and no exceptions.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A question to the agent's loop.
#[derive(Debug)]
pub enum Query {
    /// Does it turn?
    Health(oneshot::Sender<()>),
    /// Is the pod ready?
    Readiness(oneshot::Sender<Readiness>),
    /// Everything about the images.
    Status(oneshot::Sender<Status>),
    /// The page that Prometheus scrapes.
    Metrics(oneshot::Sender<String>),
}

/// What a readiness probe is told.
#[derive(Debug)]
pub struct Readiness {
    /// Whether the pod counts as ready, which need not mean that its node is warm.
    pub ready: bool,
    /// How far the node is.
    pub warmth: Warmth,
}

/// Where questions go.
pub type Queries = mpsc::Sender<Query>;

/// An answer before it goes onto the wire.
type Answer = Response<String>;

/// Opens the port.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, std::io::Error> {
    TcpListener::bind(address).await
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, queries: Queries) {
    let port = Arc::new(Port { queries, long: Semaphore::new(1) });
    connections::serve(listener, move |request| {
        let port = port.clone();
        async move { port.answer(request).await.unwrap_or_else(|error| error) }
    })
    .await;
}

struct Port {
    queries: Queries,
    /// One answer about all images is made at a time, so that many questions at once do not hold many of them in memory.
    long: Semaphore,
}

impl Port {
    /// The answer; the error is one too.
    async fn answer<B>(&self, request: Request<B>) -> Result<Answer, Answer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused =
                plain(StatusCode::METHOD_NOT_ALLOWED, "this port is read-only: GET and HEAD\n".to_owned());
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            // what the client would send besides is not read
            refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Err(refused);
        }
        match request.uri().path() {
            "/" => self.status_page(&request).await,
            "/api/v1/images" => {
                let json = self.long(Query::Status, |status| serde_json::to_string(&status)).await?;
                Ok(answer(StatusCode::OK, "application/json", json.map_err(|e| unmade(&e))?))
            }
            "/metrics" => {
                let page = self.long(Query::Metrics, |page| page).await?;
                Ok(answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page))
            }
            "/healthz" => {
                self.ask(Query::Health).await?;
                Ok(plain(StatusCode::OK, "ok\n".to_owned()))
            }
            "/readyz" => Ok(ready(&self.ask(Query::Readiness).await?)),
            "/style.css" => Ok(kept(answer(StatusCode::OK, "text/css; charset=utf-8", html::STYLE.to_owned()))),
            path => match html::icon(path) {
                Some(icon) => Ok(kept(answer(StatusCode::OK, "image/svg+xml", icon))),
                None => Err(plain(
                    StatusCode::NOT_FOUND,
                    "there is / and /api/v1/images, /metrics, /healthz and /readyz\n".to_owned(),
                )),
            },
        }
    }

    /// HTML for those who ask for it, and text for all others, `curl` among them.
    async fn status_page<B>(&self, request: &Request<B>) -> Result<Answer, Answer> {
        let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains("text/html"));
        let mut page = if request.headers().get_all(ACCEPT).iter().any(accepts) {
            let off = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "refresh=off"));
            let made = self.long(Query::Status, |status| html::page(&status, SystemTime::now(), !off)).await;
            let (code, kind, (body, refresh)) = match made {
                Ok(Ok((body, refresh))) => (StatusCode::OK, "text/html; charset=utf-8", (body, refresh)),
                Ok(Err(error)) => return Err(unmade(&error)),
                // the browser is to come back by itself also where the loop hangs for a while
                Err(error) => {
                    let refresh = (!off).then_some(html::REFRESH);
                    (error.status(), TEXT, (error.into_body(), refresh))
                }
            };
            let mut page = answer(code, kind, body);
            if let Some(refresh) = refresh {
                page.headers_mut().insert(REFRESH, HeaderValue::from(refresh.as_secs()));
            }
            page
        } else {
            plain(StatusCode::OK, self.long(Query::Status, |status| text::page(&status)).await?)
        };
        page.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
        Ok(page)
    }

    /// Asks for something long and makes an answer of it, when those who came before have theirs.
    async fn long<T, A>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
        make: impl FnOnce(T) -> A,
    ) -> Result<A, Answer> {
        let Ok(Ok(_turn)) = timeout(LOOP_BOUND, self.long.acquire()).await else {
            let mut busy =
                plain(StatusCode::SERVICE_UNAVAILABLE, "others ask at the same time; try again\n".to_owned());
            busy.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return Err(busy);
        };
        Ok(make(self.ask(query).await?))
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Answer> {
        let (sender, receiver) = oneshot::channel();
        let answer = async {
            self.queries.send(query(sender)).await.ok()?;
            receiver.await.ok()
        };
        timeout(LOOP_BOUND, answer).await.ok().flatten().ok_or_else(|| {
            let text = format!("the agent's loop did not answer within {} s\n", LOOP_BOUND.as_secs());
            plain(StatusCode::SERVICE_UNAVAILABLE, text)
        })
    }
}

fn ready(Readiness { ready, warmth }: &Readiness) -> Answer {
    if *ready && warmth.warm {
        plain(StatusCode::OK, format!("warm: {} of {} required images are present\n", warmth.present, warmth.required))
    } else if *ready {
        plain(StatusCode::OK, format!("running; not warm: {}\n", warmth.reason))
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, format!("not warm: {}\n", warmth.reason))
    }
}

fn unmade(error: &dyn std::error::Error) -> Answer {
    plain(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be made: {error}\n"))
}

fn plain(code: StatusCode, body: String) -> Answer {
    answer(code, TEXT, body)
}

fn answer(code: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    let headers: [(HeaderName, &'static str); 5] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}

/// What the page's links change with its content may be kept by the browser.
fn kept(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("max-age=86400"));
    answer
}
