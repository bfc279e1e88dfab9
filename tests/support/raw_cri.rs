//! A CRI pull whose deadline only the server watches. tonic's own channel watches it as well and usually is first, so
//! that the runtime's words would never be seen.

use std::{path::Path, time::Duration};

use anyhow::Context;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prepull::cri::{PullImageRequest, image_service_client::ImageServiceClient};
use tokio::net::UnixStream;
use tonic::{Request, Status, body::Body};

/// Pulls with a deadline.
pub async fn pull(socket: &Path, request: PullImageRequest, deadline: Duration) -> Result<String, Status> {
    let sender = connect(socket).await.map_err(|error| Status::unavailable(format!("{error:#}")))?;
    let service = tower::service_fn(move |request: hyper::Request<Body>| {
        let mut sender = sender.clone();
        async move { sender.send_request(request).await }
    });
    let mut client = ImageServiceClient::with_origin(service, hyper::Uri::from_static("http://localhost"));
    let mut request = Request::new(request);
    request.set_timeout(deadline);
    Ok(client.pull_image(request).await?.into_inner().image_ref)
}

async fn connect(socket: &Path) -> anyhow::Result<hyper::client::conn::http2::SendRequest<Body>> {
    let stream = UnixStream::connect(socket).await.context("the socket does not answer")?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // it ends with the last sender
    tokio::spawn(connection);
    Ok(sender)
}
