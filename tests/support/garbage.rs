//! Servers on a unix socket that are no container runtime, or one that has lost its mind.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use axum::{Router, body::Body, http::header::CONTENT_TYPE, response::IntoResponse};
use futures::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};
use tonic::{service::Routes, transport::Server};

use super::{background::Background, images::random};

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Random bytes.
    Bytes,
    /// HTTP/1.1, politely.
    Http1,
    /// gRPC whose messages are random bytes.
    Messages,
    /// Nothing: connections are taken and stay silent.
    Silence,
}

/// A running server; it ends with its value, and its socket goes.
pub struct Garbage {
    socket: PathBuf,
    _background: Background,
}

impl Garbage {
    /// Listens on a path that nobody else listens on.
    pub fn on(socket: &Path, kind: Kind) -> Result<Self> {
        let background = Background::start("garbage")?;
        let listener = {
            let _here = background.enter();
            UnixListener::bind(socket).context("the socket cannot be created")?
        };
        match kind {
            Kind::Messages => background.spawn(messages(listener)),
            Kind::Bytes | Kind::Http1 | Kind::Silence => background.spawn(bytes(listener, kind)),
        }
        Ok(Self { socket: socket.to_path_buf(), _background: background })
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        // gone already where the folder is
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn bytes(listener: UnixListener, kind: Kind) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let answer = match kind {
                Kind::Http1 => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
                Kind::Silence => Vec::new(),
                Kind::Bytes | Kind::Messages => random(7, 4096),
            };
            // the client may hang up at any moment
            let _ = stream.write_all(&answer).await;
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await.is_ok_and(|length| length > 0) {}
        });
    }
}

async fn messages(listener: UnixListener) {
    let router = Router::new().fallback(async || {
        // a frame that is not compressed, and says how long it is
        let mut frame = vec![0, 0, 0, 1, 0];
        frame.extend(random(11, 256));
        ([(CONTENT_TYPE, "application/grpc")], Body::from(frame)).into_response()
    });
    let connections = stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    // it ends only with its runtime
    let _ = Server::builder().add_routes(Routes::from(router)).serve_with_incoming(connections).await;
}
