//! A plain CRI client for tests: what the runtime answers, without the agent's own client in between.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use prepull::{
    containerd::images::images_client::ImagesClient,
    cri::{
        AuthConfig, Image, ImageSpec, ImageStatusRequest, ListImagesRequest, PullImageRequest, RemoveImageRequest,
        VersionRequest, VersionResponse, image_service_client::ImageServiceClient,
        runtime_service_client::RuntimeServiceClient,
    },
};
use tokio::time::Instant;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Lists of thousands of images are larger than gRPC's usual 4 MiB.
pub const MAX_MESSAGE: usize = 64 << 20;

/// Both services of one socket.
#[derive(Debug, Clone)]
pub struct Client {
    /// The image service.
    pub images: ImageServiceClient<Channel>,
    /// The runtime service.
    pub runtime: RuntimeServiceClient<Channel>,
    /// containerd's own service of image records, where this is containerd.
    pub records: ImagesClient<Channel>,
}

impl Client {
    /// A client that connects at its first call, and again after the server went away.
    pub fn lazy(socket: &Path) -> Result<Self> {
        let uri = format!("unix://{}", socket.display());
        let channel = Endpoint::from_shared(uri).context("the socket's path is not one for gRPC")?.connect_lazy();
        Ok(Self {
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            runtime: RuntimeServiceClient::new(channel.clone()),
            records: ImagesClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    /// A client of a server that is known to answer: waits until Version and `ListImages` do.
    pub async fn ready(socket: &Path, patience: Duration) -> Result<Self> {
        let end = Instant::now() + patience;
        loop {
            let client = Self::lazy(socket)?;
            let answer = async {
                client.version().await?;
                client.list().await
            };
            match tokio::time::timeout(Duration::from_secs(2), answer).await {
                Ok(Ok(_)) => return Ok(client),
                Ok(Err(status)) if Instant::now() > end => {
                    return Err(status).with_context(|| format!("{} does not answer", socket.display()));
                }
                Err(late) if Instant::now() > end => {
                    return Err(late).with_context(|| format!("{} does not answer", socket.display()));
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Who is there.
    pub async fn version(&self) -> Result<VersionResponse, Status> {
        let response = self.runtime.clone().version(VersionRequest { version: "v1".to_owned() }).await?;
        Ok(response.into_inner())
    }

    /// All images.
    pub async fn list(&self) -> Result<Vec<Image>, Status> {
        Ok(self.images.clone().list_images(ListImagesRequest::default()).await?.into_inner().images)
    }

    /// One image, if it is there.
    pub async fn status(&self, image: &str) -> Result<Option<Image>, Status> {
        let request = ImageStatusRequest { image: Some(spec(image)), verbose: false };
        Ok(self.images.clone().image_status(request).await?.into_inner().image)
    }

    /// Pulls without a credential.
    pub async fn pull(&self, image: &str) -> Result<String, Status> {
        self.pull_with(image, None).await
    }

    /// Pulls with user and password, if any.
    pub async fn pull_with(&self, image: &str, login: Option<(&str, &str)>) -> Result<String, Status> {
        let response = self.images.clone().pull_image(pull_request(image, login)).await?;
        Ok(response.into_inner().image_ref)
    }

    /// Removes an image; one that is not there is no error.
    pub async fn remove(&self, image: &str) -> Result<(), Status> {
        self.images.clone().remove_image(RemoveImageRequest { image: Some(spec(image)) }).await?;
        Ok(())
    }
}

/// An image by name alone.
pub fn spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..ImageSpec::default() }
}

/// A pull as the kubelet would ask for it.
pub fn pull_request(image: &str, login: Option<(&str, &str)>) -> PullImageRequest {
    let auth = login.map(|(username, password)| AuthConfig {
        username: username.to_owned(),
        password: password.to_owned(),
        ..AuthConfig::default()
    });
    PullImageRequest { image: Some(spec(image)), auth, sandbox_config: None }
}
