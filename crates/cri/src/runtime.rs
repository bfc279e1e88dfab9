//! The node's container runtime, over CRI version 1 on a unix socket.

mod connection;
mod content;
pub mod endpoint;
mod events;
pub mod image_fs;
pub mod leases;
mod look;
mod pins;

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

pub use connection::Closed;
pub use endpoint::Endpoint;
pub use events::{StoreEvent, StoreEvents, event_of};
pub use pins::{NOTICED_WITHIN, Pinned, record_of};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout},
};
use tonic::{Code, Request, Status, transport::Channel};

use crate::cri::{
    AuthConfig, Image, ImageSpec, ImageStatusRequest, ListImagesRequest, PodSandboxConfig, PodSandboxMetadata,
    PullImageRequest, VersionRequest, VersionResponse, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use prepull_core::{desired::Target, error_text::one_line};

/// Largest message in either direction: a store of 10,000 images lists in about 5 MB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Bound of every call but a pull, the kubelet's `runtimeRequestTimeout`.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);
/// Bound of the first call on a new connection.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Bound of one socket while the usual ones are tried.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The socket cannot be connected to.
    #[error("cannot connect to the container runtime at {endpoint}: {reason}")]
    Connect {
        /// The socket.
        endpoint: Endpoint,
        /// The system's or gRPC's word for it.
        reason: String,
    },
    /// Something answers that does not speak CRI version 1.
    #[error("{endpoint} does not answer as a CRI v1 runtime: {reason}")]
    Hello {
        /// The socket.
        endpoint: Endpoint,
        /// What came instead.
        reason: String,
    },
    /// A call failed.
    #[error("the container runtime refused {method}: {reason}")]
    Call {
        /// The CRI method.
        method: &'static str,
        /// gRPC's word for it.
        reason: String,
    },
}

/// Told after each call: method, gRPC code in Go's wording, and how long it took.
pub type Observer = Arc<dyn Fn(&'static str, &'static str, Duration) + Send + Sync>;

/// A connection to the runtime.
#[derive(Clone)]
pub struct Runtime {
    images: ImageServiceClient<Channel>,
    /// For what is no part of CRI.
    channel: Channel,
    endpoint: Endpoint,
    version: VersionResponse,
    closed: Closed,
    observer: Observer,
    /// Whether containerd's own services answer, once that was asked.
    tells_progress: Arc<OnceCell<bool>>,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("endpoint", &self.endpoint)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Connects, and asks for the version to see that a runtime answers.
    pub async fn connect(endpoint: &Endpoint, observer: Observer) -> Result<Self, RuntimeError> {
        let (channel, closed) = connection::open(endpoint.path())
            .await
            .map_err(|reason| RuntimeError::Connect { endpoint: endpoint.clone(), reason })?;
        let hello = |reason: String| {
            let fix = endpoint.fix(&reason).map(|fix| format!(". Fix: {fix}")).unwrap_or_default();
            RuntimeError::Hello { endpoint: endpoint.clone(), reason: format!("{reason}{fix}") }
        };
        let mut client = RuntimeServiceClient::new(channel.clone());
        let began = Instant::now();
        let answer = timeout(HELLO_TIMEOUT, client.version(VersionRequest { version: "v1".into() })).await;
        let Ok(answer) = answer else {
            return Err(hello(format!("no answer within {} s", HELLO_TIMEOUT.as_secs())));
        };
        let code = answer.as_ref().map_or_else(|status| code_name(status), |_| "OK");
        observer("Version", code, began.elapsed());
        let mut runtime = Self {
            images: ImageServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            channel,
            endpoint: endpoint.clone(),
            version: VersionResponse::default(),
            closed,
            observer,
            tells_progress: Arc::default(),
        };
        match answer {
            Ok(version) => runtime.version = version.into_inner(),
            // the kubelet can be given an image service of its own, which need not be a runtime
            Err(status) if status.code() == Code::Unimplemented && runtime.serves_images().await => {
                "image service".clone_into(&mut runtime.version.runtime_name);
            }
            Err(status) => return Err(hello(one_line(status.message()))),
        }
        Ok(runtime)
    }

    /// Whether the image service of CRI version 1 answers. What it says does not matter.
    async fn serves_images(&self) -> bool {
        let probe = ImageSpec { image: "prepull.invalid/probe:1".to_owned(), ..ImageSpec::default() };
        let answer = timeout(HELLO_TIMEOUT, self.status(probe)).await;
        answer.is_ok_and(|answer| answer.err().is_none_or(|status| status.code() != Code::Unimplemented))
    }

    /// The socket.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its name as it tells it, such as `containerd` or `cri-o`.
    pub fn name(&self) -> &str {
        &self.version.runtime_name
    }

    /// Name and version as the runtime tells them, such as `containerd 2.1.9`.
    pub fn name_and_version(&self) -> String {
        one_line(&format!("{} {}", self.version.runtime_name, self.version.runtime_version))
    }

    /// Resolves when the connection ends, which is when the runtime's process ends.
    pub fn closed(&self) -> Closed {
        self.closed.clone()
    }

    /// Everything in the store.
    pub async fn list(&self) -> Result<Vec<Image>, Status> {
        let mut client = self.images.clone();
        let call = client.list_images(ListImagesRequest { filter: None });
        let answer = self.observed("ListImages", bounded(call)).await?;
        Ok(answer.into_inner().images)
    }

    /// What the store has under a name or ID; none where it has nothing.
    pub async fn status(&self, image: ImageSpec) -> Result<Option<Image>, Status> {
        let mut client = self.images.clone();
        let call = client.image_status(ImageStatusRequest { image: Some(image), verbose: false });
        Ok(self.observed("ImageStatus", bounded(call)).await?.into_inner().image)
    }

    /// Pulls, under a lease if there is one. There is no bound here: the caller drops the future to end the pull, which
    /// the runtime notices.
    pub async fn pull(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        namespace: Option<&str>,
        lease: Option<&str>,
    ) -> Result<String, Status> {
        let mut client = self.images.clone();
        let sandbox_config = (namespace.is_some() || !image.runtime_handler.is_empty()).then(|| PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                namespace: namespace.unwrap_or_default().to_owned(),
                ..Default::default()
            }),
        });
        let mut request = Request::new(PullImageRequest { image: Some(image), auth, sandbox_config });
        if let Some(lease) = lease.and_then(|lease| lease.parse().ok()) {
            request.metadata_mut().insert("containerd-lease", lease);
        }
        let call = client.pull_image(request);
        Ok(self.observed("PullImage", call).await?.into_inner().image_ref)
    }

    async fn observed<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let began = Instant::now();
        let answer = call.await;
        let code = answer.as_ref().map_or_else(code_name, |_| "OK");
        (self.observer)(method, code, began.elapsed());
        answer
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(REQUEST_TIMEOUT, call).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded(format!("the runtime did not answer within {} s", REQUEST_TIMEOUT.as_secs())))
    })
}

/// A status' code in Go's wording.
pub fn code_name(status: &Status) -> &'static str {
    prepull_core::error_class::Code::from_number(status.code().into()).as_str()
}

/// What the runtime is sent about a target.
pub fn spec_of(target: &Target) -> ImageSpec {
    ImageSpec {
        image: target.image.cri_image(),
        annotations: HashMap::new(),
        user_specified_image: String::new(),
        runtime_handler: target.key.runtime_handler.to_string(),
    }
}

/// The first of these sockets at which a runtime answers; else why none does, without those that are not there.
pub async fn find_among<P: AsRef<Path>>(sockets: &[P], observer: &Observer) -> Result<Runtime, Vec<String>> {
    let mut reasons = Vec::new();
    for socket in sockets.iter().map(AsRef::as_ref) {
        match socket.try_exists() {
            Ok(true) => {}
            Ok(false) => continue,
            Err(e) => {
                reasons.push(format!("{} cannot be looked at: {e}", socket.display()));
                continue;
            }
        }
        // one that accepts and says nothing must not keep the next one from being found
        match timeout(PROBE_TIMEOUT, Runtime::connect(&Endpoint::of_path(socket), observer.clone())).await {
            Ok(Ok(runtime)) => return Ok(runtime),
            Ok(Err(e)) => reasons.push(e.to_string()),
            Err(_) => {
                reasons.push(format!("{} gives no answer within {} s", socket.display(), PROBE_TIMEOUT.as_secs()));
            }
        }
    }
    Err(reasons)
}
