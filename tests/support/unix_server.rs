//! A gRPC server on a unix socket that can be taken away and brought back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use futures::stream;
use prepull::cri::{
    image_service_server::{ImageService, ImageServiceServer},
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tonic::transport::Server;

use super::{background::Background, cri::MAX_MESSAGE};

/// A socket with both CRI services behind it.
pub struct UnixServer {
    folder: TempDir,
    running: Option<Background>,
}

impl UnixServer {
    /// A socket's place; nobody listens there yet.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::Builder::new().prefix("prepull-cri-").tempdir()?, running: None })
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
        self.close();
        let background = Background::start("cri server")?;
        let (service, listener) = {
            let _here = background.enter();
            let listener = UnixListener::bind(self.socket()).context("the socket cannot be created")?;
            (make()?, listener)
        };
        let connections = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let images = ImageServiceServer::new(service.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let router = Server::builder().add_service(images).add_service(RuntimeServiceServer::new(service));
        background.spawn(async move {
            // it ends only with its runtime
            let _ = router.serve_with_incoming(connections).await;
        });
        self.running = Some(background);
        Ok(())
    }

    /// Ends all connections and takes the socket away.
    pub fn close(&mut self) {
        self.running = None;
        // absent when nobody listened yet
        let _ = fs::remove_file(self.socket());
    }
}
