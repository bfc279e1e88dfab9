//! One gRPC channel over a unix socket, and a signal when its connection ends.
//!
//! gRPC clients connect again by themselves and say nothing. The agent must know at once that the runtime went away,
//! without asking it over and over: so the stream itself tells when it is dropped.

use std::{
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    sync::watch,
};
use tonic::transport::{Channel, Uri};

/// Resolves when the connection has ended.
#[derive(Debug, Clone)]
pub struct Closed(watch::Receiver<bool>);

impl Closed {
    /// Waits for the end.
    pub async fn wait(&mut self) {
        // an error means that the sender is gone, and the connection with it
        let _ = self.0.wait_for(|closed| *closed).await;
    }
}

/// Opens a channel. The connection is made at once, so that a missing socket is an error here.
pub(super) async fn open(path: &Path) -> Result<(Channel, Closed), String> {
    let (sender, receiver) = watch::channel(false);
    let first = UnixStream::connect(path).await.map_err(|e| reason(&e))?;
    let mut first = Some(Watched { stream: first, closed: sender.clone() });
    let path: PathBuf = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (first, path, closed) = (first.take(), path.clone(), sender.clone());
        async move {
            let stream = match first {
                Some(stream) => stream,
                None => Watched { stream: UnixStream::connect(path).await?, closed },
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // the address is not used, gRPC only wants an authority to send
    let channel = tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(connector)
        .await
        .map_err(|e| prepull_core::error_text::one_line(&root_cause(&e)))?;
    Ok((channel, Closed(receiver)))
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; is the runtime running, and its folder mounted?".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; the agent needs group 0 or root to use the runtime's socket".to_owned()
        }
        io::ErrorKind::ConnectionRefused => "nothing listens there; is the runtime running?".to_owned(),
        _ => error.to_string(),
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// A stream that tells when it is dropped.
struct Watched {
    stream: UnixStream,
    closed: watch::Sender<bool>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.closed.send_replace(true);
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
