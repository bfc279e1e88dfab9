//! Ten hours of churn in seconds: the agent's own keeper and its link in this process, on a clock that jumps to the next
//! thing that is due, and a runtime in memory on the same clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use prepull::{
    agent::{
        LogReporter,
        cluster::Cluster,
        keeper::{Inputs, Keeper, Settings},
        link,
        sources::SourceNames,
    },
    credentials::{
        lookup::{Credentials, Options},
        node_search::NodeConfigs,
    },
    http::Query,
    list::affinity::NodeFacts,
    list_update::{ListUpdate, Read},
    metrics::Metrics,
    node_report::ReadyWhen,
    process_clock::Clock,
    runtime::Endpoint,
    status::Status,
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, timeout},
};
use tonic::Code;

use super::{
    support::{
        fake_cri::{FakeCri, Offer},
        journal::{Method, Outcome, Pages},
        script::Rule,
    },
    watcher::Needs,
};

/// Set in the process that is to simulate: its memory is its own.
const CHILD: &str = "PREPULL_TEST_SIMULATE";
const HOURS: u32 = 10;
/// Images that lists are made of.
const IMAGES: usize = 40;
const PARALLEL: usize = 3;
/// How often the agent looks without a reason.
const RESYNC: Duration = Duration::from_mins(5);
/// The longest back-off with its jitter, and what comes before and after it.
const QUIET: Duration = Duration::from_mins(9);
/// What the memory may differ from the second hour to the last.
const MOST_GROWTH: u64 = 2 << 20;

/// Runs the simulation if this process was started for it.
pub(crate) fn as_child() -> Option<ExitCode> {
    let seed = env::var(CHILD).ok()?.parse().ok()?;
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .context("no runtime")
        .and_then(|runtime| runtime.block_on(simulate(seed)));
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("with {CHILD}={seed}: {error:?}");
            ExitCode::FAILURE
        }
    })
}

pub(crate) async fn ten_hours() -> Result<()> {
    let seed =
        env::var("PREPULL_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let began = Instant::now();
    let mut command = Command::new(env::current_exe()?);
    command.env(CHILD, seed.to_string()).stdin(Stdio::null());
    let output =
        tokio::task::spawn_blocking(move || command.output()).await?.context("this program cannot be started again")?;
    let said = String::from_utf8_lossy(&output.stderr);
    eprint!("in {:.1} s: {said}", began.elapsed().as_secs_f64());
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(())
}

struct World {
    rng: Rng,
    fake: FakeCri,
    open: bool,
    lists: mpsc::Sender<ListUpdate>,
    queries: mpsc::Sender<Query>,
    /// The list as it is now.
    wanted: Vec<String>,
    revision: u64,
    /// What somebody removed, and when.
    removed: BTreeMap<String, Instant>,
    /// When the agent last asked for the store and was answered.
    looked: Option<Instant>,
    edits: usize,
    restarts: usize,
}

async fn simulate(seed: u64) -> Result<()> {
    fastrand::seed(seed);
    let clock = Clock::start();
    let fake = FakeCri::start_here()?;
    let (lists, list_receiver) = mpsc::channel(4);
    let (link_sender, link_receiver) = mpsc::channel(4);
    let (queries, query_receiver) = mpsc::channel(16);
    let (stop, stopped) = watch::channel(false);
    let metrics = Metrics::new()?;
    let endpoint = Endpoint::of_path(fake.socket());
    tokio::spawn(link::keep_linked(Some(endpoint), metrics.cri_observer(), link_sender));
    let settings = Settings {
        node: NodeFacts { name: "simulated".to_owned(), labels: Some(BTreeMap::new()) },
        resync: RESYNC,
        ready_when: ReadyWhen::Warm,
        sources: SourceNames { named: vec!["list".into()], selector: None },
        cluster: Cluster::none(),
        credentials: Arc::new(Credentials::new(Options {
            node_configs: NodeConfigs::Named(Vec::new()),
            pull_secret_files: Vec::new(),
            plugins: None,
            clouds: None,
        })),
        io_pressure: prepull::io_pressure::FILE.into(),
        once: None,
    };
    let inputs = Inputs { lists: list_receiver, link: link_receiver, queries: query_receiver, stop: stopped };
    let keeper = tokio::spawn(Keeper::new(settings, metrics, clock, LogReporter::default()).run(inputs));
    let mut world = World {
        rng: Rng::with_seed(seed),
        fake,
        open: true,
        lists,
        queries,
        wanted: Vec::new(),
        revision: 0,
        removed: BTreeMap::new(),
        looked: None,
        edits: 0,
        restarts: 0,
    };
    let mut needs = Vec::new();
    let mut steps = 0;
    let (mut pulls, mut began) = (0, Instant::now());
    for hour in 1..=HOURS {
        world.edit(IMAGES).await?;
        while began.elapsed() + QUIET < Duration::from_hours(1) {
            world.something().await?;
            sleep(Duration::from_millis(world.rng.u64(200..30_000))).await;
            let status = world.look().await?;
            world.truth(&status)?;
            steps += 1;
            pulls += world.account()?;
        }
        world.rest().await.with_context(|| format!("at the end of hour {hour}"))?;
        pulls += world.account()?;
        needs.push(Needs::of(std::process::id())?);
        began += Duration::from_hours(1);
    }
    stop.send_replace(true);
    keeper.await?;
    let (first, last) = (needs[1], needs[needs.len() - 1]);
    eprintln!(
        "{HOURS} simulated hours: {steps} events, {} edits, {} restarts of the runtime, {pulls} pulls; {} KiB resident after two hours and {} at the end, {} and {} open files; seed {seed}",
        world.edits,
        world.restarts,
        first.resident / 1024,
        last.resident / 1024,
        first.files,
        last.files
    );
    ensure!(last.resident <= first.resident + MOST_GROWTH && last.files <= first.files, "{needs:?}");
    Ok(())
}

impl World {
    /// Puts some of the images into the list, in any order.
    async fn edit(&mut self, most: usize) -> Result<()> {
        let mut all: Vec<usize> = (0..IMAGES).collect();
        self.rng.shuffle(&mut all);
        let count = if most == IMAGES { IMAGES } else { self.rng.usize(0..most) };
        self.wanted = all[..count].iter().map(|n| format!("registry-{}.example.com/app-{n}:1", n % 4)).collect();
        self.revision += 1;
        self.edits += 1;
        let limits = format!(
            "# revision {}\nlimits: {{parallelPulls: {PARALLEL}, pullTimeout: 2m, maxDiskUsage: 100%}}\nimages:\n",
            self.revision
        );
        let text = self.wanted.iter().fold(limits, |text, image| text + "  - " + image + "\n");
        let update = ListUpdate { source: "list".into(), namespace: None, read: Read::of_text(&text) };
        self.lists.send(update).await.ok().context("the keeper has ended")
    }

    fn any(&mut self) -> Option<String> {
        self.rng.choice(&self.wanted).cloned()
    }

    /// One thing happens.
    async fn something(&mut self) -> Result<()> {
        match self.rng.u32(0..100) {
            0..10 => self.edit(IMAGES / 2).await?,
            10..35 => {
                let names: BTreeSet<String> = self.fake.images().into_iter().collect();
                if let Some(image) = self.any().filter(|image| names.contains(image)) {
                    self.fake.take(&image);
                    self.removed.insert(image, Instant::now());
                }
            }
            35..50 => {
                if let Some(image) = self.any() {
                    let takes = Duration::from_millis(self.rng.u64(0..200_000));
                    self.fake.offer(&image, Offer { takes, ..Offer::default() });
                }
            }
            50..65 => {
                let texts = [
                    "503 service unavailable",
                    "429 too many requests",
                    "401 unauthorized",
                    "manifest unknown",
                    "x509: expired",
                ];
                let text = self.rng.choice(texts).unwrap_or_default();
                if let Some(image) = self.any() {
                    let times = self.rng.usize(1..3);
                    self.fake
                        .script()
                        .add(Rule::fail(Method::PullImage, Code::Unknown, text).image(&image).times(times));
                }
            }
            65..70 => {
                self.fake.script().add(Rule::hang(Method::PullImage).times(1));
            }
            70..75 => {
                self.fake.script().add(Rule::fail(Method::ListImages, Code::Internal, "database is locked").times(2));
            }
            75..78 => {
                self.fake.script().add(Rule::hang(Method::ListImages).times(1));
            }
            78..90 => self.fake.script().clear(),
            90..95 if self.open => {
                self.fake.close();
                self.open = false;
                self.restarts += 1;
            }
            _ if !self.open => {
                self.fake.open()?;
                self.open = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// The loop answers within its bound, by its own clock, whatever goes on.
    async fn look(&self) -> Result<Value> {
        let (reply, answer) = oneshot::channel();
        let ask = async {
            self.queries.send(Query::Health(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(Duration::from_secs(3), ask)
            .await
            .context("the loop does not turn")?
            .context("the keeper has ended")?;
        let (reply, answer) = oneshot::channel::<Status>();
        self.queries.send(Query::Status(reply)).await.ok().context("the keeper has ended")?;
        Ok(serde_json::to_value(answer.await?)?)
    }

    /// What is called present is there, or was removed since the agent last asked for the store and was answered.
    fn truth(&mut self, status: &Value) -> Result<()> {
        let there: BTreeSet<String> = self.fake.images().into_iter().collect();
        let told = self.fake.journal().read(|j| {
            let answered = j.of(Method::ListImages).filter(|call| call.outcome() == Some(&Outcome::Answered));
            answered.map(|call| call.started).max()
        });
        self.looked = self.looked.max(told);
        self.removed.retain(|image, _| !there.contains(image));
        for row in status["images"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let image = row["image"].as_str().unwrap_or_default();
            if row["state"] == "Present" && !there.contains(image) {
                let removed = self.removed.get(image).with_context(|| format!("nobody removed it: {row:#}"))?;
                let unseen = self.looked.is_none_or(|looked| looked <= *removed);
                ensure!(unseen, "{image} was told to be absent, and is called present: {row:#}");
            }
        }
        Ok(())
    }

    /// Limits held, nothing pulled that was there; counts the pulls, and forgets them.
    fn account(&self) -> Result<usize> {
        let journal = self.fake.journal();
        let most = journal.read(Pages::most_pulling);
        ensure!(most <= PARALLEL, "{most} pulls at once, and {PARALLEL} are allowed");
        ensure!(self.fake.needless_pulls() == 0, "{} pulls of what was there", self.fake.needless_pulls());
        let pulls = journal.read(|j| j.of(Method::PullImage).filter(|call| call.ended.is_some()).count());
        journal.clear();
        Ok(pulls)
    }

    /// Nothing more happens: then everything is there before long.
    async fn rest(&mut self) -> Result<()> {
        self.fake.script().clear();
        for n in 0..IMAGES {
            self.fake.offer(&format!("registry-{}.example.com/app-{n}:1", n % 4), Offer::default());
        }
        if !self.open {
            self.fake.open()?;
            self.open = true;
        }
        self.edit(IMAGES).await?;
        let ended = Instant::now();
        loop {
            sleep(Duration::from_secs(1)).await;
            let status = self.look().await?;
            self.truth(&status)?;
            let there: BTreeSet<String> = self.fake.images().into_iter().collect();
            if status["warm"] == true && self.wanted.iter().all(|image| there.contains(image)) {
                break;
            }
            if ended.elapsed() > QUIET {
                bail!("images are lost: {status:#}");
            }
        }
        sleep(QUIET.saturating_sub(ended.elapsed())).await;
        Ok(())
    }
}
