//! Local servers in the place of the clouds', and lookups that can reach nothing else.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use prepull::{
    credentials::cloud::{CloudLookup, CloudOptions, Clouds, Routes},
    image_ref::ImageRef,
};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// One header, empty where it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The path.
    pub(crate) fn path(&self) -> &str {
        self.uri.path()
    }

    /// The fields of a form in the body, in order.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The parameters of the query, in order.
    pub(crate) fn query(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
    }
}

/// What is answered: a status and a body, or anything else that axum can turn into a response.
pub(crate) fn reply(status: u16, body: impl Into<Body>) -> Response {
    (StatusCode::from_u16(status).unwrap(), body.into()).into_response()
}

/// A server on a loopback port that notes what it is asked.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl StandIn {
    /// Serves plain HTTP.
    pub(crate) async fn plain<F>(answer: F) -> Self
    where
        F: Fn(&Seen) -> Response + Clone + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::default());
        let router = router(Arc::clone(&seen), answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, seen }
    }

    /// Serves HTTPS with a certificate of the authority's for the hosts.
    pub(crate) async fn tls<F>(authority: &Authority, hosts: &[&str], answer: F) -> Self
    where
        F: Fn(&Seen) -> Response + Clone + Send + Sync + 'static,
    {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (tcp.local_addr().unwrap(), Arc::default());
        let router = router(Arc::clone(&seen), answer);
        let listener = TlsListener { tcp, acceptor: authority.acceptor(hosts) };
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, seen }
    }

    /// The base address of a plain server.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub(crate) async fn seen(&self) -> Vec<Seen> {
        self.seen.lock().await.clone()
    }
}

fn router<F>(seen: Arc<Mutex<Vec<Seen>>>, answer: F) -> Router
where
    F: Fn(&Seen) -> Response + Clone + Send + Sync + 'static,
{
    Router::new().fallback(async move |request: Request| {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
        let request = Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body };
        let response = answer(&request);
        seen.lock().await.push(request);
        response
    })
}

/// An authority whose certificate is in a file.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    /// What `SSL_CERT_FILE` is set to.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn acceptor(&self, hosts: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let certificate = CertificateParams::new(hosts).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, peer) = self.tcp.accept().await.unwrap();
            // a client that does not trust the certificate goes away, and the next one is served
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// Lookups under a clock that is set by hand, with no way off the machine.
pub(crate) struct Node {
    env: BTreeMap<String, String>,
    routes: Vec<(String, SocketAddr)>,
    seconds: Arc<AtomicI64>,
}

impl Node {
    /// A node with nothing set.
    pub(crate) fn new() -> Self {
        Self { env: BTreeMap::new(), routes: Vec::new(), seconds: Arc::new(AtomicI64::new(1_800_000_000)) }
    }

    /// Sets a variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    /// Keys in variables, so that nothing else is asked for them.
    pub(crate) fn keys(self) -> Self {
        self.env("AWS_ACCESS_KEY_ID", "AKIDCANARY").env("AWS_SECRET_ACCESS_KEY", "canary-aws-secret")
    }

    /// Leads a host to a server.
    pub(crate) fn route(mut self, host: &str, to: &StandIn) -> Self {
        self.routes.push((host.to_owned(), to.address));
        self
    }

    /// Trusts an authority.
    pub(crate) fn trust(self, authority: &Authority) -> Self {
        self.env("SSL_CERT_FILE", authority.file().to_str().unwrap())
    }

    /// The hand of the clock.
    pub(crate) fn seconds(&self) -> Arc<AtomicI64> {
        Arc::clone(&self.seconds)
    }

    /// The lookups.
    pub(crate) fn clouds(self) -> Clouds {
        let seconds = self.seconds;
        let clock = Arc::new(move || Timestamp::from_second(seconds.load(Ordering::Relaxed)).unwrap());
        Clouds::new(CloudOptions { env: self.env, routes: Routes::only(self.routes), clock })
    }
}

/// Looks an image up, and checks what holds for every lookup.
pub(crate) async fn lookup(clouds: &Clouds, image: &str) -> CloudLookup {
    let found = clouds.lookup(&ImageRef::parse(image).unwrap()).await;
    for problem in &found.problems {
        assert!(!problem.chars().any(char::is_control), "{problem:?} is one line");
        assert!(problem.len() < 2_000, "{problem} is bounded");
        assert!(!problem.to_lowercase().contains("canary"), "{problem} holds a secret");
    }
    assert!(!format!("{found:?}{clouds:?}").contains("canary"), "debug output holds a secret");
    found
}

/// Pattern, user and password of the only credential found.
pub(crate) fn only(found: &CloudLookup) -> (&str, &str, &str) {
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let [(pattern, auth)] = &found.found[..] else { panic!("{found:?}") };
    (pattern, &auth.username, auth.password.expose_secret())
}

/// The only problem, where nothing was found.
pub(crate) fn problem(found: &CloudLookup) -> &str {
    assert!(found.found.is_empty(), "{found:?}");
    let [problem] = &found.problems[..] else { panic!("{found:?}") };
    problem
}
