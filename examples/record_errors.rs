//! Records how the runtimes here word their errors: `cargo run --example record_errors` rewrites
//! `tests/vectors/runtime-errors.json` for every runtime that it finds, and keeps what is recorded of the others.
#![allow(clippy::print_stderr, reason = "a command for developers")]

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Status;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
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
}

/// The errors of one runtime so far.
struct Recorder {
    runtime: String,
    folder: String,
    ports: Vec<String>,
    all: Vec<Recorded>,
}

impl Recorder {
    fn add(&mut self, case: &str, class: &str, result: Result<String, Status>) {
        let Err(status) = result else {
            eprintln!("{}: {case}: no error", self.runtime);
            return;
        };
        self.all.push(Recorded {
            runtime: self.runtime.clone(),
            case: case.to_owned(),
            code: format!("{:?}", status.code()),
            message: self.steady(status.message()),
            expected_class: class.to_owned(),
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
    layers(&containerd, &mut recorder).await?;
    runtime_gone(&mut containerd, &mut recorder).await?;
    drop(containerd);
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
            recorder.add(&format!("{what}-status-{status}"), class, containerd.pull(&name).await);
        }
    }
    Ok(())
}

async fn layers(containerd: &Containerd, recorder: &mut Recorder) -> Result<()> {
    for (fault, case, class) in [
        (Fault::TruncatedLayers, "truncated-layer", "RegistryUnavailable"),
        (Fault::ChangedLayers, "changed-layer", "Unknown"),
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
