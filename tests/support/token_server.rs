//! The token server of a registry that hands out tokens, as most public registries do.

use std::{fs, path::Path, sync::Arc, time::SystemTime};

use anyhow::{Result, anyhow};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{background::Background, tcp_proxy::TcpProxy};

const ISSUER: &str = "prepull tests";
const SERVICE: &str = "prepull-tests";
/// Repositories below it are for anybody.
pub const PUBLIC: &str = "public/";

/// One request for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// User and password, if some were given.
    pub login: Option<(String, String)>,
    /// All scopes that were asked for.
    pub scopes: Vec<String>,
    /// Whether a token was given out.
    pub granted: bool,
}

/// A running token server; it ends with its value.
pub struct TokenServer {
    network: TcpProxy,
    certificate: String,
    shared: Arc<Shared>,
    _background: Background,
}

struct Shared {
    login: (String, String),
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    requests: watch::Sender<Vec<TokenRequest>>,
}

impl TokenServer {
    /// Starts one that knows one user; its certificate goes into `folder`.
    pub fn start(user: &str, password: &str, folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["token".to_owned()])?;
        let path = folder.join("token.crt");
        fs::write(&path, made.cert.pem())?;
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            made.signing_key.serialized_der(),
            &SystemRandom::new(),
        )
        .map_err(|rejected| anyhow!("the token server's key is not usable: {rejected}"))?;
        let shared = Arc::new(Shared {
            login: (user.to_owned(), password.to_owned()),
            key,
            certificate: made.cert.der().to_vec(),
            requests: watch::Sender::new(Vec::new()),
        });
        let background = Background::start("token server")?;
        let (listener, address) = background.listen()?;
        let router = Router::new().route("/token", get(token)).with_state(Arc::clone(&shared));
        background.spawn(async move {
            // it ends only with its runtime
            let _ = axum::serve(listener, router).await;
        });
        let network = TcpProxy::start(&address)?;
        Ok(Self { network, certificate: path.to_string_lossy().into_owned(), shared, _background: background })
    }

    /// Host and port at which clients reach it.
    pub fn address(&self) -> &str {
        self.network.host()
    }

    /// The network before it.
    pub fn network(&self) -> &TcpProxy {
        &self.network
    }

    /// What was asked of it, oldest first.
    pub fn requests(&self) -> Vec<TokenRequest> {
        self.shared.requests.borrow().clone()
    }

    /// The registry's side of it, as YAML.
    pub(super) fn settings(&self) -> Value {
        json!({
            "realm": format!("http://{}/token", self.address()),
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": self.certificate,
        })
    }
}

async fn token(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let login = headers.get(AUTHORIZATION).and_then(|value| basic(value.to_str().ok()?));
    let scopes: Vec<_> = query.into_iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope).collect();
    // a wrong login is refused even for what is public, as real registries do
    let granted = login.as_ref().is_none_or(|login| *login == shared.login);
    let known = login.is_some();
    shared.requests.send_modify(|all| all.push(TokenRequest { login, scopes: scopes.clone(), granted }));
    if !granted {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let access = scopes.iter().filter_map(|scope| access(scope, known)).collect();
    match shared.sign(&Value::Array(access)) {
        Ok(token) => Json(json!({"token": token, "access_token": token, "expires_in": 300})).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Shared {
    fn sign(&self, access: &Value) -> Result<String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(&self.certificate)]});
        let claims = json!({
            "iss": ISSUER, "sub": "", "aud": SERVICE, "jti": now.to_string(),
            "iat": now, "nbf": now - 10, "exp": now + 300, "access": access,
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature =
            self.key.sign(&SystemRandom::new(), signed.as_bytes()).map_err(|_| anyhow!("a token cannot be signed"))?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// `repository:NAME:ACTIONS`, as far as it is granted.
fn access(scope: &str, known: bool) -> Option<Value> {
    let mut parts = scope.split(':');
    let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
    let granted: Vec<_> =
        actions.split(',').filter(|action| known || (name.starts_with(PUBLIC) && *action == "pull")).collect();
    Some(json!({"type": kind, "name": name, "actions": granted}))
}

fn basic(header: &str) -> Option<(String, String)> {
    let decoded = BASE64_STANDARD.decode(header.strip_prefix("Basic ")?).ok()?;
    let (user, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
