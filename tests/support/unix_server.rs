//! A gRPC server on a unix socket that can be taken away and brought back.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use anyhow::{Context, Result};
use futures::{FutureExt, future::BoxFuture, stream};
use prepull::cri::{
    image_service_server::{ImageService, ImageServiceServer},
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::AbortHandle,
};
use tonic::{
    service::Routes,
    transport::{Server, server::Connected},
};

use super::{background::Background, cri::MAX_MESSAGE};

/// A socket with both CRI services behind it.
pub struct UnixServer {
    folder: TempDir,
    here: bool,
    running: Option<Running>,
}

/// What ends the server and its connections when it is dropped.
enum Running {
    There(#[expect(dead_code, reason = "held for its end")] Background),
    Here { accepts: AbortHandle, _connections: watch::Sender<()> },
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Here { accepts, .. } = self {
            accepts.abort();
        }
    }
}

impl UnixServer {
    /// A socket's place; nobody listens there yet.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("prepull-cri-").tempdir()?, here: false, running: None })
    }

    /// One that runs on its opener's own tokio runtime, so that it has the same clock, which may be a paused one.
    pub fn here() -> Result<Self> {
        Ok(Self { here: true, ..Self::new()? })
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("cri.sock")
    }

    /// A folder of this server's own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Listens; `make` runs where the server will, so that clients which it creates live as long.
    pub fn open<S>(&mut self, make: impl FnOnce() -> Result<S>) -> Result<()>
    where
        S: ImageService + RuntimeService + Clone,
    {
        self.open_routes(|| Ok(cri(make()?)))
    }

    /// The same with other services too.
    pub fn open_routes(&mut self, make: impl FnOnce() -> Result<Routes>) -> Result<()> {
        self.close();
        let background = if self.here { None } else { Some(Background::start("cri server")?) };
        let (routes, listener) = {
            let _there = background.as_ref().and_then(Background::enter);
            let listener = UnixListener::bind(self.socket()).context("the socket cannot be created")?;
            (make()?, listener)
        };
        let alive = watch::Sender::new(());
        let end = alive.subscribe();
        let connections = stream::unfold((listener, end), |(listener, end)| async {
            let accepted = listener.accept().await.map(|(stream, _)| Connection::new(stream, end.clone()));
            Some((accepted, (listener, end)))
        });
        let router = Server::builder().add_routes(routes);
        let serve = async move {
            // it ends only with its runtime
            let _ = router.serve_with_incoming(connections).await;
        };
        self.running = Some(match background {
            Some(background) => {
                background.spawn(async move {
                    let _alive = alive;
                    serve.await;
                });
                Running::There(background)
            }
            None => Running::Here { accepts: tokio::spawn(serve).abort_handle(), _connections: alive },
        });
        Ok(())
    }

    /// Ends all connections and takes the socket away.
    pub fn close(&mut self) {
        self.running = None;
        // absent when nobody listened yet
        let _ = fs::remove_file(self.socket());
    }
}

/// Both services of CRI.
pub fn cri<S>(service: S) -> Routes
where
    S: ImageService + RuntimeService + Clone,
{
    let images = ImageServiceServer::new(service.clone())
        .max_decoding_message_size(MAX_MESSAGE)
        // an answer may be larger than any client takes
        .max_encoding_message_size(usize::MAX);
    Routes::new(images).add_service(RuntimeServiceServer::new(service))
}

/// A connection that breaks when its server's end comes.
struct Connection {
    stream: UnixStream,
    end: BoxFuture<'static, ()>,
    over: bool,
}

impl Connection {
    fn new(stream: UnixStream, mut end: watch::Receiver<()>) -> Self {
        let end = async move { while end.changed().await.is_ok() {} }.boxed();
        Self { stream, end, over: false }
    }

    fn is_over(&mut self, cx: &mut TaskContext<'_>) -> bool {
        self.over = self.over || self.end.poll_unpin(cx).is_ready();
        self.over
    }
}

fn broken<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_over(cx) { broken() } else { Pin::new(&mut self.stream).poll_read(cx, buf) }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_over(cx) { broken() } else { Pin::new(&mut self.stream).poll_write(cx, buf) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
