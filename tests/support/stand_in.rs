//! A registry that answers wrongly on purpose: one of a single image, or one that stands before a real registry and
//! passes on what does not go wrong. What a real registry can do by itself is tested with a real one.

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
use http_body_util::BodyExt;
use hyper::{body::Bytes, header::HOST};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::watch;

use super::{
    background::Background,
    images::{Artifact, Image},
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
    behind: Behind,
    fault: watch::Sender<Fault>,
}

/// Where answers come from that do not go wrong.
enum Behind {
    Image(Box<Image>),
    Registry { host: String, client: Box<Client<HttpConnector, Body>> },
}

/// Larger blobs of a real registry are layers: a configuration of these tests has a few hundred bytes.
const CONFIGURATION: usize = 4096;

impl StandIn {
    /// Serves `image` under every repository and tag.
    pub fn start(image: Image, fault: Fault) -> Result<Self> {
        Self::with(Behind::Image(Box::new(image)), fault)
    }

    /// Passes everything on to the registry at `host`, and its answers back.
    pub fn before(host: &str, fault: Fault) -> Result<Self> {
        let client = Box::new(Client::builder(TokioExecutor::new()).build_http());
        Self::with(Behind::Registry { host: host.to_owned(), client }, fault)
    }

    fn with(behind: Behind, fault: Fault) -> Result<Self> {
        let background = Background::start("stand-in")?;
        let (listener, address) = background.listen()?;
        let fault = watch::Sender::new(fault);
        let shared = Arc::new(Shared { behind, fault: fault.clone() });
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

async fn answer(State(shared): State<Arc<Shared>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let fault = shared.fault.borrow().clone();
    let asked = parse(uri.path());
    if let Some((target, _)) = asked
        && let Some(wrong) = refusal(&fault, target)
    {
        return wrong;
    }
    match &shared.behind {
        Behind::Image(image) => of_image(image, asked, &method, &fault),
        Behind::Registry { host, client } => match forward(client, host, &method, &uri, headers, &fault).await {
            Ok(response) => response,
            // an answer that ends before it began
            Err(error) => Response::new(Body::from_stream(stream::once(async { Err::<Bytes, _>(error) }))),
        },
    }
}

fn refusal(fault: &Fault, target: Target) -> Option<Response> {
    let Fault::Status { target: failing, status, headers, body } = fault else { return None };
    if *failing == target {
        let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers: HeaderMap = headers
            .iter()
            .filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::from_str(value).ok()?)))
            .collect();
        return Some((status, headers, body.clone()).into_response());
    }
    None
}

fn of_image(image: &Image, asked: Option<(Target, &str)>, method: &Method, fault: &Fault) -> Response {
    let Some((target, reference)) = asked else {
        return StatusCode::OK.into_response();
    };
    let found = match target {
        Target::Manifests => Some(image.manifest()),
        Target::Blobs => image.blobs().into_iter().find(|blob| blob.digest == reference),
    };
    let Some(blob) = found else { return StatusCode::NOT_FOUND.into_response() };
    let is_layer = image.layers().iter().any(|layer| layer.blob().digest == blob.digest);
    let body = if *method == Method::HEAD {
        Body::empty()
    } else if is_layer {
        layer(&blob.bytes, fault)
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

/// The real registry's answer; a layer of it as the fault wants it.
async fn forward(
    client: &Client<HttpConnector, Body>,
    host: &str,
    method: &Method,
    uri: &Uri,
    mut headers: HeaderMap,
    fault: &Fault,
) -> Result<Response> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    headers.insert(HOST, HeaderValue::from_str(host)?);
    let mut request =
        hyper::Request::builder().method(method).uri(format!("http://{host}{path}")).body(Body::empty())?;
    *request.headers_mut() = headers;
    let (head, body) = client.request(request).await?.into_parts();
    let is_blob = matches!(parse(uri.path()), Some((Target::Blobs, _)));
    if !is_blob || !head.status.is_success() || *method == Method::HEAD {
        return Ok(Response::from_parts(head, Body::new(body)));
    }
    let bytes = body.collect().await?.to_bytes();
    if *fault == Fault::TruncatedLayers && head.status == StatusCode::PARTIAL_CONTENT {
        // a runtime that asks for the rest would get half of that, and have everything in the end
        return Err(std::io::Error::other("cut on purpose").into());
    }
    let body = if bytes.len() > CONFIGURATION { layer(&bytes, fault) } else { Body::from(bytes) };
    Ok(Response::from_parts(head, body))
}

fn layer(bytes: &Bytes, fault: &Fault) -> Body {
    let half = bytes.slice(..bytes.len() / 2);
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
        Fault::ChangedLayers => Body::from(bytes.iter().map(|byte| !byte).collect::<Vec<_>>()),
        Fault::None | Fault::Status { .. } => Body::from(bytes.clone()),
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
