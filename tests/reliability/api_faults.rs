//! What the API server and the way to it do wrong. The server is a real one, the runtime is in memory.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::{
    matrix::{Came, Fault, On, Place},
    stage::{PATIENCE, grown, program, settled},
    support::{
        agent::Agent,
        api_proxy::{ApiFault, ApiProxy},
        apiserver::{ApiServerPart, Shared},
        cluster::{image, list},
        fake_cri::FakeCri,
        journal::Method,
        tcp_proxy::{Conditions, TcpProxy},
        tenant::Tenant,
    },
    watcher::{Needs, Seen, Watcher, search, store_in_memory},
};

/// How long the server is out of order.
const LASTS: Duration = Duration::from_secs(6);
/// The agent's account as it stands in its kubeconfig where the proxy has its own.
const CANARY: &str = "canary-of-a-service-account-token";

/// What is brought about.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// By the network.
    Network(fn(&mut Conditions), Edit),
    /// By the server's answers.
    Answers(ApiFault, Edit),
}

/// When an edit that is made while the fault lasts counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    /// While it lasts.
    Meanwhile,
    /// After its end.
    Afterwards,
}

/// All of them; they share a server.
pub(crate) fn all() -> Vec<Fault> {
    let server = Arc::new(Shared::default());
    let last = "the last good list stays in force, and the outage is told";
    let through = "an edit counts meanwhile";
    [
        (
            "api_server_is_down",
            "every connection is reset for 6 s",
            last,
            Act::Network(|c| c.closed = true, Edit::Afterwards),
        ),
        (
            "api_server_is_slow",
            "600 ms each way and 20 kB/s",
            through,
            Act::Network(
                |c| (c.latency, c.bytes_per_second) = (Duration::from_millis(600), Some(20_000)),
                Edit::Meanwhile,
            ),
        ),
        (
            "api_server_falls_silent",
            "half-open: connections stay, nothing moves for 6 s",
            "the last good list stays in force",
            Act::Network(|c| c.frozen = true, Edit::Afterwards),
        ),
        (
            "watch_is_too_old",
            "410 Gone for every watch",
            "lists again, an edit counts meanwhile",
            Act::Answers(ApiFault::Gone, Edit::Meanwhile),
        ),
        (
            "api_server_says_429",
            "429 with Retry-After: 1 for everything",
            last,
            Act::Answers(ApiFault::Status(429, Some(1)), Edit::Afterwards),
        ),
        (
            "api_server_says_500",
            "500 for everything",
            last,
            Act::Answers(ApiFault::Status(500, None), Edit::Afterwards),
        ),
        (
            "watch_is_cut_every_second",
            "every watch ends after 1 s",
            through,
            Act::Answers(ApiFault::Cut(Duration::from_secs(1)), Edit::Meanwhile),
        ),
        (
            "watch_ends_at_once",
            "every watch ends as soon as it began",
            through,
            Act::Answers(ApiFault::Cut(Duration::ZERO), Edit::Meanwhile),
        ),
        (
            "watch_brings_garbage",
            "every watch brings what is no JSON",
            "lists again, an edit counts meanwhile",
            Act::Answers(ApiFault::Garbage, Edit::Meanwhile),
        ),
    ]
    .into_iter()
    .map(|(name, done, expected, act)| {
        let server = Arc::clone(&server);
        Fault::new(name, On::ApiServer, done, expected, move |place| run(place, Arc::clone(&server), name, act))
    })
    .collect()
}

/// The way from the agent to the server.
enum Way {
    Network(TcpProxy),
    Answers(ApiProxy),
}

async fn way(tenant: &Tenant<'_>, act: Act) -> Result<(Way, String)> {
    let own = tenant.kubeconfig();
    let server = own.split("server: 'https://").nth(1).and_then(|rest| rest.split('\'').next()).context("no server")?;
    Ok(match act {
        Act::Network(..) => {
            let proxy = TcpProxy::start(server)?;
            let kubeconfig = own.replace(server, proxy.host());
            (Way::Network(proxy), kubeconfig)
        }
        Act::Answers(..) => {
            let proxy = ApiProxy::start(own).await?;
            let kubeconfig = proxy.kubeconfig(CANARY);
            (Way::Answers(proxy), kubeconfig)
        }
    })
}

impl Way {
    fn begin(&self, act: Act) {
        match (self, act) {
            (Self::Network(proxy), Act::Network(change, _)) => {
                proxy.change(change);
                if proxy_is_closed(change) {
                    proxy.reset();
                }
            }
            (Self::Answers(proxy), Act::Answers(fault, _)) => proxy.set(fault),
            _ => {}
        }
    }

    fn end(&self) {
        match self {
            Self::Network(proxy) => proxy.change(|c| *c = Conditions::default()),
            Self::Answers(proxy) => proxy.set(ApiFault::None),
        }
    }

    /// Connections or requests so far.
    fn asked(&self) -> usize {
        match self {
            Self::Network(proxy) => proxy.traffic().connections,
            Self::Answers(proxy) => proxy.requests().len(),
        }
    }
}

fn proxy_is_closed(change: fn(&mut Conditions)) -> bool {
    let mut conditions = Conditions::default();
    change(&mut conditions);
    conditions.closed
}

async fn run(place: Place, server: Arc<Shared>, name: &str, act: Act) -> Result<Came> {
    let Place::ApiServer(part) = place else { bail!("this fault needs an API server") };
    let tenant = tenant(&server, &part, name).await?;
    let fake = Arc::new(Mutex::new(FakeCri::start()?));
    tenant.list(&list(&["steady"])).await?;
    let (way, kubeconfig) = way(&tenant, act).await?;
    let socket = fake.lock().await.socket();
    let list_flag = format!("{}/prepull", tenant.name);
    let agent = tenant.agent_by(&kubeconfig, &program(), &socket, &["--configmap", &list_flag])?;
    agent.until_warm(PATIENCE).await?;
    let before = settled(agent.pid()).await?;
    let token = kubeconfig.split("token: ").nth(1).and_then(|rest| rest.split('}').next()).context("no token")?;
    let canaries = [token.to_owned()];
    let watcher = Watcher::start(agent.port(), agent.pid(), store_in_memory(&fake), &canaries);
    let (asked, began) = (way.asked(), Instant::now());
    way.begin(act);
    tenant.list(&list(&["steady", "first", "second"])).await?;
    let edit = match act {
        Act::Network(_, edit) | Act::Answers(_, edit) => edit,
    };
    match edit {
        Edit::Meanwhile => {
            agent.until(PATIENCE, "the edit counts", |s| s["images"].as_array().is_some_and(|i| i.len() == 3)).await?;
            sleep(LASTS.saturating_sub(began.elapsed())).await;
        }
        Edit::Afterwards => {
            sleep(LASTS).await;
            let status = agent.status().await?;
            ensure!(status["images"].as_array().is_some_and(|i| i.len() == 1) && status["warm"] == true, "{status:#}");
            let silent = matches!(act, Act::Network(change, _) if !proxy_is_closed(change));
            let problems = status["lists"][0]["problems"].as_array().map_or(0, Vec::len);
            ensure!(silent || problems == 1, "the outage is told: {status:#}");
        }
    }
    // an API server in need is not asked more and more often
    let asked = way.asked() - asked;
    let most = 20 + 3 * usize::try_from(began.elapsed().as_secs())?;
    ensure!(asked <= most, "{asked} requests or connections in {:?}", began.elapsed());
    way.end();
    let ended = Instant::now();
    let three = |s: &serde_json::Value| s["images"].as_array().is_some_and(|i| i.len() == 3) && s["warm"] == true;
    agent.until(PATIENCE, "the list is in force", three).await?;
    let recovered = ended.elapsed();
    // and it is followed again
    tenant.list(&list(&["steady", "first", "second", "third"])).await?;
    agent.until_image(PATIENCE, &image("third"), "Present").await?;
    let pulls = fake.lock().await.journal().calls(Method::PullImage);
    ensure!(pulls.len() == 4, "each image is pulled once: {pulls:#?}");
    let seen = finish(watcher, &agent, &canaries).await?;
    let grown = grown_since(before, &agent).await?;
    Ok(Came { seen, grown, recovered })
}

/// A place of its own in each round.
async fn tenant<'a>(server: &'a Shared, part: &ApiServerPart, name: &str) -> Result<Tenant<'a>> {
    let server = server.get(part).await?;
    let name = format!("{}-{:x}", name.replace('_', "-"), fastrand::u32(..));
    Tenant::new(server, &name).await
}

pub(crate) async fn finish(watcher: Watcher, agent: &Agent, canaries: &[String]) -> Result<Seen> {
    let seen = watcher.finish().await?;
    let mut log = Seen::default();
    search("the log", &agent.log(), canaries, &mut log);
    log.done()?;
    ensure!(!agent.log().contains("panicked"), "{}", agent.log());
    Ok(seen)
}

pub(crate) async fn grown_since(before: Needs, agent: &Agent) -> Result<i64> {
    grown(before, settled(agent.pid()).await?)
}
