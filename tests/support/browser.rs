//! A real Chromium without a window, driven through chromedriver by the WebDriver protocol. Nothing of it leaves the
//! machine: every name but the loopback's is unknown to it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::Full;
use hyper::{Method, Request, body::Bytes, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{
    http,
    parts::{Missing, find},
    process::{self, Running, tail},
    registry::free_port,
};

/// Until chromedriver and Chromium answer; both are large, and the machine may be busy.
const PATIENCE: Duration = Duration::from_mins(1);

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    // it ends when its driver does, however that ends
    "--remote-debugging-pipe",
];

/// The programs.
#[derive(Debug, Clone)]
pub struct BrowserPart {
    chromium: PathBuf,
    driver: PathBuf,
}

/// Chromium and its driver.
pub fn chromium() -> Result<BrowserPart, Missing> {
    let found = |program: &str, package: &str| {
        find(program).ok_or_else(|| Missing {
            part: "chromium".to_owned(),
            sentence: format!(
                "{program} is not installed: run hack/install-parts --optional, or install the package {package}"
            ),
        })
    };
    Ok(BrowserPart { chromium: found("chromium", "chromium")?, driver: found("chromedriver", "chromium-driver")? })
}

/// A running browser with one page; dropping it kills it.
pub struct Browser {
    driver: Running,
    address: String,
    session: String,
    folder: TempDir,
}

/// How a page is shown.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// CSS pixels.
    pub width: u32,
    /// CSS pixels.
    pub height: u32,
    /// The reader's preference.
    pub dark: bool,
    /// Device pixels to a CSS pixel.
    pub scale: u32,
}

impl Screen {
    /// A desk's.
    pub const WIDE: Self = Self { width: 1100, height: 900, dark: false, scale: 1 };
    /// A small telephone's.
    pub const NARROW: Self = Self { width: 360, height: 740, dark: false, scale: 1 };

    /// For those who prefer it dark.
    pub fn dark(self) -> Self {
        Self { dark: true, ..self }
    }
}

impl Browser {
    /// Starts both programs.
    pub async fn start(part: &BrowserPart) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("prepull-browser-").tempdir()?;
        let port = free_port()?;
        let mut command = process::command(&part.driver);
        command.arg(format!("--port={port}")).env("HOME", folder.path()).env("TMPDIR", folder.path());
        let driver = Running::start("chromedriver", command, folder.path())?;
        let mut browser = Self { driver, address: format!("127.0.0.1:{port}"), session: String::new(), folder };
        browser.ready().await?;
        let profile = browser.folder.path().join("profile");
        let mut flags: Vec<String> = FLAGS.iter().map(ToString::to_string).collect();
        flags.push(format!("--user-data-dir={}", profile.display()));
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": part.chromium, "args": flags},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = browser.ask(Method::POST, "/session", &wanted).await?;
        let id = session["sessionId"].as_str().context("chromedriver gives no session")?;
        id.clone_into(&mut browser.session);
        Ok(browser)
    }

    async fn ready(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while http::get(&self.address, "/status").await.is_err() {
            if let Some(status) = self.driver.ended() {
                bail!("chromedriver ended with {status}: {}", tail(&self.folder.path().join("chromedriver.err")));
            }
            ensure!(Instant::now() < end, "chromedriver does not answer");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let path = path.replacen("{}", &self.session, 1);
        let body = if method == Method::POST { body.to_string() } else { String::new() };
        let request = Request::builder()
            .method(method)
            .uri(&path)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let answer = tokio::time::timeout(PATIENCE, http::send(&self.address, request))
            .await
            .with_context(|| format!("chromedriver does not answer {path}"))??;
        let mut value: Value = serde_json::from_slice(&answer.body)?;
        ensure!(answer.status == 200, "{path}: {}", value["value"]["message"]);
        Ok(value["value"].take())
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.ask(Method::POST, path, &body).await
    }

    /// Goes to a page and waits until it is loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("/session/{}/url", json!({"url": url})).await.map(drop)
    }

    /// Runs a function's body in the page; what it returns. The page's own policy holds for what it does, not for it.
    pub async fn run(&self, script: &str) -> Result<Value> {
        self.post("/session/{}/execute/sync", json!({"script": script, "args": []})).await
    }

    /// What the page complained about since the last call: violations of its policy, failed loads, script errors.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let log = self.post("/session/{}/se/log", json!({"type": "browser"})).await?;
        let entries = log.as_array().context("no log")?;
        Ok(entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Changes how pages are shown.
    pub async fn show_on(&self, screen: Screen) -> Result<()> {
        let Screen { width, height, dark, scale } = screen;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", metrics).await?;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", media).await.map(drop)
    }

    /// The tree that a screen reader gets.
    pub async fn accessibility(&self) -> Result<Vec<Value>> {
        let tree = self.devtools("Accessibility.getFullAXTree", json!({})).await?;
        Ok(tree["nodes"].as_array().context("no accessibility tree")?.clone())
    }

    /// The whole page, or as much of it as the height says, as a PNG in base64.
    pub async fn picture(&self) -> Result<String> {
        let taken = self.devtools("Page.captureScreenshot", json!({"format": "png"})).await?;
        Ok(taken["data"].as_str().context("no picture")?.to_owned())
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("/session/{}/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Ends the browser, then its driver.
    pub async fn quit(mut self) -> Result<()> {
        self.ask(Method::DELETE, "/session/{}", &Value::Null).await?;
        self.driver.stop(Duration::from_secs(5)).await.map(drop)
    }
}
