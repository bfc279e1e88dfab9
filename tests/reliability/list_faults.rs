//! What people and machines do to lists, and what the wall clock does.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use tonic::Code;

use super::{
    api_faults::{finish, grown_since},
    matrix::{Came, Fault, On, Place},
    stage::{MORE_FILES, PARALLEL, PATIENCE, grown, program, settled},
    support::{
        agent::{Agent, AgentOptions},
        cluster::{self, image},
        fake_cri::{FakeCri, Offer},
        journal::{Method, Outcome},
        script::Rule,
    },
    watcher::{Needs, Watcher, store_in_memory},
};

/// Entries of a list that is longer than anybody needs.
const MANY: usize = 10_000;
/// Times that a long list may come and go until the agent needs no more for it.
const MOST_ROUNDS: usize = 9;
/// So many of them in a row have to add next to nothing together: one alone may have filled what was left over.
const FLAT_ROUNDS: usize = 3;
/// The largest ConfigMap.
const LARGE: usize = 1 << 20;
/// What an agent does with an empty list.
const EMPTY: &str = "warm with nothing to do; removes nothing, and pulls nothing again";

/// All of them.
pub(crate) fn all() -> Vec<Fault> {
    let kept = "the last good list stays in force, and the problem is told";
    vec![
        memory("list_is_emptied", "the file has no byte any more, for 2 s", kept, |n| spoiled(n, "emptied")),
        memory("list_is_garbage", "1 MiB of random bytes, for 2 s", kept, |n| spoiled(n, "garbage")),
        memory("list_is_nested_without_end", "100,000 brackets that open, for 2 s", kept, |n| spoiled(n, "nested")),
        memory("list_is_deleted", "the file is gone, for 2 s", kept, |n| spoiled(n, "deleted")),
        memory("list_has_no_entry", "`images: []`, then the entries come back", EMPTY, no_entry),
        memory(
            "list_is_swapped_again_and_again",
            "another list every 100 ms during pulls, 30 times",
            "ends pulls that nobody wants, ends with the last list",
            swapped,
        ),
        memory(
            "list_has_10000_entries",
            "3 entries, then 10,000 of which 100 are missing, then 3, until three times in a row add next to nothing together, nine times at the most",
            "pulls what is missing",
            |n| long(n, MANY, 0),
        ),
        memory(
            "list_has_1_mib",
            "3 entries, then 1 MiB with long names, then 3, until three times in a row add next to nothing together, nine times at the most",
            "pulls what is missing",
            |n| long(n, 4000, LARGE / 4000),
        ),
        Fault::new(
            "clock_jumps",
            On::SetClock,
            "the wall clock goes 10 years ahead, to 1971 and back while an image is in back-off (libfaketime)",
            "the next attempt is due when it was; only the times that are shown move",
            clock,
        ),
    ]
}

fn memory<F, R>(name: &'static str, done: &'static str, expected: &'static str, run: F) -> Fault
where
    F: Fn(Node) -> R + Copy + Send + Sync + 'static,
    R: Future<Output = Result<Came>> + 'static,
{
    Fault::new(name, On::Memory, done, expected, move |_| async move {
        run(Node::set(AgentOptions::default()).await?).await
    })
}

/// A list of these images, with a limit that is to hold.
fn list(names: &[&str]) -> String {
    format!("limits: {{parallelPulls: {PARALLEL}}}\n{}", cluster::list(names))
}

/// An agent on a runtime in memory, warm with three images.
struct Node {
    fake: Arc<Mutex<FakeCri>>,
    agent: Agent,
    before: Needs,
    watcher: Watcher,
    /// The list's images at the start.
    images: Vec<String>,
}

impl Node {
    async fn set(options: AgentOptions) -> Result<Self> {
        let fake = FakeCri::start()?;
        let agent = Agent::start(&program(), &fake.socket(), &list(&["a", "b", "c"]), &options)?;
        agent.until_warm(PATIENCE).await?;
        let before = settled(agent.pid()).await?;
        let fake = Arc::new(Mutex::new(fake));
        let watcher = Watcher::start(agent.port(), agent.pid(), store_in_memory(&fake), &[]);
        Ok(Self { fake, agent, before, watcher, images: ["a", "b", "c"].map(image).into() })
    }

    async fn pulls(&self, image: &str) -> usize {
        let pulls = self.fake.lock().await.journal().calls(Method::PullImage);
        pulls.iter().filter(|call| call.image == image && call.outcome() == Some(&Outcome::Answered)).count()
    }

    /// Puts a list in force that adds an image, and checks what has to be so after every fault.
    async fn recovered(self) -> Result<Came> {
        let ended = Instant::now();
        self.agent.edit(&list(&["a", "b", "c", "after"]))?;
        let four = |s: &Value| {
            s["images"].as_array().is_some_and(|i| i.len() == 4)
                && s["warm"] == true
                && s["lists"][0]["problems"] == Value::Array(Vec::new())
        };
        self.agent.until(PATIENCE, "the list is in force", four).await?;
        let recovered = ended.elapsed();
        for image in self.images.iter().chain([&image("after")]) {
            ensure!(self.fake.lock().await.images().contains(image), "{image} is lost");
            ensure!(self.pulls(image).await == 1, "{image} is pulled once");
        }
        let most = self.fake.lock().await.journal().read(super::support::journal::Pages::most_pulling);
        ensure!(most <= PARALLEL, "{most} pulls at once, and {PARALLEL} are allowed");
        let seen = finish(self.watcher, &self.agent, &[]).await?;
        let grown = grown_since(self.before, &self.agent).await?;
        Ok(Came { seen, grown, recovered })
    }
}

async fn spoiled(node: Node, how: &'static str) -> Result<Came> {
    match how {
        "deleted" => fs::remove_file(node.agent.list_path())?,
        "emptied" => fs::write(node.agent.list_path(), "")?,
        "garbage" => {
            let new = node.agent.folder().join("new");
            fs::write(&new, super::support::images::random(3, LARGE))?;
            fs::rename(new, node.agent.list_path())?;
        }
        "nested" => node.agent.edit(&("images: ".to_owned() + &"[".repeat(100_000)))?,
        other => bail!("{other} is no way to spoil a list"),
    }
    let told = |s: &Value| s["lists"][0]["problems"].as_array().is_some_and(|p| p.len() == 1);
    let status = node.agent.until(PATIENCE, "the problem is told", told).await?;
    let kept = status["images"].as_array().is_some_and(|i| i.len() == 3) && status["warm"] == true;
    ensure!(kept, "the last good list stays in force: {status:#}");
    sleep(Duration::from_secs(2)).await;
    node.recovered().await
}

async fn no_entry(node: Node) -> Result<Came> {
    node.agent.edit("images: []\n")?;
    let empty = |s: &Value| s["images"] == Value::Array(Vec::new());
    let status = node.agent.until(PATIENCE, "the empty list is in force", empty).await?;
    ensure!(status["warm"] == true, "{status:#}");
    sleep(Duration::from_secs(1)).await;
    ensure!(node.fake.lock().await.journal().count(Method::RemoveImage) == 0, "nothing is ever removed");
    node.recovered().await
}

async fn swapped(node: Node) -> Result<Came> {
    for n in 0..30 {
        let name = format!("swap-{n}");
        node.fake.lock().await.offer(&image(&name), Offer { takes: Duration::from_millis(250), ..Offer::default() });
        node.agent.edit(&list(&["a", "b", "c", &name]))?;
        sleep(Duration::from_millis(100)).await;
    }
    let fake = Arc::clone(&node.fake);
    let came = node.recovered().await?;
    let fake = fake.lock().await;
    fake.journal().wait_until(PATIENCE, |j| j.pulling() == 0).await?;
    let calls = fake.journal().calls(Method::PullImage);
    let ended = calls.iter().filter(|call| call.outcome() == Some(&Outcome::Cancelled)).count();
    ensure!(ended > 0, "no pull was ended, so this proves nothing: {calls:#?}");
    Ok(came)
}

/// `padding` makes the names so much longer, as far as names may be long.
async fn long(mut node: Node, entries: usize, padding: usize) -> Result<Came> {
    let name = |n: usize| {
        let mut name = format!("long/app-{n}");
        while name.len() < padding.saturating_sub("  - registry.example.com/:1\n".len()) {
            name.push('x');
        }
        name
    };
    let names: Vec<_> = (0..entries).map(name).collect();
    let images: Vec<_> = names.iter().map(|name| image(name)).collect();
    let missing = 100;
    node.fake.lock().await.put(images[missing..].iter().map(String::as_str))?;
    let mut wanted: Vec<&str> = vec!["a", "b", "c"];
    wanted.extend(names.iter().map(String::as_str));
    let text = list(&wanted);
    ensure!(padding == 0 || text.len() > LARGE * 9 / 10, "{} bytes", text.len());
    node.agent.edit(&text)?;
    let all = |s: &Value| s["images"].as_array().is_some_and(|i| i.len() == entries + 3) && s["warm"] == true;
    node.agent.until(PATIENCE, "the long list is warm", all).await?;
    let pulls = node.fake.lock().await.journal().calls(Method::PullImage).len();
    ensure!(pulls == missing + 3, "{pulls} pulls for {missing} images that were missing and 3 of before");
    // what a list of this length needs once is kept by the allocator, in pieces that differ from time to time; what is lost
    // each time would make every round need more than the one before
    let short = |s: &Value| s["images"].as_array().is_some_and(|i| i.len() == 3);
    let first = node.before;
    let mut rounds = Vec::new();
    loop {
        node.agent.edit(&list(&["a", "b", "c"]))?;
        node.agent.until(PATIENCE, "the short list is in force", short).await?;
        node.before = settled(node.agent.pid()).await?;
        rounds.push(node.before);
        let steady = rounds.iter().rev().nth(FLAT_ROUNDS).map(|earlier| grown(*earlier, node.before));
        match steady {
            Some(Ok(_)) => break,
            Some(Err(grows)) if rounds.len() >= MOST_ROUNDS => {
                return Err(grows.context(format!("it goes on growing: {rounds:?}")));
            }
            Some(Err(_)) | None => {}
        }
        node.agent.edit(&text)?;
        node.agent.until(PATIENCE, "the long list is warm", all).await?;
    }
    let needed = i64::try_from(node.before.resident)? - i64::try_from(first.resident)?;
    ensure!(node.before.files <= first.files + MORE_FILES, "{first:?} at first, {:?} now", node.before);
    // what is told counts from before the first long list
    node.recovered().await.map(|came| Came { grown: came.grown + needed, ..came })
}

/// Sets the wall clock of one process; its monotonic clock stays as it is.
struct SetClock<'a>(&'a Path);

impl SetClock<'_> {
    fn environment(&self, library: &Path) -> Vec<(String, String)> {
        [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// `+10y`, or `-55y`: from the machine's own clock.
    fn jump(&self, offset: &str) -> Result<()> {
        Ok(fs::write(self.0, format!("{offset}\n"))?)
    }
}

async fn clock(place: Place) -> Result<Came> {
    let Place::SetClock(library) = place else { bail!("this fault needs a clock that can be set") };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("offset");
    let clock = SetClock(&file);
    clock.jump("+0")?;
    let options = AgentOptions { environment: clock.environment(&library), ..AgentOptions::default() };
    let node = Node::set(options).await?;
    let rule = Rule::fail(Method::PullImage, Code::Unknown, "503 service unavailable").image(&image("after"));
    let rule = node.fake.lock().await.script().add(rule);
    node.agent.edit(&list(&["a", "b", "c", "after"]))?;
    let year = |row: &Value| row["nextAttempt"].as_str().and_then(|at| at.get(..4)?.parse::<i64>().ok());
    let row = node.agent.until_image(PATIENCE, &image("after"), "BackOff").await?;
    let failed = Instant::now();
    let this = year(&row).with_context(|| format!("{row:#}"))?;
    node.fake.lock().await.script().remove(rule);
    for (offset, years) in [("+10y", 10), ("-55y", -55), ("+1y", 1)] {
        clock.jump(offset)?;
        sleep(Duration::from_secs(2)).await;
        let row = node.agent.image(&image("after")).await?;
        // what is due by the machine's own clock stays due then, whatever the wall says
        ensure!(row["state"] == "BackOff" && row["attempt"] == 1, "after {offset}: {row:#}");
        let shown = year(&row).with_context(|| format!("{row:#}"))?;
        ensure!(
            (shown - this - years).abs() <= 1,
            "after {offset} the next attempt is shown for {shown}: the library works, or this proves nothing"
        );
    }
    node.agent.until_image(PATIENCE, &image("after"), "Present").await?;
    let took = failed.elapsed();
    ensure!(took > Duration::from_secs(9), "tried again after {took:?}, before its time");
    clock.jump("+0")?;
    ensure!(node.agent.get("/readyz").await?.0 == 200);
    node.recovered().await
}
