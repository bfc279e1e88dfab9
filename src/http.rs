//! The one HTTP port: status page, JSON, metrics and probes. Read-only.
//!
//! Every answer is asked of the agent's loop, so that `/healthz` shows that the loop turns and no answer is older than
//! the question.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{page::text, status::Status, stock::Warmth};

/// The loop must answer within this time, or it counts as stuck.
const LOOP_BOUND: Duration = Duration::from_secs(3);

/// A question to the agent's loop.
#[derive(Debug)]
pub enum Query {
    /// Does it turn?
    Health(oneshot::Sender<()>),
    /// Is the node warm?
    Warmth(oneshot::Sender<Warmth>),
    /// Everything about the images.
    Status(oneshot::Sender<Status>),
    /// The page that Prometheus scrapes.
    Metrics(oneshot::Sender<String>),
}

/// Where questions go.
pub type Queries = mpsc::Sender<Query>;

/// Opens the port.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, std::io::Error> {
    TcpListener::bind(address).await
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, queries: Queries) -> Result<(), std::io::Error> {
    let app = Router::new()
        .route("/", get(status_page))
        .route("/api/v1/images", get(images))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(queries);
    axum::serve(listener, app).await
}

async fn ask<T>(queries: &Queries, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Response> {
    let (sender, receiver) = oneshot::channel();
    let answer = async {
        queries.send(query(sender)).await.ok()?;
        receiver.await.ok()
    };
    timeout(LOOP_BOUND, answer).await.ok().flatten().ok_or_else(|| {
        let text = format!("the agent's loop did not answer within {} s\n", LOOP_BOUND.as_secs());
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    })
}

async fn healthz(State(queries): State<Queries>) -> Result<&'static str, Response> {
    ask(&queries, Query::Health).await?;
    Ok("ok\n")
}

async fn readyz(State(queries): State<Queries>) -> Result<Response, Response> {
    let warmth = ask(&queries, Query::Warmth).await?;
    Ok(if warmth.warm {
        (StatusCode::OK, format!("warm: {} of {} required images are present\n", warmth.present, warmth.required))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not warm: {}\n", warmth.reason))
    }
    .into_response())
}

async fn images(State(queries): State<Queries>) -> Result<Response, Response> {
    let status = ask(&queries, Query::Status).await?;
    Ok(axum::Json(status).into_response())
}

async fn metrics(State(queries): State<Queries>) -> Result<Response, Response> {
    let text = ask(&queries, Query::Metrics).await?;
    Ok(with_type(text, "text/plain; version=0.0.4; charset=utf-8"))
}

async fn status_page(State(queries): State<Queries>) -> Result<Response, Response> {
    let status = ask(&queries, Query::Status).await?;
    // text/plain: whatever an image is called, nothing of it is markup
    Ok(with_type(text::page(&status), "text/plain; charset=utf-8"))
}

fn with_type(body: String, content_type: &'static str) -> Response {
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
