//! A CRI server without a runtime behind it: a store in memory that holds thousands of images, and pulls that take as
//! long and need such credentials as a test says. For what real runtimes cannot show quickly; they are the truth.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use prepull::{
    cri::{
        FilesystemIdentifier, FilesystemUsage, Image, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec,
        ImageStatusRequest, ImageStatusResponse, ListImagesRequest, ListImagesResponse, PullImageRequest,
        PullImageResponse, RemoveImageRequest, RemoveImageResponse, RuntimeCondition, RuntimeStatus, StatusRequest,
        StatusResponse, UInt64Value, VersionRequest, VersionResponse, image_service_server::ImageService,
        runtime_service_server::RuntimeService,
    },
    image_ref::ImageRef,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    images::digest,
    journal::{Described, Journal, Login, Method},
    script::Script,
    unix_server::UnixServer,
};

/// What a pull of an image gives. The default is a small image that anybody gets at once.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The manifest's digest; one of the image's name where none is given.
    pub digest: Option<String>,
    /// Bytes in the store.
    pub size: u64,
    /// How long the pull takes.
    pub takes: Duration,
    /// Users and passwords that may pull; anybody may where there are none.
    pub logins: Vec<(String, String)>,
    /// What the registry says to others, behind the runtime's own words.
    pub refusal: String,
    /// The pull succeeds, and the store knows nothing of it afterwards.
    pub forgotten: bool,
}

/// A running server; it ends with its value, its store with it.
pub struct FakeCri {
    server: UnixServer,
    fake: Fake,
}

impl FakeCri {
    /// Starts one with an empty store.
    pub fn start() -> Result<Self> {
        Self::on(UnixServer::new()?)
    }

    /// As [`FakeCri::start`], on the caller's own tokio runtime and by its clock.
    pub fn start_here() -> Result<Self> {
        Self::on(UnixServer::here()?)
    }

    fn on(server: UnixServer) -> Result<Self> {
        let fake = Fake {
            store: Arc::new(watch::Sender::new(Store::default())),
            offers: Arc::new(watch::Sender::new(BTreeMap::new())),
            // never full, whatever the disk is like on which the tests run
            mountpoint: Path::new("/dev/shm").into(),
            journal: Journal::default(),
            script: Script::default(),
        };
        let mut started = Self { server, fake };
        started.open()?;
        Ok(started)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.server.socket()
    }

    /// What was asked so far.
    pub fn journal(&self) -> &Journal {
        &self.fake.journal
    }

    /// What it does differently; `Unimplemented` for a method is a rule that fails it so.
    pub fn script(&self) -> &Script {
        &self.fake.script
    }

    /// Says what a pull of `image` gives. What nobody spoke of is offered by default.
    pub fn offer(&self, image: &str, offer: Offer) {
        self.fake.offers.send_modify(|offers| {
            offers.insert(image.to_owned(), offer);
        });
    }

    /// Puts images into the store, as if they had been pulled by default.
    pub fn put<'a>(&self, images: impl IntoIterator<Item = &'a str>) -> Result<()> {
        for image in images {
            let name = ImageRef::parse(image).with_context(|| format!("{image} is no image name"))?;
            self.fake.store.send_modify(|store| store.add(&name, "", &Offer::default()));
        }
        Ok(())
    }

    /// Takes an image out of the store behind everybody's back.
    pub fn take(&self, image: &str) {
        self.fake.store.send_modify(|store| store.remove(image));
    }

    /// All tags and digests in the store, sorted.
    pub fn images(&self) -> Vec<String> {
        let store = self.fake.store.borrow();
        let names = store.images.values().flat_map(|image| image.repo_tags.iter().chain(&image.repo_digests));
        let mut names: Vec<_> = names.cloned().collect();
        names.sort();
        names
    }

    /// How many pulls began of what was in the store already.
    pub fn needless_pulls(&self) -> usize {
        self.fake.store.borrow().needless
    }

    /// Ends all connections and takes the socket away; the store stays.
    pub fn close(&mut self) {
        self.server.close();
    }

    /// Listens again.
    pub fn open(&mut self) -> Result<()> {
        let fake = self.fake.clone();
        self.server.open(move || Ok(fake))
    }
}

/// The images by ID.
#[derive(Debug, Default)]
struct Store {
    images: BTreeMap<String, Image>,
    needless: usize,
}

impl Store {
    fn add(&mut self, name: &ImageRef, runtime_handler: &str, offer: &Offer) {
        let digest = digest_of(name, offer);
        let id = super::images::digest(digest.as_bytes());
        let tag = name.digest().is_none().then(|| name.canonical());
        if let Some(tag) = &tag {
            // a tag names one image only
            self.images.values_mut().for_each(|image| image.repo_tags.retain(|other| other != tag));
        }
        let image = self.images.entry(id.clone()).or_insert_with(|| Image {
            id: id.clone(),
            size: offer.size,
            spec: Some(ImageSpec { image: id, runtime_handler: runtime_handler.to_owned(), ..ImageSpec::default() }),
            ..Image::default()
        });
        image.repo_tags.extend(tag.filter(|tag| !image.repo_tags.contains(tag)));
        let by_digest = format!("{}@{digest}", name.lookup_key());
        if !image.repo_digests.contains(&by_digest) {
            image.repo_digests.push(by_digest);
        }
    }

    fn find(&self, image: &str) -> Option<&Image> {
        if let Some(found) = self.images.get(image) {
            return Some(found);
        }
        let name = ImageRef::parse(image).ok()?.canonical();
        self.images.values().find(|image| image.repo_tags.contains(&name) || image.repo_digests.contains(&name))
    }

    /// As CRI wants it: all names of the image go.
    fn remove(&mut self, image: &str) {
        if let Some(id) = self.find(image).map(|image| image.id.clone()) {
            self.images.remove(&id);
        }
    }
}

fn digest_of(name: &ImageRef, offer: &Offer) -> String {
    match (name.digest(), &offer.digest) {
        (Some(written), _) => written.to_string(),
        (None, Some(offered)) => offered.clone(),
        (None, None) => digest(name.canonical().as_bytes()),
    }
}

#[derive(Clone)]
struct Fake {
    store: Arc<watch::Sender<Store>>,
    offers: Arc<watch::Sender<BTreeMap<String, Offer>>>,
    mountpoint: Arc<Path>,
    journal: Journal,
    script: Script,
}

impl Fake {
    async fn answer<Q: Described, A>(
        &self,
        method: Method,
        request: Request<Q>,
        answer: impl AsyncFnOnce(Q) -> Result<A, Status>,
    ) -> Result<Response<A>, Status> {
        let request = request.into_inner();
        let entry = self.journal.begin(method, &request);
        let image = request.image().map_or_else(String::new, |spec| spec.image.clone());
        let result = match self.script.apply(method, &image).await {
            Ok(()) => answer(request).await.map(Response::new),
            Err(status) => Err(status),
        };
        entry.end(&result);
        result
    }

    async fn pull(&self, request: PullImageRequest) -> Result<PullImageResponse, Status> {
        let spec = request.image.unwrap_or_default();
        let image = &spec.image;
        let name = ImageRef::parse(image).map_err(|_| {
            Status::unknown(format!("failed to parse image reference {image:?}: invalid reference format"))
        })?;
        self.store.send_if_modified(|store| {
            store.needless += usize::from(store.find(image).is_some());
            false
        });
        let offer = self.offers.borrow().get(image).cloned().unwrap_or_default();
        let login = request.auth.as_ref().map(Login::from);
        let allowed = |(user, password): &(String, String)| {
            login.as_ref().is_some_and(|login| login.username == *user && login.password == *password)
        };
        if !offer.logins.is_empty() && !offer.logins.iter().any(allowed) {
            return Err(Status::unknown(format!(
                "failed to pull and unpack image {image:?}: pull access denied, repository does not exist or may require authorization: authorization failed{}",
                offer.refusal
            )));
        }
        tokio::time::sleep(offer.takes).await;
        if offer.forgotten {
            return Ok(PullImageResponse { image_ref: digest_of(&name, &offer) });
        }
        let mut id = String::new();
        self.store.send_modify(|store| {
            store.add(&name, &spec.runtime_handler, &offer);
            id = store.find(image).map(|image| image.id.clone()).unwrap_or_default();
        });
        Ok(PullImageResponse { image_ref: id })
    }
}

#[tonic::async_trait]
impl RuntimeService for Fake {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        self.answer(Method::Version, request, async |_| {
            Ok(VersionResponse {
                version: "0.1.0".to_owned(),
                runtime_name: "fake".to_owned(),
                runtime_version: "1.0.0".to_owned(),
                runtime_api_version: "v1".to_owned(),
            })
        })
        .await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.answer(Method::Status, request, async |_| {
            let ready = |kind: &str| RuntimeCondition { r#type: kind.to_owned(), status: true, ..Default::default() };
            let status = RuntimeStatus { conditions: vec![ready("RuntimeReady"), ready("NetworkReady")] };
            Ok(StatusResponse { status: Some(status), ..StatusResponse::default() })
        })
        .await
    }
}

#[tonic::async_trait]
impl ImageService for Fake {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        self.answer(Method::ListImages, request, async |request: ListImagesRequest| {
            let store = self.store.borrow();
            let images = match request.image().filter(|spec| !spec.image.is_empty()) {
                Some(spec) => store.find(&spec.image).into_iter().cloned().collect(),
                None => store.images.values().cloned().collect(),
            };
            Ok(ListImagesResponse { images })
        })
        .await
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        self.answer(Method::ImageStatus, request, async |request: ImageStatusRequest| {
            let image = request.image.and_then(|spec| self.store.borrow().find(&spec.image).cloned());
            Ok(ImageStatusResponse { image, ..ImageStatusResponse::default() })
        })
        .await
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        self.answer(Method::PullImage, request, async |request| self.pull(request).await).await
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        self.answer(Method::RemoveImage, request, async |request: RemoveImageRequest| {
            let image = request.image.unwrap_or_default().image;
            self.store.send_modify(|store| store.remove(&image));
            Ok(RemoveImageResponse {})
        })
        .await
    }

    async fn image_fs_info(
        &self,
        request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        self.answer(Method::ImageFsInfo, request, async |_| {
            let used = self.store.borrow().images.values().map(|image| image.size).sum();
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let usage = FilesystemUsage {
                timestamp: i64::try_from(now.as_nanos()).unwrap_or(i64::MAX),
                fs_id: Some(FilesystemIdentifier { mountpoint: self.mountpoint.to_string_lossy().into_owned() }),
                used_bytes: Some(UInt64Value { value: used }),
                inodes_used: None,
            };
            Ok(ImageFsInfoResponse { image_filesystems: vec![usage], container_filesystems: Vec::new() })
        })
        .await
    }
}
