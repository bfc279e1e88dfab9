//! The one HTTP client of the cloud lookups: small, bounded and without redirects.
//!
//! A token that is asked for every few hours needs no pool of connections, and redirects could carry it to another
//! host. The TLS stack is the one that the Kubernetes client brings.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use tokio::{sync::OnceCell, time::timeout};

use super::{
    answer::{Answer, secrets_of},
    environment::Environment,
    routes::{Connector, Routes},
    text::shown,
};

/// Largest body that is read. Tokens have a few kilobytes.
const MAX_BODY: usize = 256 * 1024;
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long one request may take, connection and body included.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no answer. No text of it holds anything of the request but its host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpError {
    /// The address, which a variable or a registry's name gave, is none.
    #[error("`{0}` is no web address")]
    Address(String),
    /// No connection, or it broke.
    #[error("cannot ask {host}: {cause}")]
    Broken {
        /// Who was asked.
        host: String,
        /// The innermost cause.
        cause: String,
    },
    /// Nothing, or not everything, came in time.
    #[error("{host} did not answer within {} s", limit.as_secs())]
    Silent {
        /// Who was asked.
        host: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The body is longer than any token.
    #[error("{host} answered with more than {} KiB", MAX_BODY / 1024)]
    TooLarge {
        /// Who was asked.
        host: String,
    },
    /// A redirect could carry a token to another host.
    #[error("{host} answered with a redirect ({status}), which is not followed")]
    Redirect {
        /// Who was asked.
        host: String,
        /// The status.
        status: u16,
    },
    /// There is no certificate to check a server's with.
    #[error("no CA certificates were found: mount /etc/ssl/certs or set SSL_CERT_FILE")]
    NoRoots,
}

/// A client for one lookup. CA certificates are read at the first `https` request and dropped with it, so that an idle
/// agent does not keep them and a renewed bundle counts at once.
pub(super) struct Http {
    routes: Routes,
    env: Environment,
    tls: OnceCell<Arc<ClientConfig>>,
}

impl Http {
    /// A client that reads nothing yet.
    pub(super) fn new(routes: Routes, env: Environment) -> Self {
        Self { routes, env, tls: OnceCell::new() }
    }

    /// Sends one request and reads the whole answer, within [`REQUEST_LIMIT`].
    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Answer, HttpError> {
        self.send_within(REQUEST_LIMIT, request).await
    }

    /// As [`Http::send`], with a limit of its own.
    pub(super) async fn send_within(&self, limit: Duration, request: Request<Bytes>) -> Result<Answer, HttpError> {
        let host = host_of(request.uri());
        timeout(limit, self.exchange(&host, limit, request))
            .await
            .unwrap_or_else(|_| Err(HttpError::Silent { host, limit }))
    }

    async fn exchange(&self, host: &str, limit: Duration, request: Request<Bytes>) -> Result<Answer, HttpError> {
        let secrets = secrets_of(&request);
        let broken = |cause: String| HttpError::Broken { host: host.to_owned(), cause };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT.min(limit)));
        let connector = Connector::new(tcp, self.routes.clone());
        let builder = || {
            let mut builder = Client::builder(TokioExecutor::new());
            builder.pool_max_idle_per_host(0);
            builder
        };
        let response = if request.uri().scheme() == Some(&http::uri::Scheme::HTTPS) {
            let https = HttpsConnector::from((connector, self.tls().await?));
            builder().build::<_, Full<Bytes>>(https).request(request.map(Full::new)).await
        } else {
            builder().build::<_, Full<Bytes>>(connector).request(request.map(Full::new)).await
        };
        let (parts, body) = response.map_err(|err| broken(innermost(&err)))?.into_parts();
        if parts.status.is_redirection() {
            return Err(HttpError::Redirect { host: host.to_owned(), status: parts.status.as_u16() });
        }
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|err| {
            if err.is::<LengthLimitError>() {
                HttpError::TooLarge { host: host.to_owned() }
            } else {
                broken(innermost(err.as_ref()))
            }
        })?;
        Ok(Answer::new(parts.status, parts.headers, body.to_bytes(), secrets))
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, HttpError> {
        self.tls.get_or_try_init(|| read_roots(self.env.clone())).await.cloned()
    }
}

/// The system's CA certificates, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
async fn read_roots(env: Environment) -> Result<Arc<ClientConfig>, HttpError> {
    let read = move || {
        let (file, dir) = (env.get("SSL_CERT_FILE"), env.get("SSL_CERT_DIR"));
        let found = if file.is_some() || dir.is_some() {
            rustls_native_certs::load_certs_from_paths(file.map(AsRef::as_ref), dir.map(AsRef::as_ref))
        } else {
            rustls_native_certs::load_native_certs()
        };
        let mut roots = RootCertStore::empty();
        // bundles hold a certificate that cannot be read now and then; the others still count
        let (added, _) = roots.add_parsable_certificates(found.certs);
        (added > 0).then_some(roots)
    };
    let roots = tokio::task::spawn_blocking(read).await.ok().flatten().ok_or(HttpError::NoRoots)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| HttpError::Broken { host: "TLS".to_owned(), cause: shown(&err.to_string()) })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Host and port of an address, for messages.
fn host_of(uri: &Uri) -> String {
    uri.authority().map_or_else(String::new, |authority| shown(authority.as_str()))
}

/// The last cause in a chain: the outer ones only say that a request failed.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    shown(&cause.to_string())
}
