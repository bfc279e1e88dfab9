//! An API server that answers wrongly on purpose: it stands before a real one and passes on what does not go wrong.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{
        Request, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use kube::Client;
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::background::Background;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiFault {
    /// Nothing.
    None,
    /// An error status instead of an answer, with a wait in seconds.
    Status(u16, Option<u64>),
    /// Watches begin, and are told at once that their version is too old.
    Gone,
    /// Watches end after this time.
    Cut(Duration),
    /// Watches bring what is no event.
    Garbage,
    /// Requests whose path contains this text never get an answer.
    Silence(&'static str),
}

/// One request.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    /// When it came.
    pub at: Instant,
    /// Path and query.
    pub path: String,
}

/// A running proxy; it ends with its value.
pub struct ApiProxy {
    address: String,
    shared: Arc<Shared>,
    _background: Background,
}

struct Shared {
    upstream: Client,
    fault: watch::Sender<ApiFault>,
    requests: watch::Sender<Vec<ApiRequest>>,
}

impl ApiProxy {
    /// Starts one that makes its own requests by `kubeconfig`, whatever its clients say who they are.
    pub async fn start(kubeconfig: &str) -> Result<Self> {
        let background = Background::start("api proxy")?;
        let (listener, address) = background.listen()?;
        let config = kube::config::Kubeconfig::from_yaml(kubeconfig)?;
        let mut config =
            kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
        // what fails is the agent's to try again
        config.default_retry = false;
        config.read_timeout = None;
        let upstream = {
            let _here = background.enter();
            Client::try_from(config)?
        };
        let fault = watch::Sender::new(ApiFault::None);
        let shared = Arc::new(Shared { upstream, fault, requests: watch::Sender::new(Vec::new()) });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        background.spawn(async move {
            // it ends only with its runtime
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, _background: background })
    }

    /// A kubeconfig that leads here, with this token.
    pub fn kubeconfig(&self, token: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: '{}'}}}}]\nusers: [{{name: u, user: {{token: {token}}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
            self.url()
        )
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what goes wrong; watches that stand are ended by a change.
    pub fn set(&self, fault: ApiFault) {
        self.shared.fault.send_replace(fault);
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<ApiRequest> {
        self.shared.requests.borrow().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
    let is_watch = path.contains("watch=true");
    shared.requests.send_modify(|all| all.push(ApiRequest { at: Instant::now(), path: path.clone() }));
    let mut changes = shared.fault.subscribe();
    let fault = *changes.borrow_and_update();
    match fault {
        ApiFault::Status(status, wait) => refuse(status, wait),
        ApiFault::Silence(text) if path.contains(text) => std::future::pending().await,
        ApiFault::Gone if is_watch => event(
            &json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1",
            "status": "Failure", "reason": "Expired", "code": 410, "message": "too old resource version: 1 (2)"}})
            .to_string(),
        ),
        ApiFault::Garbage if is_watch => event("{\"type\": \"ADDED\", \"object\": [\u{1}not json"),
        ApiFault::None | ApiFault::Gone | ApiFault::Cut(_) | ApiFault::Garbage | ApiFault::Silence(_) => {
            let response = match pass(&shared, request, &path).await {
                Ok(response) => response,
                Err(error) => return (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response(),
            };
            if !is_watch {
                return response;
            }
            let (head, body) = response.into_parts();
            let end = async move {
                let cut = async {
                    match fault {
                        ApiFault::Cut(after) => tokio::time::sleep(after).await,
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = cut => {}
                    // the proxy has ended, or the fault is another now
                    _ = changes.changed() => {}
                }
            };
            Response::from_parts(head, Body::from_stream(body.into_data_stream().take_until(Box::pin(end))))
        }
    }
}

async fn pass(shared: &Shared, request: Request<Body>, path: &str) -> Result<Response> {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 16 << 20).await?;
    let mut forwarded =
        Request::builder().method(head.method).uri(path).body(kube::client::Body::from(body.to_vec()))?;
    *forwarded.headers_mut() = head.headers;
    // the proxy has its own
    forwarded.headers_mut().remove(AUTHORIZATION);
    forwarded.headers_mut().remove(HOST);
    let (head, body) = shared.upstream.send(forwarded).await?.into_parts();
    Ok(Response::from_parts(head, Body::new(body)))
}

fn refuse(status: u16, wait: Option<u64>) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "TooManyRequests", "code": status,
        "message": "refused on purpose"});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response();
    if let Some(wait) = wait {
        response.headers_mut().insert(RETRY_AFTER, wait.into());
    }
    response
}

fn event(line: &str) -> Response {
    ([(CONTENT_TYPE, "application/json")], format!("{line}\n")).into_response()
}
