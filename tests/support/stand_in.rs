//! A registry of one image that answers wrongly on purpose. What a real registry can do is tested with a real one.

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};
use hyper::body::Bytes;
use tokio::sync::watch;

use super::{
    background::Background,
    images::{Artifact, Blob, Image},
    registry::Upstream,
};

/// The kinds of things that a runtime asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Manifests, by tag and by digest.
    Manifests,
    /// Layers and configurations.
    Blobs,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// An error status instead of an answer.
    Status {
        /// For which requests.
        target: Target,
        /// The status.
        status: u16,
        /// Headers of the answer.
        headers: Vec<(&'static str, String)>,
        /// Its body.
        body: String,
    },
    /// The connection ends after half of a layer.
    TruncatedLayers,
    /// A layer has the right length and other bytes.
    ChangedLayers,
    /// Nothing more comes after half of a layer.
    SilentLayers,
}

/// A running stand-in; it ends with its value.
pub struct StandIn {
    address: String,
    fault: watch::Sender<Fault>,
    _background: Background,
}

struct Shared {
    image: Image,
    fault: watch::Sender<Fault>,
}

impl StandIn {
    /// Serves `image` under every repository and tag.
    pub fn start(image: Image, fault: Fault) -> Result<Self> {
        let background = Background::start("stand-in")?;
        let (listener, address) = background.listen()?;
        let fault = watch::Sender::new(fault);
        let shared = Arc::new(Shared { image, fault: fault.clone() });
        let router = Router::new().fallback(answer).with_state(shared);
        background.spawn(async move {
            // it ends only with its runtime
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, fault, _background: background })
    }

    /// Changes what goes wrong, from the next request on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Host and port as they stand in image names.
    pub fn host(&self) -> &str {
        &self.address
    }

    /// How a runtime reaches it.
    pub fn upstream(&self) -> Upstream {
        Upstream::http(&self.address)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, method: Method, uri: Uri) -> Response {
    let fault = shared.fault.borrow().clone();
    let Some((target, reference)) = parse(uri.path()) else {
        return StatusCode::OK.into_response();
    };
    if let Fault::Status { target: failing, status, headers, body } = &fault
        && *failing == target
    {
        let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers: HeaderMap = headers
            .iter()
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)))
            .collect();
        return (status, headers, body.clone()).into_response();
    }
    let found = match target {
        Target::Manifests => Some(shared.image.manifest()),
        Target::Blobs => shared.image.blobs().into_iter().find(|blob| blob.digest == reference),
    };
    let Some(blob) = found else { return StatusCode::NOT_FOUND.into_response() };
    let is_layer = shared.image.layers().iter().any(|layer| layer.blob().digest == blob.digest);
    let body = if method == Method::HEAD {
        Body::empty()
    } else if is_layer {
        layer(blob, &fault)
    } else {
        Body::from(blob.bytes.clone())
    };
    let headers = [
        (CONTENT_TYPE, blob.media_type.to_owned()),
        (CONTENT_LENGTH, blob.bytes.len().to_string()),
        (HeaderName::from_static("docker-content-digest"), blob.digest.clone()),
    ];
    (headers, body).into_response()
}

fn layer(blob: &Blob, fault: &Fault) -> Body {
    let half = blob.bytes.slice(..blob.bytes.len() / 2);
    match fault {
        Fault::TruncatedLayers => {
            // without the pause nothing at all would be sent before the connection ends
            let cut = async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(std::io::Error::other("cut on purpose"))
            };
            Body::from_stream(stream::iter([Ok::<Bytes, std::io::Error>(half)]).chain(stream::once(cut)))
        }
        Fault::SilentLayers => {
            Body::from_stream(stream::iter([Ok::<Bytes, Infallible>(half)]).chain(stream::pending()))
        }
        Fault::ChangedLayers => Body::from(blob.bytes.iter().map(|byte| !byte).collect::<Vec<_>>()),
        Fault::None | Fault::Status { .. } => Body::from(blob.bytes.clone()),
    }
}

/// `/v2/REPOSITORY/manifests/REFERENCE` and `/v2/REPOSITORY/blobs/DIGEST`; anything else is the greeting.
fn parse(path: &str) -> Option<(Target, &str)> {
    let (rest, reference) = path.rsplit_once('/')?;
    let target = match rest.rsplit_once('/')?.1 {
        "manifests" => Target::Manifests,
        "blobs" => Target::Blobs,
        _ => return None,
    };
    Some((target, reference))
}
