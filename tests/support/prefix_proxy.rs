//! A proxy that shows a server below a path of its own, as the API server shows a pod's port.

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http_body_util::Full;
use hyper::StatusCode;

use super::{background::Background, http};

/// Where the server is shown.
pub const PREFIX: &str = "/api/v1/namespaces/prepull/pods/prepull-x7k2p:9797/proxy";

/// A running proxy; it ends with its value.
pub struct PrefixProxy {
    address: String,
    _background: Background,
}

impl PrefixProxy {
    /// Starts one in front of `target`, `HOST:PORT`.
    pub fn start(target: &str) -> Result<Self> {
        let background = Background::start("prefix proxy")?;
        let (listener, address) = background.listen()?;
        let app = Router::new().fallback(forward).with_state(target.to_owned());
        background.spawn(async move {
            // it ends with the test
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, _background: background })
    }

    /// The page's address here.
    pub fn url(&self) -> String {
        format!("http://{}{PREFIX}/", self.address)
    }
}

async fn forward(State(target): State<String>, request: Request) -> Response {
    let (mut head, _) = request.into_parts();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let Some(inner) = path.strip_prefix(PREFIX).and_then(|path| path.parse().ok()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    head.uri = inner;
    match http::send(&target, Request::from_parts(head, Full::default())).await {
        Ok(answer) => (answer.status, answer.headers, Body::from(answer.body)).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
    }
}
