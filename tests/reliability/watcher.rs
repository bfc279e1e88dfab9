//! Looks at an agent all the time while a fault lasts: whether its loop turns, whether it tells the truth, whether it
//! shows a secret, and what it needs.

use std::{collections::BTreeSet, fs, pin::Pin, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::support::{agent::http_get, cri::Client, fake_cri::FakeCri};

/// How often `/healthz` is asked.
const EVERY: Duration = Duration::from_millis(200);
/// How many rounds lie between two looks at all pages.
const PAGES: usize = 5;
/// More problems than these say nothing new.
const MOST_PROBLEMS: usize = 5;

/// What a runtime itself says is in its store; none while it does not answer.
pub(crate) type Store = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<BTreeSet<String>>> + Send>> + Send + Sync>;

/// The store of a real runtime.
pub(crate) fn store_of(client: &Client) -> Store {
    let client = client.clone();
    Arc::new(move || {
        let client = client.clone();
        Box::pin(async move {
            let images = tokio::time::timeout(Duration::from_secs(1), client.list()).await.ok()?.ok()?;
            Some(images.into_iter().flat_map(|i| i.repo_tags.into_iter().chain(i.repo_digests)).collect())
        })
    })
}

/// The store of a runtime in memory.
pub(crate) fn store_in_memory(fake: &Arc<tokio::sync::Mutex<FakeCri>>) -> Store {
    let fake = Arc::clone(fake);
    Arc::new(move || {
        let fake = Arc::clone(&fake);
        Box::pin(async move { Some(fake.lock().await.images().into_iter().collect()) })
    })
}

/// What was seen of one agent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Answers of `/healthz`.
    pub(crate) answers: usize,
    /// The slowest of them.
    pub(crate) slowest: Duration,
    /// How often what the status calls present was compared with the runtime's own list.
    pub(crate) compared: usize,
    /// The most resident memory, in bytes.
    pub(crate) most_resident: u64,
    problems: Vec<String>,
}

impl Seen {
    /// Fails where anything was wrong.
    pub(crate) fn done(self) -> Result<Self> {
        if !self.problems.is_empty() {
            bail!("seen while the fault lasted and after it:\n{}", self.problems.join("\n"));
        }
        Ok(self)
    }

    fn problem(&mut self, text: String) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(text);
        }
    }
}

/// Memory and open files of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Resident bytes.
    pub(crate) resident: u64,
    /// Open file descriptors.
    pub(crate) files: usize,
}

impl Needs {
    /// Those of a process now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Self { resident: kib * 1024, files })
    }
}

/// A look that goes on until it is asked what it saw.
pub(crate) struct Watcher {
    stop: watch::Sender<bool>,
    task: JoinHandle<Seen>,
}

impl Watcher {
    /// Begins. `canaries` are texts that must not be seen.
    pub(crate) fn start(port: u16, pid: u32, store: Store, canaries: &[String]) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let canaries = canaries.to_vec();
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            for round in 0.. {
                look(port, pid, &store, &canaries, round, &mut seen).await;
                tokio::select! {
                    _ = stopped.wait_for(|stop| *stop) => break,
                    () = sleep(EVERY) => {}
                }
            }
            seen
        });
        Self { stop, task }
    }

    /// Ends, and fails where anything was wrong at any time.
    pub(crate) async fn finish(self) -> Result<Seen> {
        self.stop.send_replace(true);
        self.task.await?.done()
    }
}

async fn look(port: u16, pid: u32, store: &Store, canaries: &[String], round: usize, seen: &mut Seen) {
    let began = Instant::now();
    match http_get(port, "/healthz").await {
        Ok((200, _)) => {
            seen.answers += 1;
            seen.slowest = seen.slowest.max(began.elapsed());
        }
        Ok((code, body)) => seen.problem(format!("/healthz answered {code}: {body}")),
        Err(error) => seen.problem(format!("/healthz: {error:#}")),
    }
    match http_get(port, "/api/v1/images").await {
        Ok((200, body)) => {
            search("/api/v1/images", &body, canaries, seen);
            truth(&body, store, seen).await;
        }
        Ok((code, body)) => seen.problem(format!("/api/v1/images answered {code}: {body}")),
        Err(error) => seen.problem(format!("/api/v1/images: {error:#}")),
    }
    if let Ok(needs) = Needs::of(pid) {
        seen.most_resident = seen.most_resident.max(needs.resident);
    }
    if round.is_multiple_of(PAGES) {
        for page in ["/", "/metrics", "/readyz"] {
            match http_get(port, page).await {
                Ok((_, body)) => search(page, &body, canaries, seen),
                Err(error) => seen.problem(format!("{page}: {error:#}")),
            }
        }
    }
}

/// What the status calls present was there before it was asked for, and nobody removes images in these trials: so the
/// runtime's list, asked for afterwards, must have it. Where it has not, the status was wrong.
async fn truth(body: &str, store: &Store, seen: &mut Seen) {
    let Ok(status) = serde_json::from_str::<Value>(body) else {
        return seen.problem(format!("the status is no JSON: {body}"));
    };
    let Some(there) = store().await else { return };
    seen.compared += 1;
    let rows = status["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    for row in rows {
        let image = row["image"].as_str().unwrap_or_default();
        let claims = row["state"] == "Present" || (status["warm"] == true && row["required"] == true);
        if claims && row["state"] != "NotForThisNode" && !there.contains(image) {
            seen.problem(format!(
                "the status says {} (warm: {}) of {image}, which the runtime does not have",
                row["state"], status["warm"]
            ));
        }
    }
}

/// Looks for what must not be seen.
pub(crate) fn search(what: &str, text: &str, canaries: &[String], seen: &mut Seen) {
    for canary in canaries {
        if text.contains(canary.as_str()) {
            seen.problem(format!("{what} shows a credential: {text}"));
        }
    }
}
