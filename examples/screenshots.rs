//! Takes the pictures of the status page that docs/images has: a real agent that stocks a private containerd from
//! registries of which one is slow, one wants a password, and one lacks an image. `make screenshots` runs it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;

#[path = "../tests/support/mod.rs"]
mod support;

use support::{
    agent::{Agent, AgentOptions},
    browser::{Browser, Screen, chromium},
    containerd::Containerd,
    images::{Content, Image, Layer},
    parts::ContainerdPart,
    registry::{Registry, RegistryKind},
    sources::{docker_config, entry, secret_yaml},
    tcp_proxy::TcpProxy,
};

const PATIENCE: Duration = Duration::from_mins(2);
/// Of the slow registry, in bytes and bytes per second: half of the image is there after some six seconds.
const LARGE: usize = 48 << 20;
const SLOW: u64 = 4_000_000;
/// When the pictures are taken, counted from the beginning of that pull.
const SECONDS: u64 = 6;

const LIST: &str = "\
limits: {parallelPullsPerRegistry: 1}
images:
  - registry.test/shop/web:1.4
  - registry.test/shop/worker:2
  - registry.test/shop/retired:1
  - private.test/acme/base:v3
  - private.test/other/tool:7
  - {image: 'slow.test/acme/model-server:v3', priority: 100}
  - slow.test/acme/trainer:v7
";

#[tokio::main]
async fn main() -> Result<()> {
    let public = Registry::start(RegistryKind::Plain).await?;
    let private = Registry::start(RegistryKind::htpasswd("demo", "demo-password")).await?;
    let slow = TcpProxy::start(&public.host())?;
    slow.change(|line| line.bytes_per_second = Some(SLOW));
    let containerd = Containerd::start(&ContainerdPart::in_path()?, &[]).await?;
    for (host, upstream) in
        [("registry.test", public.upstream()), ("private.test", private.upstream()), ("slow.test", slow.upstream())]
    {
        containerd.route(host, &upstream)?;
    }
    let image =
        |name: &str, seed, size| -> Result<Image> { Ok(Image::new(name, &[Layer::new(seed, size, Content::Random)?])) };
    for (name, seed) in [("shop/web:1.4", 1), ("shop/worker:2", 2), ("acme/trainer:v7", 4)] {
        public.push(name, &image(name, seed, 5 << 20)?).await?;
    }
    public.push("acme/model-server:v3", &image("model-server", 5, LARGE)?).await?;
    private.push("acme/base:v3", &image("base", 6, 3 << 20)?).await?;

    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret.yaml");
    fs::write(
        &secret,
        secret_yaml("acme-registry", &docker_config("private.test/acme", &entry("demo", "demo-password"))),
    )?;
    let options = AgentOptions {
        flags: vec!["--pull-secret".to_owned(), secret.display().to_string()],
        environment: vec![("PREPULL_NODE_NAME".to_owned(), "node-7".to_owned())],
    };
    let binary = std::env::current_exe()?.parent().and_then(Path::parent).context("no folder")?.join("prepull");
    let browser = Browser::start(&chromium()?).await?;
    // by a relative path, because the picture shows it
    fs::write(folder.path().join("images.yaml"), LIST)?;
    let agent = Agent::start_on(&binary, &containerd.socket(), "images.yaml".as_ref(), folder, &options)?;
    let far = |status: &Value| {
        let images = status["images"].as_array().into_iter().flatten();
        images.clone().any(|i| i["elapsedSeconds"].as_u64().is_some_and(|seconds| seconds >= SECONDS))
            && images.filter(|i| i["state"] == "Present").count() == 3
    };
    agent.until(PATIENCE, "half of the large image is there", far).await?;
    fs::create_dir_all("docs/images")?;
    for (name, dark) in [("status-page", false), ("status-page-dark", true)] {
        let screen = Screen { width: 900, dark, ..Screen::WIDE };
        browser.show_on(screen).await?;
        browser.open(&format!("http://127.0.0.1:{}/", agent.port())).await?;
        let height = browser.run("return Math.ceil(document.body.getBoundingClientRect().bottom)").await?;
        let height = height.as_u64().and_then(|height| u32::try_from(height).ok()).context("no height")?;
        browser.show_on(Screen { height, ..screen }).await?;
        fs::write(format!("docs/images/{name}.png"), BASE64_STANDARD.decode(browser.picture().await?)?)?;
    }
    browser.quit().await
}
