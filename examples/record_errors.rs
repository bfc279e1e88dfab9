//! Records how the runtimes here word their errors: `cargo run --example record_errors` rewrites
//! `tests/vectors/runtime-errors.json` for every runtime that it finds, and keeps what is recorded of the others.
#![allow(clippy::print_stderr, reason = "a command for developers")]

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    time::{Instant, timeout},
};
use tonic::Status;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
    background::Background,
    containerd::{Containerd, Options},
    cri::{self, Client},
    images::{Content, Image, Index, Layer, Platform},
    parts::{self, ContainerdPart},
    raw_cri,
    registry::{Registry, RegistryKind, Upstream, free_port},
    stand_in::{Fault, StandIn, Target},
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/runtime-errors.json");
/// What stands for every registry's port, and for the other end of a connection.
const REGISTRY: &str = "127.0.0.1:5000";
const SMALL_DISK: u64 = 24 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    runtime: String,
    case: String,
    code: String,
    message: String,
    expected_class: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected_cause: Option<String>,
}

/// The errors of one runtime so far.
struct Recorder {
    runtime: String,
    folder: String,
    ports: Vec<String>,
    all: Vec<Recorded>,
}

impl Recorder {
    /// `class` may name the cause as well: `NotFound/missing-blob`.
    fn add(&mut self, case: &str, class: &str, result: Result<String, Status>) {
        let Err(status) = result else {
            eprintln!("{}: {case}: no error", self.runtime);
            return;
        };
        let (class, cause) = class.split_once('/').map_or((class, None), |(class, cause)| (class, Some(cause)));
        self.all.push(Recorded {
            runtime: self.runtime.clone(),
            case: case.to_owned(),
            code: format!("{:?}", status.code()),
            message: self.steady(status.message()),
            expected_class: class.to_owned(),
            expected_cause: cause.map(str::to_owned),
        });
    }

    /// The text without what differs from run to run.
    fn steady(&self, text: &str) -> String {
        let mut text = text.replace(&self.folder, "/run/containerd");
        for port in &self.ports {
            text = text.replace(port, REGISTRY);
        }
        let text = without_numbers_after(&text, "127.0.0.1:", &format!("->{REGISTRY}"), "40000");
        let text = without_resolver(&text);
        let text = without_unpack_key(&text);
        let text = without_numbers_after(&text, "containerd-mount", "", "1");
        let text = without_numbers_after(&text, "new-", "", "1");
        without_numbers_after(&text, "/snapshots/", "", "1")
    }
}

/// Replaces the digits between `before` and `after` by `number`.
fn without_numbers_after(text: &str, before: &str, after: &str, number: &str) -> String {
    let mut steady = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once(before) {
        steady.push_str(head);
        steady.push_str(before);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        if digits > 0 && tail[digits..].starts_with(after) {
            steady.push_str(number);
            rest = &tail[digits..];
        } else {
            rest = tail;
        }
    }
    steady + rest
}

/// The name server of the machine that recorded: ` on 10.0.0.1:53`.
fn without_resolver(text: &str) -> String {
    let Some((head, tail)) = text.split_once("lookup no-such-host.invalid on ") else { return text.to_owned() };
    let after = tail.find(": ").map_or("", |at| &tail[at..]);
    format!("{head}lookup no-such-host.invalid on 192.0.2.53:53{after}")
}

/// 2.1's name of an unpack, `"extract-NANOSECONDS-RANDOM sha256:…"`.
fn without_unpack_key(text: &str) -> String {
    let Some((head, tail)) = text.split_once("\"extract-") else { return text.to_owned() };
    let after = tail.find(' ').map_or("", |at| &tail[at..]);
    format!("{head}\"extract-1-AAAA{after}")
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut all: Vec<Recorded> = match fs::read(FILE) {
        Ok(bytes) => serde_json::from_slice(&bytes).context("the recorded errors are not readable")?,
        Err(_) => Vec::new(),
    };
    for part in parts::containerds() {
        match part {
            Ok(part) => {
                let runtime = part.name();
                eprintln!("{runtime} ({})", part.version);
                let recorded = record(&part).await?;
                all.retain(|old| old.runtime != runtime);
                all.extend(recorded);
            }
            Err(missing) => eprintln!("left out: {missing}"),
        }
    }
    all.sort_by(|a, b| (&a.case, &a.runtime).cmp(&(&b.case, &b.runtime)));
    fs::write(FILE, serde_json::to_string_pretty(&all)? + "\n")?;
    Ok(())
}

async fn record(part: &ContainerdPart) -> Result<Vec<Recorded>> {
    let options = Options { progress_timeout: Some(Duration::from_secs(3)), ..Options::default() };
    let mut containerd = Containerd::start_with(part, &[], options).await?;
    let mut recorder = Recorder {
        runtime: part.name(),
        folder: containerd.folder().to_string_lossy().into_owned(),
        ports: Vec::new(),
        all: Vec::new(),
    };
    names_and_tags(&containerd, &mut recorder).await?;
    logins(&containerd, &mut recorder).await?;
    connections(&containerd, &mut recorder).await?;
    answers(&containerd, &mut recorder).await?;
    strange_answers(&containerd, &mut recorder).await?;
    layers(&containerd, &mut recorder).await?;
    contents(&containerd, &mut recorder).await?;
    runtime_gone(&mut containerd, &mut recorder).await?;
    drop(containerd);
    proxies(part, &mut recorder).await?;
    snapshotters(part, &mut recorder).await?;
    full_disk(part, &mut recorder).await?;
    Ok(recorder.all)
}

async fn names_and_tags(containerd: &Containerd, recorder: &mut Recorder) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    recorder.ports.push(registry.host());
    containerd.route(&registry.host(), &registry.upstream())?;
    let image = Image::small("present")?;
    registry.push("app:1", &image).await?;
    let foreign = Image::for_platform("foreign", image.layers(), Platform::foreign());
    let index = registry.push("foreign:index", &Index::new(vec![foreign])).await?;
    let absent = format!("sha256:{}", "0".repeat(64));

    for (case, class, name) in [
        ("tag-not-found", "NotFound", registry.image("app:absent")),
        ("repository-not-found", "NotFound", registry.image("absent/app:1")),
        ("digest-not-found", "NotFound", registry.image(&format!("app@{absent}"))),
        ("index-without-platform", "NoMatchingPlatform", index.by_tag.clone()),
        ("index-without-platform-by-digest", "NoMatchingPlatform", index.by_digest.clone()),
        ("upper-case-name", "InvalidName", registry.image("App:1")),
        ("malformed-name", "InvalidName", registry.image("app:1:2")),
        ("empty-name", "InvalidName", String::new()),
    ] {
        recorder.add(case, class, containerd.pull(&name).await);
    }
    Ok(())
}

async fn logins(containerd: &Containerd, recorder: &mut Recorder) -> Result<()> {
    for (prefix, kind) in
        [("basic", RegistryKind::htpasswd("user", "right")), ("token", RegistryKind::token("user", "right"))]
    {
        let registry = Registry::start(kind).await?;
        recorder.ports.push(registry.host());
        recorder.ports.extend(registry.tokens().map(|tokens| tokens.address().to_owned()));
        containerd.route(&registry.host(), &registry.upstream())?;
        let pushed = registry.push("private/app:1", &Image::small("private")?).await?;
        let client = containerd.client();
        recorder.add(&format!("{prefix}-no-login"), "Unauthorized", client.pull(&pushed.by_tag).await);
        let wrong = client.pull_with(&pushed.by_tag, Some(("user", "wrong"))).await;
        recorder.add(&format!("{prefix}-wrong-password"), "Unauthorized", wrong);
        client.pull_with(&pushed.by_tag, Some(("user", "right"))).await.context("the right password was refused")?;
    }
    Ok(())
}

async fn connections(containerd: &Containerd, recorder: &mut Recorder) -> Result<()> {
    let closed = format!("127.0.0.1:{}", free_port()?);
    recorder.ports.push(closed.clone());
    containerd.route(&closed, &Upstream::http(&closed))?;
    let result = containerd.pull(&format!("{closed}/app:1")).await;
    recorder.add("connection-refused", "RegistryUnavailable", result);
    let result = containerd.pull("no-such-host.invalid/app:1").await;
    recorder.add("unknown-host", "RegistryUnavailable", result);

    let secure = Registry::start(RegistryKind::Tls).await?;
    let plain = Registry::start(RegistryKind::Plain).await?;
    recorder.ports.extend([secure.host(), plain.host()]);
    let pushed = secure.push("app:1", &Image::small("secure")?).await?;
    containerd.route(&secure.host(), &Upstream::https(&secure.host()))?;
    recorder.add("unknown-authority", "Tls", containerd.pull(&pushed.by_tag).await);
    containerd.route(&plain.host(), &Upstream::https(&plain.host()))?;
    recorder.add("http-answer-to-https", "Tls", containerd.pull(&plain.image("app:1")).await);
    containerd.route(&secure.host(), &secure.upstream())?;
    containerd.pull(&pushed.by_tag).await.context("the right authority was refused")?;
    Ok(())
}

async fn answers(containerd: &Containerd, recorder: &mut Recorder) -> Result<()> {
    let stand_in = StandIn::start(Image::small("stand-in")?, Fault::None)?;
    recorder.ports.push(stand_in.host().to_owned());
    containerd.route(stand_in.host(), &stand_in.upstream())?;
    for (status, code, class) in [
        (401, "UNAUTHORIZED", "Unauthorized"),
        (403, "DENIED", "Unauthorized"),
        (404, "MANIFEST_UNKNOWN", "NotFound"),
        (429, "TOOMANYREQUESTS", "RateLimited"),
        (500, "UNKNOWN", "RegistryUnavailable"),
        (502, "", "RegistryUnavailable"),
        (503, "", "RegistryUnavailable"),
        (504, "", "RegistryUnavailable"),
    ] {
        let body = match code {
            "" => "<html>not here</html>".to_owned(),
            code => format!("{{\"errors\":[{{\"code\":\"{code}\",\"message\":\"on purpose\"}}]}}"),
        };
        for (target, what) in [(Target::Manifests, "manifest"), (Target::Blobs, "blob")] {
            stand_in.set(Fault::Status { target, status, headers: Vec::new(), body: body.clone() });
            let name = format!("{}/{what}-{status}:1", stand_in.host());
            let class = if (target, status) == (Target::Blobs, 404) { "NotFound/missing-blob" } else { class };
            recorder.add(&format!("{what}-status-{status}"), class, containerd.pull(&name).await);
        }
    }
    Ok(())
}

async fn layers(containerd: &Containerd, recorder: &mut Recorder) -> Result<()> {
    for (fault, case, class) in [
        (Fault::TruncatedLayers, "truncated-layer", "RegistryUnavailable"),
        (Fault::ChangedLayers, "changed-layer", "DamagedContent"),
        (Fault::SilentLayers, "no-progress", "Stalled"),
        (Fault::SilentLayers, "deadline", "Timeout"),
    ] {
        // an own layer for each: one that is in the store already would not be downloaded again
        let seed = u64::try_from(recorder.all.len())?;
        let image = Image::new(case, &[Layer::new(seed, 400_000, Content::Random)?]);
        let stand_in = StandIn::start(image, fault)?;
        recorder.ports.push(stand_in.host().to_owned());
        containerd.route(stand_in.host(), &stand_in.upstream())?;
        let name = format!("{}/app:1", stand_in.host());
        let deadline = Duration::from_secs(if case == "deadline" { 1 } else { 20 });
        let request = cri::pull_request(&name, None);
        let start = Instant::now();
        let result = raw_cri::pull(&containerd.socket(), request, deadline).await;
        if case == "no-progress" && start.elapsed() >= deadline {
            eprintln!("{}: {case}: the runtime does not give up", recorder.runtime);
        } else {
            recorder.add(case, class, result);
        }
    }
    Ok(())
}

/// Statuses that few servers send, and answers that no registry or token server gives.
async fn strange_answers(containerd: &Containerd, recorder: &mut Recorder) -> Result<()> {
    const HTML: &str = "<!DOCTYPE html><html><body>Sign in to the network</body></html>";
    let stand_in = StandIn::start(Image::small("strange")?, Fault::None)?;
    recorder.ports.push(stand_in.host().to_owned());
    containerd.route(stand_in.host(), &stand_in.upstream())?;
    let manifests = |status, headers, body: &str| Fault::Status {
        target: Target::Manifests,
        status,
        headers,
        body: body.to_owned(),
    };
    for status in [501, 505, 507, 520, 522, 524, 530] {
        stand_in.set(manifests(status, Vec::new(), ""));
        let name = format!("{}/strange-{status}:1", stand_in.host());
        recorder.add(&format!("manifest-status-{status}"), "RegistryUnavailable", containerd.pull(&name).await);
    }
    stand_in.set(manifests(200, vec![("content-type", "text/html; charset=utf-8".to_owned())], HTML));
    let result = containerd.pull(&format!("{}/portal:1", stand_in.host())).await;
    recorder.add("html-for-manifest", "RegistryUnavailable/not-a-registry", result);
    stand_in.set(manifests(200, vec![("content-type", "text/html".to_owned())], ""));
    let result = containerd.pull(&format!("{}/empty:1", stand_in.host())).await;
    recorder.add("nothing-for-manifest", "RegistryUnavailable/not-a-registry", result);

    let tokens = Canned::start()?;
    recorder.ports.push(tokens.address.clone());
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"x\"", tokens.address);
    stand_in.set(manifests(401, vec![("www-authenticate", challenge)], ""));
    for (case, class, status, body) in [
        ("html", "RegistryUnavailable/no-token", "200 OK", HTML),
        ("empty-object", "RegistryUnavailable/no-token", "200 OK", "{}"),
        ("nothing", "RegistryUnavailable/no-token", "200 OK", ""),
        ("status-520", "RegistryUnavailable", "520", ""),
        ("status-503", "RegistryUnavailable", "503 Service Unavailable", ""),
    ] {
        tokens.set(status, body);
        let name = format!("{}/token-{case}:1", stand_in.host());
        recorder.add(&format!("token-server-{case}"), class, containerd.pull(&name).await);
        let result = containerd.client().pull_with(&name, Some(("user", "password"))).await;
        recorder.add(&format!("token-server-{case}-with-login"), class, result);
    }
    Ok(())
}

/// Images that arrive whole and cannot be unpacked.
async fn contents(containerd: &Containerd, recorder: &mut Recorder) -> Result<()> {
    let layer = |seed| Layer::new(seed, 200_000, Content::Compressible);
    for (case, class, image) in [
        ("cut-gzip", "DamagedContent", Image::new("cut-gzip", &[layer(301)?.cut()])),
        ("wrong-diff-id", "DamagedContent", Image::new("wrong-diff-id", &[layer(302)?.with_wrong_diff_id()])),
        (
            "unknown-layer-type",
            // 1.7 takes only layers whose type it knows, and compares their number
            if recorder.runtime == "containerd-1.7" {
                "UnsupportedArtifact/config-does-not-fit"
            } else {
                "UnsupportedArtifact"
            },
            Image::new("unknown-type", &[layer(303)?.of_type("application/vnd.example.layer.v1.tar+magic")]),
        ),
        (
            "encrypted-layer",
            "RuntimeMisconfigured/decoder-missing",
            Image::new("encrypted", &[layer(304)?.of_type("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")]),
        ),
        ("helm-chart", "UnsupportedArtifact/config-does-not-fit", Image::helm_chart("chart", layer(305)?)),
    ] {
        let stand_in = StandIn::start(image, Fault::None)?;
        recorder.ports.push(stand_in.host().to_owned());
        containerd.route(stand_in.host(), &stand_in.upstream())?;
        recorder.add(case, class, containerd.pull(&format!("{}/{case}:1", stand_in.host())).await);
    }
    Ok(())
}

/// What a proxy answers CONNECT with, and one that is not there.
async fn proxies(part: &ContainerdPart, recorder: &mut Recorder) -> Result<()> {
    let proxy = Canned::start()?;
    recorder.ports.push(proxy.address.clone());
    let environment = vec![("HTTPS_PROXY", format!("http://{}", proxy.address))];
    let containerd = Containerd::start_with(part, &[], Options { environment, ..Options::default() }).await?;
    for (case, status) in [
        ("401", "401 Unauthorized"),
        ("403", "403 Forbidden"),
        ("404", "404 Not Found"),
        ("407", "407 Proxy Authentication Required"),
        ("502", "502 Bad Gateway"),
        ("503", "503 Service Unavailable"),
    ] {
        proxy.set(status, "");
        let result = containerd.pull("registry.invalid/app:1").await;
        recorder.add(&format!("proxy-{case}"), "RegistryUnavailable/proxy", result);
    }
    drop(proxy);
    let result = containerd.pull("registry.invalid/app:1").await;
    recorder.add("proxy-refuses-connections", "RegistryUnavailable/proxy", result);
    // here, because this containerd has its usual patience
    let full = Full::start().await?;
    recorder.ports.push(full.address.clone());
    containerd.route(&full.address, &Upstream::http(&full.address))?;
    let result = containerd.pull(&format!("{}/app:1", full.address)).await;
    recorder.add("dropped-packets", "RegistryUnavailable", result);
    Ok(())
}

/// A snapshotter that is configured and does not run. One that is not configured at all keeps containerd's CRI plugin
/// from being loaded.
async fn snapshotters(part: &ContainerdPart, recorder: &mut Recorder) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    recorder.ports.push(registry.host());
    let pushed = registry.push("app:1", &Image::small("snapshotter")?).await?;
    let socket = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock";
    let options = Options { snapshotter: Some(("stargz", socket)), ..Options::default() };
    let containerd = Containerd::start_with(part, &[&registry], options).await?;
    recorder.folder = containerd.folder().to_string_lossy().into_owned();
    let class = if recorder.runtime.starts_with("containerd-2") {
        "RuntimeMisconfigured/snapshotter-missing"
    } else {
        "RuntimeMisconfigured/plugin-not-answering"
    };
    recorder.add("snapshotter-does-not-answer", class, containerd.pull(&pushed.by_tag).await);
    Ok(())
}

/// A port whose queue is full, so that the kernel drops what comes, as a firewall does.
struct Full {
    address: String,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Full {
    async fn start() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        let listener = socket.listen(0)?;
        let address = listener.local_addr()?.to_string();
        let mut queued = Vec::new();
        while let Ok(stream) = timeout(Duration::from_millis(500), TcpStream::connect(&address)).await {
            queued.push(stream?);
        }
        Ok(Self { address, _listener: listener, _queued: queued })
    }
}

/// A server that gives every request the same answer and closes the connection.
struct Canned {
    address: String,
    answer: watch::Sender<String>,
    _background: Background,
}

impl Canned {
    fn start() -> Result<Self> {
        let background = Background::start("canned")?;
        let (listener, address) = background.listen()?;
        let answer = watch::Sender::new(String::new());
        let answers = answer.subscribe();
        background.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 8192];
                // what was asked does not matter
                let _ = stream.read(&mut request).await;
                let answer = answers.borrow().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(Self { address, answer, _background: background })
    }

    fn set(&self, status: &str, body: &str) {
        let length = body.len();
        self.answer.send_replace(format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ));
    }
}

async fn runtime_gone(containerd: &mut Containerd, recorder: &mut Recorder) -> Result<()> {
    let image = Image::new("killed", &[Layer::new(77, 400_000, Content::Random)?]);
    let stand_in = StandIn::start(image, Fault::SilentLayers)?;
    containerd.route(stand_in.host(), &stand_in.upstream())?;
    let name = format!("{}/app:1", stand_in.host());
    let client = containerd.client().clone();
    let pull = tokio::spawn(async move { client.pull(&name).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    containerd.kill()?;
    recorder.add("runtime-killed", "RuntimeUnavailable", pull.await?);
    let client = Client::lazy(&containerd.socket())?;
    recorder.add("runtime-down", "RuntimeUnavailable", client.pull("registry.example/app:1").await);
    let client = Client::lazy(Path::new("/run/no-such-runtime.sock"))?;
    recorder.add("no-socket", "RuntimeUnavailable", client.pull("registry.example/app:1").await);
    Ok(())
}

async fn full_disk(part: &ContainerdPart, recorder: &mut Recorder) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    recorder.ports.push(registry.host());
    let size = usize::try_from(SMALL_DISK)?;
    for (case, content) in [("no-space-download", Content::Random), ("no-space-unpack", Content::Compressible)] {
        // a disk for each: what the first pull left would fill the second one's
        let options = Options { disk: Some(SMALL_DISK), ..Options::default() };
        let containerd = Containerd::start_with(part, &[&registry], options).await?;
        recorder.folder = containerd.folder().to_string_lossy().into_owned();
        let image = Image::new(case, &[Layer::new(91, size * 2, content)?]);
        let pushed = registry.push(&format!("{case}:1"), &image).await?;
        recorder.add(case, "NoSpace", containerd.pull(&pushed.by_tag).await);
    }
    Ok(())
}
