//! A real kube-apiserver with its etcd, on free ports, with RBAC and an audit log. Nothing else of a cluster runs:
//! what a controller or a kubelet would write, a test writes.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    parts::Missing,
    process::{self, Running, tail},
    registry::free_port,
};

/// A busy machine needs a while; an idle one takes five seconds.
const PATIENCE: Duration = Duration::from_secs(90);
const AUDIT_POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// The folder with kube-apiserver and etcd.
#[derive(Debug, Clone)]
pub struct ApiServerPart(PathBuf);

impl ApiServerPart {
    /// That of `KUBEBUILDER_ASSETS`.
    pub fn find() -> Result<Self, Missing> {
        let missing = |sentence: String| Missing { part: "kube-apiserver".to_owned(), sentence };
        let folder = env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()).ok_or_else(|| {
            missing(
                "set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd (setup-envtest makes one)".to_owned(),
            )
        })?;
        let folder = PathBuf::from(folder);
        for program in ["kube-apiserver", "etcd"] {
            if !folder.join(program).is_file() {
                return Err(missing(format!("KUBEBUILDER_ASSETS is set, but has no {program}")));
            }
        }
        Ok(Self(folder))
    }
}

/// A running API server; dropping it ends it.
pub struct ApiServer {
    part: ApiServerPart,
    folder: TempDir,
    port: u16,
    etcd_port: u16,
    api: Option<Running>,
    _etcd: Running,
}

impl ApiServer {
    /// Starts one and waits until it is ready.
    pub async fn start(part: &ApiServerPart) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("prepull-api-").tempdir()?;
        certificates(folder.path())?;
        fs::write(folder.path().join("audit.yaml"), AUDIT_POLICY)?;
        let (port, etcd_port) = (free_port()?, free_port()?);
        let etcd = start_etcd(part, folder.path(), etcd_port)?;
        let mut server = Self { part: part.clone(), folder, port, etcd_port, api: None, _etcd: etcd };
        fs::write(
            server.path("admin.kubeconfig"),
            server.kubeconfig(&format!(
                "{{client-certificate: {}, client-key: {}}}",
                server.path("admin.crt").display(),
                server.path("admin.key").display()
            )),
        )?;
        server.open().await?;
        Ok(server)
    }

    /// Kills the API server; what it stored stays.
    pub fn close(&mut self) {
        self.api = None;
    }

    /// Starts the API server, again after [`ApiServer::close`], and waits until it is ready.
    pub async fn open(&mut self) -> Result<()> {
        let path = |name: &str| self.path(name).display().to_string();
        let mut command = process::command(&self.part.0.join("kube-apiserver"));
        for (flag, value) in [
            ("etcd-servers", format!("http://127.0.0.1:{}", self.etcd_port)),
            ("bind-address", "127.0.0.1".to_owned()),
            ("advertise-address", "127.0.0.1".to_owned()),
            ("secure-port", self.port.to_string()),
            ("tls-cert-file", path("server.crt")),
            ("tls-private-key-file", path("server.key")),
            ("client-ca-file", path("ca.crt")),
            ("service-account-key-file", path("sa.pub")),
            ("service-account-signing-key-file", path("sa.key")),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
            ("authorization-mode", "RBAC".to_owned()),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("audit-policy-file", path("audit.yaml")),
            ("audit-log-path", path("audit.log")),
            ("cert-dir", path("made")),
            // else each start waits for these to settle
            ("enable-priority-and-fairness", "false".to_owned()),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        self.api = Some(Running::start("kube-apiserver", command, self.folder.path())?);
        let end = Instant::now() + PATIENCE;
        loop {
            let ready = match self.admin().await {
                Ok(client) => client.request_text(http::Request::get("/readyz").body(Vec::new())?).await.is_ok(),
                Err(_) => false,
            };
            if ready {
                return Ok(());
            }
            let ended = self.api.as_mut().and_then(Running::ended);
            if Instant::now() > end || ended.is_some() {
                bail!("the API server is not ready ({ended:?}): {}", tail(&self.path("kube-apiserver.err")));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// A client that may do anything. It belongs to the runtime that it is made on.
    pub async fn admin(&self) -> Result<Client> {
        let config = Kubeconfig::read_from(self.path("admin.kubeconfig"))?;
        Ok(Client::try_from(Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?)?)
    }

    /// The text of a kubeconfig for a user with this token.
    pub fn kubeconfig_of(&self, token: &str) -> String {
        self.kubeconfig(&format!("{{token: {token}}}"))
    }

    fn kubeconfig(&self, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', certificate-authority: {}}}}}]\nusers: [{{name: u, user: {user}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
            self.port,
            self.path("ca.crt").display()
        )
    }

    /// Where the audit log ends now.
    pub fn audit_mark(&self) -> Result<u64> {
        Ok(fs::metadata(self.path("audit.log"))?.len())
    }

    /// What one user asked for since a mark, as `verb uri`, complete requests and begun watches alike.
    pub fn requests_since(&self, mark: u64, user: &str) -> Result<Vec<Asked>> {
        let mut file = fs::File::open(self.path("audit.log"))?;
        file.seek(SeekFrom::Start(mark))?;
        let mut asked = Vec::new();
        for line in BufReader::new(file).lines() {
            let Ok(event) = serde_json::from_str::<Value>(&line?) else { continue };
            if event["user"]["username"] == user {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                asked.push(Asked {
                    stage: text(&event["stage"]),
                    verb: text(&event["verb"]),
                    uri: text(&event["requestURI"]),
                    code: event["responseStatus"]["code"].as_u64().unwrap_or(0),
                });
            }
        }
        Ok(asked)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A request in the audit log.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `ResponseStarted` for a watch that begins, `ResponseComplete` for what has ended.
    pub stage: String,
    /// The verb.
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// The HTTP status.
    pub code: u64,
}

fn start_etcd(part: &ApiServerPart, folder: &Path, port: u16) -> Result<Running> {
    let peer = free_port()?;
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let mut command = process::command(&part.0.join("etcd"));
    command.args(["--data-dir".into(), folder.join("etcd")]);
    command.args(["--listen-client-urls", &url(port), "--advertise-client-urls", &url(port)]);
    command.args(["--listen-peer-urls", &url(peer), "--initial-advertise-peer-urls", &url(peer)]);
    command.args(["--initial-cluster", &format!("default={}", url(peer)), "--unsafe-no-fsync"]);
    Running::start("etcd", command, folder)
}

/// Writes a CA, the certificates of the server and of an administrator, and the key that signs service accounts.
fn certificates(folder: &Path) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "test-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(folder.join("ca.crt"), ca.pem())?;
    for (name, common, organisation) in [("server", "kube-apiserver", None), ("admin", "admin", Some("system:masters"))]
    {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        if let Some(organisation) = organisation {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        fs::write(folder.join(format!("{name}.crt")), params.signed_by(&key, &ca)?.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    let key = KeyPair::generate()?;
    fs::write(folder.join("sa.key"), key.serialize_pem())?;
    fs::write(folder.join("sa.pub"), key.public_key_pem())?;
    Ok(())
}

/// One API server for many trials, started when the first one wants it.
#[derive(Default)]
pub struct Shared(tokio::sync::OnceCell<ApiServer>);

impl Shared {
    /// The server.
    pub async fn get(&self, part: &ApiServerPart) -> Result<&ApiServer> {
        let server = self.0.get_or_try_init(|| ApiServer::start(part)).await.context("no API server")?;
        ensure!(server.api.is_some(), "the API server was ended");
        Ok(server)
    }
}
