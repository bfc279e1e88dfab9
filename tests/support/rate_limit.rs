//! A registry's front that answers 429 above a number of requests a second, and passes everything else on.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderValue, StatusCode, Uri,
        header::{HOST, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{sync::watch, time::Instant};

use super::background::Background;

/// A running front; it ends with its value.
pub struct RateLimit {
    address: String,
    refused: watch::Sender<u64>,
    _background: Background,
}

struct Shared {
    registry: String,
    client: Client<HttpConnector, Body>,
    bucket: watch::Sender<Bucket>,
    refused: watch::Sender<u64>,
}

/// Requests that may come at once; they come back at the rate.
struct Bucket {
    rate: f64,
    most: f64,
    left: f64,
    filled: Instant,
}

impl RateLimit {
    /// Stands before the registry at `host`: so many requests a second, and `burst` at once.
    pub fn before(host: &str, rate: f64, burst: f64) -> Result<Self> {
        let background = Background::start("rate limit")?;
        let (listener, address) = background.listen()?;
        let refused = watch::Sender::new(0);
        let bucket = watch::Sender::new(Bucket { rate, most: burst, left: burst, filled: Instant::now() });
        let client = Client::builder(TokioExecutor::new()).build_http();
        let shared = Arc::new(Shared { registry: host.to_owned(), client, bucket, refused: refused.clone() });
        let router = Router::new().fallback(answer).with_state(shared);
        background.spawn(async move {
            // it ends only with its runtime
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, refused, _background: background })
    }

    /// Host and port.
    pub fn host(&self) -> &str {
        &self.address
    }

    /// How many requests were answered with 429 so far.
    pub fn refused(&self) -> u64 {
        *self.refused.borrow()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let mut admitted = false;
    shared.bucket.send_modify(|bucket| admitted = bucket.take(Instant::now()));
    if !admitted {
        shared.refused.send_modify(|refused| *refused += 1);
        return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, HeaderValue::from_static("1"))]).into_response();
    }
    match forward(&shared, request).await {
        Ok(response) => response,
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}

async fn forward(shared: &Shared, request: Request) -> Result<Response> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("http://{}{path}", shared.registry).parse::<Uri>()?;
    head.headers.insert(HOST, HeaderValue::from_str(&shared.registry)?);
    let (head, body) = shared.client.request(Request::from_parts(head, body)).await?.into_parts();
    Ok(Response::from_parts(head, Body::new(body)))
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let since: Duration = now - self.filled;
        self.left = (self.left + since.as_secs_f64() * self.rate).min(self.most);
        self.filled = now;
        let admitted = self.left >= 1.0;
        if admitted {
            self.left -= 1.0;
        }
        admitted
    }
}
