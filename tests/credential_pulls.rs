//! Real pulls from registries with passwords, with a credential from each source in turn.

mod support;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{Router, routing::post};
use base64::{Engine, prelude::BASE64_STANDARD};
use libtest_mimic::Arguments;
use serde_json::{Value, json};
use support::{
    agent::{Agent, AgentOptions},
    background::Background,
    containerd::Containerd,
    cri_proxy::CriProxy,
    images::Image,
    journal::{Login, Method},
    parts::ContainerdPart,
    registry::{Registry, RegistryKind},
    script::Rule,
    sources::{
        docker_config, dockercfg, entry, flag, good_plugin, prepull, pull, pulled, secret_json, secret_yaml, write,
    },
    trials::on_every_containerd,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::Code;

const USER: &str = "robot";
const PASSWORD: &str = "s3cret-of-the-robot";
/// A name of Amazon's that no public DNS knows: its region is an isolated one.
const ECR: &str = "123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov";
/// Long enough for a busy machine, and never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let trials = [
        on_every_containerd("each_source_opens_a_registry_with_a_password", |part| each_source(part, Gate::Password)),
        on_every_containerd("each_source_opens_a_registry_with_tokens", |part| each_source(part, Gate::Tokens)),
        on_every_containerd("a_cloud_lookup_opens_a_registry", cloud),
        on_every_containerd("the_second_candidate_is_tried_when_the_first_is_refused", second_candidate),
        on_every_containerd("no_second_candidate_where_none_can_help", stopping_rules),
        on_every_containerd("the_status_names_the_credential", status_names_it),
        on_every_containerd("a_changed_docker_config_counts_at_the_next_lookup", changed_config),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_prepull").into()
}

/// How a registry keeps strangers out.
#[derive(Debug, Clone, Copy)]
enum Gate {
    Password,
    Tokens,
}

/// A private registry, a runtime that knows it, and a proxy between the two of us and the runtime.
struct Stage {
    registry: Registry,
    _containerd: Containerd,
    proxy: CriProxy,
    folder: TempDir,
}

impl Stage {
    async fn set(part: &ContainerdPart, gate: Gate) -> Result<Self> {
        let kind = match gate {
            Gate::Password => RegistryKind::htpasswd(USER, PASSWORD),
            Gate::Tokens => RegistryKind::token(USER, PASSWORD),
        };
        let registry = Registry::start(kind).await?;
        let containerd = Containerd::start(part, &[&registry]).await?;
        let proxy = CriProxy::start(&containerd.socket())?;
        Ok(Self { registry, _containerd: containerd, proxy, folder: tempfile::tempdir()? })
    }

    async fn image(&self, name: &str) -> Result<String> {
        Ok(self.registry.push(&format!("{name}:1"), &Image::small(name)?).await?.by_tag)
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        write(self.folder.path(), name, text)
    }

    /// A docker config for this registry, as a flag.
    fn config_flag(&self, name: &str, user: &str, password: &str) -> Result<Vec<String>> {
        let text = docker_config(&self.registry.host(), &entry(user, password));
        Ok(flag("docker-config", &self.file(name, &text)?))
    }

    /// Pulls with flags; gives what came of it and how often, and as whom, the runtime was asked.
    fn pull(&self, flags: &[String], image: &str) -> Result<(Value, Vec<Option<Login>>)> {
        self.proxy.journal().clear();
        let output = pull(&program(), self.folder.path(), &self.proxy.socket(), flags, image)?;
        let row = pulled(&output)?;
        ensure!(output.status.success() == (row["state"] == "Present"), "{output:?}");
        let logins = self.proxy.journal().calls(Method::PullImage).into_iter().map(|call| call.login).collect();
        Ok((row, logins))
    }

    fn agent(&self, images: &[&str], flags: Vec<String>) -> Result<Agent> {
        let options = AgentOptions { flags, ..AgentOptions::default() };
        Agent::start(&program(), &self.proxy.socket(), &list(images), &options)
    }
}

fn list(images: &[&str]) -> String {
    images.iter().fold("images:\n".to_owned(), |list, image| format!("{list}  - \"{image}\"\n"))
}

fn login(user: &str, password: &str) -> Login {
    Login { username: user.to_owned(), password: password.to_owned(), ..Login::default() }
}

async fn each_source(part: ContainerdPart, gate: Gate) -> Result<()> {
    let stage = Stage::set(&part, gate).await?;
    let image = stage.image("anonymous").await?;
    let (row, logins) = stage.pull(&[], &image)?;
    ensure!(row["class"] == "Unauthorized" && logins == [None], "it is open to anybody: {row:#} {logins:?}");

    let host = stage.registry.host();
    let good = entry(USER, PASSWORD);
    let auth = json!({"auth": BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"))});
    let config = docker_config(&host, &good);
    let named = stage.file("named.json", &docker_config(&host, &auth))?;
    let legacy = stage.file("legacy/.dockercfg", &dockercfg(&host, &good))?;
    let root = stage.file("kubelet/config.json", &config)?;
    let old_root = stage.file("old-kubelet/.dockercfg", &dockercfg(&format!("http://{host}/v1/"), &good))?;
    let yaml = stage.file("secret.yaml", &secret_yaml("pull", &config))?;
    let json = stage.file("secret.json", &secret_json("old", &dockercfg(&host, &good)))?;
    let folder_of = |file: &Path| file.parent().map(Path::to_path_buf).context("it lies in a folder");
    for (name, flags, credential) in [
        ("named", flag("docker-config", &named), format!("docker-config {}", named.display())),
        ("legacy", flag("docker-config", &legacy), format!("docker-config {}", legacy.display())),
        ("root", flag("kubelet-root", &folder_of(&root)?), format!("docker-config {}", root.display())),
        ("old-root", flag("kubelet-root", &folder_of(&old_root)?), format!("docker-config {}", old_root.display())),
        ("yaml", flag("pull-secret", &yaml), "pull-secret team/pull".to_owned()),
        ("json", flag("pull-secret", &json), "pull-secret old".to_owned()),
        ("plugin", good_plugin(stage.folder.path(), &host, &good)?, "exec-plugin helper".to_owned()),
    ] {
        let image = stage.image(name).await?;
        let (row, logins) = stage.pull(&flags, &image)?;
        ensure!(row["state"] == "Present", "{name}: {row:#}");
        ensure!(row["credential"] == credential.as_str(), "{name}: {row:#}");
        ensure!(logins == [Some(login(USER, PASSWORD))], "{name}: {logins:?}");
    }
    Ok(())
}

/// Amazon's API is played by a local server, and the runtime is told where the registry of that name is.
async fn cloud(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::htpasswd("AWS", PASSWORD)).await?;
    registry.push("team/app:1", &Image::small("app")?).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    containerd.route(ECR, &registry.upstream())?;
    let proxy = CriProxy::start(&containerd.socket())?;
    let background = Background::start("ecr")?;
    let (listener, address) = background.listen()?;
    let token = BASE64_STANDARD.encode(format!("AWS:{PASSWORD}"));
    let answer = json!({"authorizationData": [{"authorizationToken": token, "expiresAt": 1_900_000_000}]}).to_string();
    let router = Router::new().route("/", post(async move || answer));
    background.spawn(async move {
        // it ends only with its runtime
        let _ = axum::serve(listener, router).await;
    });
    let folder = tempfile::tempdir()?;
    let image = format!("{ECR}/team/app:1");
    let mut command = prepull(&program(), folder.path());
    command.args(["pull", "-o", "json", "--cloud-credentials", "auto", "--runtime-endpoint"]).arg(proxy.socket());
    command.env("AWS_ENDPOINT_URL_ECR", format!("http://{address}"));
    command.env("AWS_ACCESS_KEY_ID", "AKIDOFATEST").env("AWS_SECRET_ACCESS_KEY", "key-of-a-test");
    let output = command.arg(&image).output()?;
    let row = pulled(&output)?;
    ensure!(row["state"] == "Present" && row["credential"] == "cloud ecr", "{output:?}");
    let pulls = proxy.journal().calls(Method::PullImage);
    ensure!(pulls.len() == 1 && pulls[0].login == Some(login("AWS", PASSWORD)), "{pulls:?}");
    ensure!(registry.manifest_requests("team/app").await? > 0, "the image came from somewhere else");
    Ok(())
}

async fn second_candidate(part: ContainerdPart) -> Result<()> {
    for gate in [Gate::Password, Gate::Tokens] {
        let stage = Stage::set(&part, gate).await?;
        let host = stage.registry.host();
        let image = stage.image("two").await?;
        let wrong = stage.file("wrong.yaml", &secret_yaml("wrong", &docker_config(&host, &entry(USER, "wrong"))))?;
        let flags = [flag("pull-secret", &wrong), stage.config_flag("right.json", USER, PASSWORD)?].concat();
        let (row, logins) = stage.pull(&flags, &image)?;
        let credential = row["credential"].as_str().unwrap_or_default();
        ensure!(credential.starts_with("docker-config ") && credential.ends_with("right.json"), "{row:#}");
        ensure!(logins == [Some(login(USER, "wrong")), Some(login(USER, PASSWORD))], "{logins:?}");

        // the other way round the second one is never shown to the registry
        let other = stage.image("one").await?;
        let right = stage.file("right.yaml", &secret_yaml("right", &docker_config(&host, &entry(USER, PASSWORD))))?;
        let flags = [flag("pull-secret", &right), stage.config_flag("wrong.json", USER, "wrong")?].concat();
        let (row, logins) = stage.pull(&flags, &other)?;
        ensure!(
            row["credential"] == "pull-secret team/right" && logins == [Some(login(USER, PASSWORD))],
            "{row:#} {logins:?}"
        );

        // what the registry does not have is refused to each of them
        let (row, logins) = stage.pull(&flags, &stage.registry.image("absent:1"))?;
        ensure!(row["state"] == "BackOff" && logins.len() == 2, "{row:#} {logins:?}");
    }
    Ok(())
}

async fn stopping_rules(part: ContainerdPart) -> Result<()> {
    let mut stage = Stage::set(&part, Gate::Password).await?;
    let image = stage.image("app").await?;
    let flags = [stage.config_flag("1.json", USER, "wrong")?, stage.config_flag("2.json", USER, PASSWORD)?].concat();
    for (class, code, text) in [
        (
            "RateLimited",
            Code::Unknown,
            "unexpected status from HEAD request to https://h/v2/a/manifests/1: 429 Too Many Requests",
        ),
        ("NoSpace", Code::Unknown, "failed to extract layer: write /x: no space left on device"),
        ("RegistryUnavailable", Code::Unknown, "failed to do request: Head: dial tcp: lookup h: no such host"),
        (
            "Tls",
            Code::Unknown,
            "failed to do request: Head: tls: failed to verify certificate: x509: unknown authority",
        ),
        ("Timeout", Code::DeadlineExceeded, "context deadline exceeded"),
    ] {
        let rule = stage.proxy.script().add(Rule::fail(Method::PullImage, code, text));
        let (row, logins) = stage.pull(&flags, &image)?;
        ensure!(row["class"] == class && logins.len() == 1, "{class}: {row:#} {logins:?}");
        stage.proxy.script().remove(rule);
    }
    stage.registry.stop()?;
    let (row, logins) = stage.pull(&flags, &image)?;
    ensure!(row["class"] == "RegistryUnavailable" && logins.len() == 1, "{row:#} {logins:?}");
    stage.registry.restart().await?;
    let (row, logins) = stage.pull(&flags, &image)?;
    ensure!(row["state"] == "Present" && logins.len() == 2, "the same flags do work: {row:#} {logins:?}");
    Ok(())
}

async fn status_names_it(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(&part, Gate::Tokens).await?;
    let image = stage.image("app").await?;
    let config = docker_config(&stage.registry.host(), &entry(USER, PASSWORD));
    let secret = stage.file("secret.yaml", &secret_yaml("pull", &config))?;
    let agent = stage.agent(&[&image], flag("pull-secret", &secret))?;
    let row = agent.until_image(PATIENCE, &image, "Present").await?;
    ensure!(row["credential"] == "pull-secret team/pull", "{row:#}");
    ensure!(row["problems"] == json!([]), "{row:#}");
    let (_, page) = agent.get("/").await?;
    ensure!(page.contains("with pull-secret team/pull"), "{page}");
    ensure!(agent.log().contains("credential=pull-secret team/pull"), "{}", agent.log());
    let found = agent.metric("prepull_credential_lookups_total{result=\"found\",source=\"pull-secret\"}").await?;
    ensure!((found - 1.0).abs() < f64::EPSILON, "{found} lookups");

    let mut command = prepull(&program(), stage.folder.path());
    let output = command.args(["explain", "-o", "json"]).args(flag("pull-secret", &secret)).arg(&image).output()?;
    let explained: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    let expected = json!([
        {"source": "pull-secret", "origin": "team/pull", "pattern": stage.registry.host(), "username": USER}
    ]);
    ensure!(explained[0]["credentials"] == expected, "{explained:#}");
    // what the agent has not pulled it says nothing about
    drop(agent);
    let agent = stage.agent(&[&image], flag("pull-secret", &secret))?;
    let row = agent.until_image(PATIENCE, &image, "Present").await?;
    ensure!(row["credential"].is_null(), "{row:#}");
    Ok(())
}

async fn changed_config(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(&part, Gate::Password).await?;
    let first = stage.image("first").await?;
    let second = stage.image("second").await?;
    let third = stage.image("third").await?;
    let flags = stage.config_flag("config.json", USER, "wrong-1")?;
    let agent = stage.agent(&[&first], flags)?;
    let pulls = |image: &str| {
        let calls = stage.proxy.journal().calls(Method::PullImage);
        calls.into_iter().filter(|call| call.image == image).map(|call| call.login).collect::<Vec<_>>()
    };
    let row = agent.until_image(PATIENCE, &first, "BackOff").await?;
    let began = Instant::now();
    ensure!(row["class"] == "Unauthorized" && row["attempt"] == 1, "{row:#}");

    // a file that changed clears nothing by itself: the back-off of 10 s and its jitter are served
    stage.config_flag("config.json", USER, PASSWORD)?;
    sleep(Duration::from_secs(3)).await;
    let later = agent.image(&first).await?;
    ensure!(later["state"] == "BackOff" && later["attempt"] == 1, "{later:#}");
    ensure!(pulls(&first).len() == 1, "{:?}", pulls(&first));

    // another image looks it up meanwhile, and has the new one
    agent.edit(&list(&[&first, &second]))?;
    let row = agent.until_image(PATIENCE, &second, "Present").await?;
    ensure!(row["credential"].as_str().is_some_and(|c| c.starts_with("docker-config ")), "{row:#}");
    ensure!(pulls(&second) == [Some(login(USER, PASSWORD))], "{:?}", pulls(&second));
    ensure!(pulls(&first).len() == 1, "an edit beside an entry is none of its own: {:?}", pulls(&first));
    agent.until_image(PATIENCE, &first, "Present").await?;
    ensure!(began.elapsed() > Duration::from_secs(9), "the back-off was cut short: {:?}", began.elapsed());
    ensure!(pulls(&first) == [Some(login(USER, "wrong-1")), Some(login(USER, PASSWORD))], "{:?}", pulls(&first));

    // and a file that is worse counts too, and so does one that is gone
    stage.config_flag("config.json", USER, "wrong-2")?;
    agent.edit(&list(&[&first, &second, &third]))?;
    agent.until_image(PATIENCE, &third, "BackOff").await?;
    ensure!(pulls(&third) == [Some(login(USER, "wrong-2"))], "{:?}", pulls(&third));
    std::fs::remove_file(stage.folder.path().join("config.json"))?;
    agent.edit(&format!("images: [{{image: '{third}', priority: 1}}]"))?;
    let told = |status: &Value| {
        status["images"][0]["problems"][0]
            .as_str()
            .is_some_and(|problem| problem.ends_with("config.json: no such file"))
    };
    agent.until(PATIENCE, "the missing file is told", told).await?;
    ensure!(pulls(&third).last() == Some(&None), "{:?}", pulls(&third));
    Ok(())
}
