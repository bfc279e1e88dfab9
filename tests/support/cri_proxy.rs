//! A CRI server that passes every call on to a real one, writes it down, and delays or fails it where a test says so. What
//! is asked of containerd's image records is passed on as it is; its other services are not there.

use std::path::{Path, PathBuf};

use anyhow::Result;
use prepull::{
    containerd::images::{
        self as records, GetImageRequest, GetImageResponse, UpdateImageRequest, UpdateImageResponse,
        images_server::{Images, ImagesServer},
    },
    cri::{
        Image, ImageFsInfoRequest, ImageFsInfoResponse, ImageStatusRequest, ImageStatusResponse, ListImagesRequest,
        ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse,
        StatusRequest, StatusResponse, VersionRequest, VersionResponse, image_service_server::ImageService,
        runtime_service_server::RuntimeService,
    },
};
use tonic::{Request, Response, Status};

use super::{
    cri::{Client, MAX_MESSAGE},
    journal::{Described, Journal, Method},
    script::Script,
    unix_server::{UnixServer, cri},
};

/// A running proxy; it ends with its value.
pub struct CriProxy {
    server: UnixServer,
    upstream: PathBuf,
    journal: Journal,
    script: Script,
}

impl CriProxy {
    /// Starts one in front of `upstream`, which need not be there yet.
    pub fn start(upstream: &Path) -> Result<Self> {
        let mut proxy = Self {
            server: UnixServer::new()?,
            upstream: upstream.to_path_buf(),
            journal: Journal::default(),
            script: Script::default(),
        };
        proxy.open()?;
        Ok(proxy)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.server.socket()
    }

    /// What was asked so far.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What it does differently.
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// Ends all connections and takes the socket away, as a runtime that ends does.
    pub fn close(&mut self) {
        self.server.close();
    }

    /// Listens again.
    pub fn open(&mut self) -> Result<()> {
        let (upstream, journal, script) = (self.upstream.clone(), self.journal.clone(), self.script.clone());
        self.server.open_routes(move || {
            let forward = Forward { client: Client::lazy(&upstream)?, journal, script };
            Ok(cri(forward.clone()).add_service(ImagesServer::new(forward).max_encoding_message_size(MAX_MESSAGE)))
        })
    }
}

#[derive(Clone)]
struct Forward {
    client: Client,
    journal: Journal,
    script: Script,
}

impl Forward {
    /// Metadata and deadline go with the request. When the client goes away this future is dropped, and with it the
    /// call to the real server.
    async fn pass<Q, A, F>(
        &self,
        method: Method,
        request: Request<Q>,
        call: impl FnOnce(Client, Request<Q>) -> F,
    ) -> Result<Response<A>, Status>
    where
        Q: Described,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let entry = self.journal.begin(method, request.get_ref());
        let image = request.get_ref().image().map_or_else(String::new, |spec| spec.image.clone());
        let result = match self.script.apply(method, &image).await {
            Ok(()) => call(self.client.clone(), request).await,
            Err(status) => Err(status),
        };
        entry.end(&result);
        result
    }
}

#[tonic::async_trait]
impl Images for Forward {
    async fn get(&self, request: Request<GetImageRequest>) -> Result<Response<GetImageResponse>, Status> {
        self.client.records.clone().get(request).await
    }

    async fn list(
        &self,
        request: Request<records::ListImagesRequest>,
    ) -> Result<Response<records::ListImagesResponse>, Status> {
        self.client.records.clone().list(request).await
    }

    async fn update(&self, request: Request<UpdateImageRequest>) -> Result<Response<UpdateImageResponse>, Status> {
        self.client.records.clone().update(request).await
    }
}

#[tonic::async_trait]
impl RuntimeService for Forward {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        self.pass(Method::Version, request, |mut to, request| async move { to.runtime.version(request).await }).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.pass(Method::Status, request, |mut to, request| async move { to.runtime.status(request).await }).await
    }
}

#[tonic::async_trait]
impl ImageService for Forward {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        let mut answer = self
            .pass(Method::ListImages, request, |mut to, request| async move { to.images.list_images(request).await })
            .await?;
        if let Some(bytes) = self.script.padding(Method::ListImages) {
            answer.get_mut().images.push(Image { id: "x".repeat(bytes), ..Image::default() });
        }
        Ok(answer)
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        self.pass(Method::ImageStatus, request, |mut to, request| async move { to.images.image_status(request).await })
            .await
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        self.pass(Method::PullImage, request, |mut to, request| async move { to.images.pull_image(request).await })
            .await
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.pass(Method::RemoveImage, request, |mut to, request| async move { to.images.remove_image(request).await })
            .await
    }

    async fn image_fs_info(
        &self,
        request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        self.pass(Method::ImageFsInfo, request, |mut to, request| async move { to.images.image_fs_info(request).await })
            .await
    }
}
