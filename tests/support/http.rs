//! A small HTTP client: one request on a connection of its own, so that nothing is left open.

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    header::{HOST, HeaderMap, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request to `address`, `HOST:PORT`.
pub async fn send(address: &str, mut request: Request<Full<Bytes>>) -> Result<Answer> {
    request.headers_mut().insert(HOST, HeaderValue::from_str(address)?);
    let stream = TcpStream::connect(address).await.with_context(|| format!("{address} does not answer"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // its errors reach the request below
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// Gets `path` from `address`.
pub async fn get(address: &str, path: &str) -> Result<Answer> {
    send(address, Request::get(path).body(Full::default())?).await
}
