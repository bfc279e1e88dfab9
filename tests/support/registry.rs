//! A real registry (docker-registry) of the test's own on a loopback port.

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::time::Instant;

use super::{
    access_log::{self, Access},
    images::Artifact,
    parts, process,
    process::{Running, tail},
    push::Pusher,
    token_server::TokenServer,
};

/// How a registry is reached and whom it lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryKind {
    /// HTTP for anybody.
    Plain,
    /// HTTP for one user, by basic authentication.
    Htpasswd {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// HTTPS for anybody, with a certificate that only [`Upstream::ca`] knows.
    Tls,
    /// HTTP with tokens from a token server: `public/…` for anybody, the rest for one user.
    Token {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
}

impl RegistryKind {
    /// Basic authentication for one user.
    pub fn htpasswd(user: &str, password: &str) -> Self {
        Self::Htpasswd { user: user.to_owned(), password: password.to_owned() }
    }

    /// Tokens for one user.
    pub fn token(user: &str, password: &str) -> Self {
        Self::Token { user: user.to_owned(), password: password.to_owned() }
    }
}

/// How a runtime reaches a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Scheme, host and port.
    pub url: String,
    /// The authority of its certificate.
    pub ca: Option<PathBuf>,
    /// Whether any certificate will do.
    pub skip_verify: bool,
}

impl Upstream {
    /// HTTP to an address.
    pub fn http(address: &str) -> Self {
        Self { url: format!("http://{address}"), ca: None, skip_verify: false }
    }

    /// HTTPS to an address, with the system's authorities alone.
    pub fn https(address: &str) -> Self {
        Self { url: format!("https://{address}"), ca: None, skip_verify: false }
    }
}

/// What was pushed, by the names that a runtime pulls it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// `HOST/REPOSITORY:TAG`.
    pub by_tag: String,
    /// `HOST/REPOSITORY@DIGEST`.
    pub by_digest: String,
    /// The digest of the manifest, or of the index where one was pushed.
    pub digest: String,
}

/// A registry. Dropping it ends it and removes what it stored.
pub struct Registry {
    kind: RegistryKind,
    port: u16,
    front: Option<Running>,
    /// Where pushes go that would need TLS or a token at the front: the same storage, no guard.
    back: Option<(Running, u16)>,
    tokens: Option<TokenServer>,
    folder: TempDir,
}

impl Registry {
    /// Starts one on a free port.
    pub async fn start(kind: RegistryKind) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("prepull-registry-").tempdir()?;
        let tokens = match &kind {
            RegistryKind::Token { user, password } => Some(TokenServer::start(user, password, folder.path())?),
            RegistryKind::Plain | RegistryKind::Htpasswd { .. } | RegistryKind::Tls => None,
        };
        if let RegistryKind::Htpasswd { user, password } = &kind {
            // the lowest cost: every request of a pull is checked
            let hash = bcrypt::hash(password, 4)?;
            fs::write(folder.path().join("htpasswd"), format!("{user}:{hash}\n"))?;
        }
        if kind == RegistryKind::Tls {
            certify(folder.path(), 2100)?;
        }
        let mut registry = Self { kind, port: 0, front: None, back: None, tokens, folder };
        let (front, port) = registry.launch_on_free_port("front").await?;
        (registry.front, registry.port) = (Some(front), port);
        if matches!(registry.kind, RegistryKind::Tls | RegistryKind::Token { .. }) {
            registry.back = Some(registry.launch_on_free_port("back").await?);
        }
        Ok(registry)
    }

    /// Host and port as they stand in image names.
    pub fn host(&self) -> String {
        address(self.port)
    }

    /// The full name of `repository:tag` here.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// How a runtime reaches it.
    pub fn upstream(&self) -> Upstream {
        match self.kind {
            RegistryKind::Tls => {
                Upstream { ca: Some(self.folder.path().join("tls.crt")), ..Upstream::https(&self.host()) }
            }
            RegistryKind::Plain | RegistryKind::Htpasswd { .. } | RegistryKind::Token { .. } => {
                Upstream::http(&self.host())
            }
        }
    }

    /// The token server of a [`RegistryKind::Token`] registry.
    pub fn tokens(&self) -> Option<&TokenServer> {
        self.tokens.as_ref()
    }

    /// Pushes an image or an index as `REPOSITORY:TAG`; an existing tag moves.
    pub async fn push(&self, name: &str, artifact: &dyn Artifact) -> Result<Pushed> {
        let (repository, tag) = split(name)?;
        self.pusher().push(repository, tag, artifact).await?;
        let digest = artifact.digest().to_owned();
        Ok(Pushed { by_tag: self.image(name), by_digest: self.image(&format!("{repository}@{digest}")), digest })
    }

    /// Puts the tag of `new` (`REPOSITORY:TAG`) on what `old` of the same repository names.
    pub async fn retag(&self, old: &str, new: &str) -> Result<()> {
        let (repository, existing) = split(old)?;
        let (other, tag) = split(new)?;
        ensure!(repository == other, "a tag cannot move from {repository} to {other}");
        self.pusher().tag(repository, existing, tag).await
    }

    /// Deletes a manifest and all tags on it.
    pub async fn delete(&self, repository: &str, digest: &str) -> Result<()> {
        self.pusher().delete(repository, digest).await
    }

    /// Takes it off its port: connections are refused from now on.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut front) = self.front.take() {
            front.kill()?;
        }
        Ok(())
    }

    /// Starts it again with a certificate that is valid until the begin of a year, for HTTPS.
    pub async fn restart_certified_until(&mut self, year: i32) -> Result<()> {
        certify(self.folder.path(), year)?;
        self.restart().await
    }

    /// Starts it again on the same port.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.front = Some(self.launch("front", self.port).await?);
        Ok(())
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.front.as_ref().map(Running::pid)
    }

    /// All requests so far, oldest first, those of pushes to this port included.
    pub async fn requests(&self) -> Result<Vec<Access>> {
        access_log::read(&self.folder.path().join("front.out")).await
    }

    /// How often a repository's manifests were asked for (HEAD or GET).
    pub async fn manifest_requests(&self, repository: &str) -> Result<usize> {
        Ok(self.requests().await?.iter().filter(|access| access.is_manifest_of(repository)).count())
    }

    /// How often a repository's blobs were downloaded, and how many bytes of them.
    pub async fn blob_downloads(&self, repository: &str) -> Result<(usize, u64)> {
        let requests = self.requests().await?;
        let blobs = requests.iter().filter(|access| access.is_blob_of(repository));
        Ok(blobs.fold((0, 0), |(count, bytes), access| (count + 1, bytes + access.bytes)))
    }

    fn pusher(&self) -> Pusher {
        let back = self.back.as_ref().map(|(_, port)| address(*port));
        match &self.kind {
            RegistryKind::Htpasswd { user, password } => Pusher::new(self.host(), Some((user, password))),
            RegistryKind::Plain | RegistryKind::Tls | RegistryKind::Token { .. } => {
                Pusher::new(back.unwrap_or_else(|| self.host()), None)
            }
        }
    }

    /// Another process may take the port between its choice and its use; then the next one is tried.
    async fn launch_on_free_port(&self, side: &str) -> Result<(Running, u16)> {
        let mut last = anyhow!("no port is free");
        for _ in 0..5 {
            let port = free_port()?;
            match self.launch(side, port).await {
                Ok(running) => return Ok((running, port)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn launch(&self, side: &str, port: u16) -> Result<Running> {
        let program = parts::docker_registry()?;
        let config = self.folder.path().join(format!("{side}.yml"));
        fs::write(&config, self.config(side, port)?)?;
        let mut command = process::command(&program);
        command.arg("serve").arg(&config);
        let mut running = Running::start(side, command, self.folder.path())?;
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let answers = tokio::net::TcpStream::connect(address(port)).await.is_ok();
            // first the process, because a stranger on its port would answer as well
            let log = || tail(&self.folder.path().join(format!("{side}.err")));
            ensure!(running.ended().is_none(), "docker-registry ended at its start: {}", log());
            if answers {
                return Ok(running);
            }
            ensure!(Instant::now() < end, "docker-registry does not answer on port {port}: {}", log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn config(&self, side: &str, port: u16) -> Result<String> {
        let file = |name: &str| quoted(&self.folder.path().join(name));
        let mut text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
            file("storage")
        );
        let mut http = format!("addr: \"{}\", secret: \"of a test\"", address(port));
        if side == "front" {
            match (&self.kind, &self.tokens) {
                (RegistryKind::Tls, _) => {
                    write!(http, ", tls: {{certificate: {}, key: {}}}", file("tls.crt"), file("tls.key"))?;
                }
                (RegistryKind::Htpasswd { .. }, _) => {
                    writeln!(text, "auth: {{htpasswd: {{realm: tests, path: {}}}}}", file("htpasswd"))?;
                }
                (RegistryKind::Token { .. }, Some(tokens)) => writeln!(text, "auth: {{token: {}}}", tokens.settings())?,
                (RegistryKind::Plain | RegistryKind::Token { .. }, _) => {}
            }
        }
        writeln!(text, "http: {{{http}}}")?;
        Ok(text)
    }
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Writes a key and a certificate that is its own authority.
fn certify(folder: &Path, until: i32) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    fs::write(folder.join("tls.crt"), params.self_signed(&key)?.pem())?;
    fs::write(folder.join("tls.key"), key.serialize_pem())?;
    Ok(())
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn split(name: &str) -> Result<(&str, &str)> {
    name.rsplit_once(':').with_context(|| format!("{name} has no tag"))
}

/// JSON's strings are YAML's too.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
