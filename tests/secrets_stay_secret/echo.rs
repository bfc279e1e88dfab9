//! A registry and its token server that repeat what they are sent, behind real runtimes.

use std::{path::Path, sync::Arc};

use anyhow::{Result, ensure};
use axum::{
    Json, Router,
    body::to_bytes,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{
    canaries::token,
    shown::Setting,
    support::{
        background::Background,
        containerd::Containerd,
        cri_proxy::CriProxy,
        images::digest,
        journal::{Method, Outcome},
        parts::ContainerdPart,
        registry::Upstream,
        sources::{docker_config, flag, secret_yaml, write},
    },
};

/// Which request is refused with all that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The first one, with basic authentication demanded.
    Basic,
    /// That for a token.
    Token,
    /// That for a manifest's head, with the token.
    Head,
    /// That for a manifest.
    Manifest,
    /// That for a layer or a configuration.
    Blob,
}

struct Registry {
    at: At,
    address: String,
}

/// Everything in a request, and what it decodes to.
async fn told(request: Request) -> String {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let authorization = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let encoded = authorization.strip_prefix("Basic ").unwrap_or_default();
    let decoded = STANDARD.decode(encoded).unwrap_or_default();
    format!(
        "Authorization: {authorization} ({}) {} {}",
        String::from_utf8_lossy(&decoded),
        String::from_utf8_lossy(&body),
        parts.uri
    )
}

/// A refusal with the text in its body and, as far as a header can hold it, in its challenge.
fn refuse(status: StatusCode, scheme: &str, text: &str) -> Response {
    let body = json!({"errors": [{"code": "DENIED", "message": text, "detail": text}], "details": text});
    let quoted = text.replace(['"', '\\', '\n'], " ");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(challenge) = HeaderValue::from_str(&format!("{scheme},error=\"{quoted}\",error_description=\"{quoted}\""))
    {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    (status, headers, body.to_string()).into_response()
}

async fn answer(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let is_head = request.method() == "HEAD";
    let authorized = request.headers().contains_key(AUTHORIZATION);
    let bearer =
        format!("Bearer realm=\"http://{}/token\",service=\"echo\",scope=\"repository:app:pull\"", registry.address);
    let basic = "Basic realm=\"echo\"";
    let text = told(request).await;
    if path == "/token" {
        if registry.at == At::Token {
            return refuse(StatusCode::UNAUTHORIZED, basic, &text);
        }
        let token = token("issued");
        return Json(json!({"token": token, "access_token": token, "expires_in": 300})).into_response();
    }
    let scheme = if registry.at == At::Basic { basic } else { &bearer };
    if !authorized {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, scheme.to_owned())]).into_response();
    }
    let failing = match registry.at {
        At::Basic => true,
        At::Token => false,
        At::Head => is_head,
        At::Manifest => !is_head && path.contains("/manifests/"),
        At::Blob => path.contains("/blobs/"),
    };
    if failing {
        let status = if registry.at == At::Basic { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
        return refuse(status, scheme, &text);
    }
    let blob =
        json!({"mediaType": "application/vnd.oci.image.config.v1+json", "size": 9, "digest": digest(b"something")});
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let body = json!({"schemaVersion": 2, "mediaType": kind, "config": blob, "layers": []}).to_string();
    let headers = [("content-type", kind.to_owned()), ("docker-content-digest", digest(body.as_bytes()))];
    (headers, body).into_response()
}

fn start(at: At) -> Result<(Background, String)> {
    let background = Background::start("echo")?;
    let (listener, address) = background.listen()?;
    let router = Router::new().fallback(answer).with_state(Arc::new(Registry { at, address: address.clone() }));
    background.spawn(async move {
        // it ends only with its runtime
        let _ = axum::serve(listener, router).await;
    });
    Ok((background, address))
}

/// One candidate with a password, and one with a refresh token.
fn plant(folder: &Path, host: &str) -> Result<Vec<String>> {
    let password = json!({"username": "robot", "password": token("password")});
    let identity = json!({"username": "robot", "identitytoken": token("identity"), "registrytoken": token("registry")});
    Ok([
        flag("pull-secret", &write(folder, "secret.yaml", &secret_yaml("pull", &docker_config(host, &password)))?),
        flag("docker-config", &write(folder, "config.json", &docker_config(host, &identity))?),
    ]
    .concat())
}

pub(crate) async fn servers(part: ContainerdPart) -> Result<()> {
    let containerd = Containerd::start(&part, &[]).await?;
    let mut repeated = 0;
    for at in [At::Basic, At::Token, At::Head, At::Manifest, At::Blob] {
        let (_server, host) = start(at)?;
        containerd.route(&host, &Upstream::http(&host))?;
        let proxy = CriProxy::start(&containerd.socket())?;
        let folder = tempfile::tempdir()?;
        let flags = plant(folder.path(), &host)?;
        let image = format!("{host}/app:1");
        let socket = proxy.socket();
        let setting = Setting {
            socket: &socket,
            folder: folder.path(),
            images: &[&image],
            flags,
            environment: vec![],
            state: "BackOff",
        };
        setting.look().await?;
        let calls = proxy.journal().calls(Method::PullImage);
        ensure!(calls.len() >= 2, "{at:?}: {calls:?}");
        let leaks = |call: &&super::support::journal::Call| matches!(call.outcome(), Some(Outcome::Failed(_, text)) if text.contains("canary"));
        repeated += calls.iter().filter(leaks).count();
    }
    ensure!(repeated > 0, "the runtime repeats nothing, so this proves nothing");
    Ok(())
}
