//! Pushes to a registry over plain HTTP.

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::Full;
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION},
};

use super::{
    http::{self, Answer},
    images::{Artifact, Blob},
};

/// Where to push, and as whom.
#[derive(Debug, Clone)]
pub struct Pusher {
    address: String,
    authorization: Option<String>,
}

impl Pusher {
    /// Pushes to the registry at `address` (`127.0.0.1:5000`), with user and password if it wants them.
    pub fn new(address: String, login: Option<(&str, &str)>) -> Self {
        let authorization =
            login.map(|(user, password)| format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
        Self { address, authorization }
    }

    /// Pushes all blobs that are not there yet, then the manifests, the last one under `tag`.
    pub async fn push(&self, repository: &str, tag: &str, artifact: &dyn Artifact) -> Result<()> {
        for blob in artifact.blobs() {
            self.blob(repository, blob).await.with_context(|| format!("cannot push a blob to {repository}"))?;
        }
        let manifests = artifact.manifests();
        let (top, children) = manifests.split_last().context("there is no manifest to push")?;
        for child in children {
            self.manifest(repository, &child.digest, child.media_type, child.bytes.clone()).await?;
        }
        self.manifest(repository, tag, top.media_type, top.bytes.clone()).await
    }

    /// Puts `tag` on what `existing`, a tag or a digest, names.
    pub async fn tag(&self, repository: &str, existing: &str, tag: &str) -> Result<()> {
        let answer = self.send(Method::GET, &manifest_path(repository, existing), None, Bytes::new()).await?;
        ensure!(answer.status == StatusCode::OK, "{repository}:{existing} cannot be read: {}", answer.status);
        let media_type = answer.headers.get(CONTENT_TYPE).context("the manifest has no type")?.to_str()?.to_owned();
        self.manifest(repository, tag, &media_type, answer.body).await
    }

    /// Deletes a manifest, and with it all tags on it.
    pub async fn delete(&self, repository: &str, digest: &str) -> Result<()> {
        let answer = self.send(Method::DELETE, &manifest_path(repository, digest), None, Bytes::new()).await?;
        ensure!(
            answer.status == StatusCode::ACCEPTED,
            "{repository}@{digest} cannot be deleted: {} {}",
            answer.status,
            answer.text()
        );
        Ok(())
    }

    async fn blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        if self.send(Method::HEAD, &path, None, Bytes::new()).await?.status == StatusCode::OK {
            return Ok(());
        }
        let begun = self.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), None, Bytes::new()).await?;
        ensure!(begun.status == StatusCode::ACCEPTED, "the registry takes no upload: {}", begun.status);
        let location = begun.headers.get(LOCATION).context("the upload has no location")?.to_str()?.to_owned();
        let location: Uri = location.parse().context("the upload's location is no address")?;
        let query = location.query().map_or_else(String::new, |query| format!("{query}&"));
        let path = format!("{}?{query}digest={}", location.path(), blob.digest);
        let done = self.send(Method::PUT, &path, Some("application/octet-stream"), blob.bytes.clone()).await?;
        ensure!(done.status == StatusCode::CREATED, "the upload was refused: {}", done.status);
        Ok(())
    }

    async fn manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: Bytes) -> Result<()> {
        let answer = self.send(Method::PUT, &manifest_path(repository, reference), Some(media_type), bytes).await?;
        ensure!(
            answer.status == StatusCode::CREATED,
            "{repository}:{reference} was refused: {} {}",
            answer.status,
            answer.text()
        );
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, media_type: Option<&str>, body: Bytes) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            // without a list of types a registry would translate the manifest into an old format
            .header(ACCEPT, "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(media_type) = media_type {
            request = request.header(CONTENT_TYPE, media_type);
        }
        http::send(&self.address, request.body(Full::new(body))?).await
    }
}

fn manifest_path(repository: &str, reference: &str) -> String {
    format!("/v2/{repository}/manifests/{reference}")
}
