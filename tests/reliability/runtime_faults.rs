//! What the container runtime and its socket do wrong.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    matrix::{Came, Fault, On, Place},
    stage::{PATIENCE, Setting, Stage},
    support::{
        garbage::{Garbage, Kind},
        journal::Method,
        script::Rule,
    },
};

/// Larger than any message that the agent takes.
const OVERSIZE: usize = 65 << 20;

/// All of them.
pub(crate) fn all() -> Vec<Fault> {
    vec![
        fault(
            "runtime_is_killed",
            "SIGKILL during two pulls, started again after 2 s",
            "Pending, waits for the runtime; no back-off",
            killed,
        ),
        fault(
            "runtime_stands_still",
            "SIGSTOP for 12 s during two pulls, then SIGCONT",
            "says after 10 s that the runtime does not tell its store",
            stopped,
        ),
        fault(
            "pulls_hang",
            "PullImage gives no answer; pullTimeout 3 s",
            "ends the attempt at pullTimeout, BackOff Timeout",
            hung_pulls,
        ),
        fault(
            "looks_hang",
            "ListImages gives no answer for 11 s",
            "says after 10 s that the runtime does not tell its store",
            hung_looks,
        ),
        fault(
            "status_calls_hang",
            "ImageStatus gives no answer while images are pulled",
            "pulls end well without it",
            hung_status,
        ),
        fault(
            "store_is_too_large_to_tell",
            "ListImages answers 65 MiB",
            "says that the store cannot be looked at; takes none of it",
            oversize,
        ),
        fault("socket_speaks_garbage", "the socket answers random bytes", "says that no CRI runtime answers", |s| {
            garbage(s, Kind::Bytes)
        }),
        fault("socket_speaks_http_1", "the socket answers HTTP/1.1", "says that no CRI runtime answers", |s| {
            garbage(s, Kind::Http1)
        }),
        fault("answers_are_garbage", "gRPC whose messages are random bytes", "says that no CRI runtime answers", |s| {
            garbage(s, Kind::Messages)
        }),
        fault(
            "socket_is_silent",
            "connections are taken, nothing is answered",
            "says that no CRI runtime answers",
            |s| garbage(s, Kind::Silence),
        ),
    ]
}

fn fault<F, R>(name: &'static str, done: &'static str, expected: &'static str, run: F) -> Fault
where
    F: Fn(Stage) -> R + Copy + Send + Sync + 'static,
    R: Future<Output = Result<Came>> + 'static,
{
    // a call that hangs is waited for by the bound of a pull only where that is the point
    let pull_timeout = if name == "pulls_hang" { "3s" } else { "5m" };
    Fault::new(name, On::Containerd, done, expected, move |place| async move {
        let Place::Containerd(part) = place else { bail!("this fault needs a real runtime") };
        run(Stage::set(&part, Setting { pull_timeout, ..Setting::default() }).await?).await
    })
}

/// Begins two pulls that take a while.
async fn two_pulls(stage: &Stage) -> Result<()> {
    stage.network.change(|c| c.bytes_per_second = Some(100_000));
    stage.want("5m")?;
    stage.proxy.journal().wait_until(PATIENCE, |j| j.pulling() == 2).await?;
    sleep(Duration::from_millis(500)).await;
    Ok(())
}

async fn told(stage: &Stage, what: &str) -> Result<Value> {
    let told = |status: &Value| status["runtimeProblem"].as_str().is_some_and(|problem| problem.contains(what));
    stage.agent.until(PATIENCE, &format!("`{what}` is told"), told).await
}

async fn killed(mut stage: Stage) -> Result<Came> {
    two_pulls(&stage).await?;
    // the proxy's clients see the runtime's end as the runtime's own would: the connection ends, and the socket is gone
    stage.proxy.close();
    stage.containerd.kill()?;
    for image in &stage.wanted[..2] {
        let row = stage.agent.until_image(PATIENCE, image, "Pending").await?;
        ensure!(row["reason"] == "runtime" && row["attempt"] == 0, "the runtime's end is nobody's failure: {row:#}");
    }
    sleep(Duration::from_secs(2)).await;
    ensure!(stage.agent.status().await?["warm"] == false);
    stage.network.change(|c| c.bytes_per_second = None);
    stage.containerd.restart().await?;
    stage.proxy.open()?;
    stage.recovered().await
}

async fn stopped(stage: Stage) -> Result<Came> {
    two_pulls(&stage).await?;
    stage.containerd.pause().await?;
    // an edit makes the agent look
    let images: Vec<&String> = [&stage.steady].into_iter().chain(&stage.wanted).collect();
    stage.agent.edit(&(super::stage::list("5m", &images) + "# edited\n"))?;
    let status = told(&stage, "has not said for 10 s what is in its store").await?;
    ensure!(status["warm"] == false, "{status:#}");
    stage.containerd.resume()?;
    stage.network.change(|c| c.bytes_per_second = None);
    stage.recovered().await
}

async fn hung_pulls(stage: Stage) -> Result<Came> {
    let rule = stage.proxy.script().add(Rule::hang(Method::PullImage));
    stage.want("3s")?;
    stage.until_failed(&["Timeout"]).await?;
    stage.proxy.script().remove(rule);
    stage.recovered().await
}

async fn hung_looks(stage: Stage) -> Result<Came> {
    let rule = stage.proxy.script().add(Rule::hang(Method::ListImages));
    stage.want("5m")?;
    let status = told(&stage, "has not said for 10 s what is in its store").await?;
    let rows = status["images"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(rows.iter().all(|row| row["image"] != stage.steady.as_str() || row["state"] == "Present"), "{status:#}");
    stage.proxy.script().remove(rule);
    stage.recovered().await
}

async fn hung_status(stage: Stage) -> Result<Came> {
    let rule = stage.proxy.script().add(Rule::hang(Method::ImageStatus));
    stage.want("5m")?;
    stage.proxy.journal().wait_until(PATIENCE, |j| j.of(Method::ImageStatus).any(|call| call.ended.is_none())).await?;
    sleep(Duration::from_secs(1)).await;
    stage.proxy.script().remove(rule);
    stage.recovered().await
}

async fn oversize(stage: Stage) -> Result<Came> {
    let rule = stage.proxy.script().add(Rule::pad(Method::ListImages, OVERSIZE));
    let before = stage.agent.resident_bytes()?;
    stage.want("5m")?;
    told(&stage, "the runtime's store cannot be looked at").await?;
    let now = stage.agent.resident_bytes()?;
    ensure!(now < before + (OVERSIZE as u64) / 4, "{before} bytes before, {now} with an answer that is too large");
    stage.proxy.script().remove(rule);
    stage.recovered().await
}

async fn garbage(mut stage: Stage, kind: Kind) -> Result<Came> {
    stage.proxy.close();
    let garbage = Garbage::on(&stage.proxy.socket(), kind)?;
    stage.want("5m")?;
    let socket = stage.proxy.socket().display().to_string();
    let status = told(&stage, &socket).await?;
    let problem = status["runtimeProblem"].as_str().unwrap_or_default();
    ensure!(problem.len() < 1000 && !problem.contains(['\n', '\u{1b}']), "one clean line: {problem:?}");
    // it is not asked again and again: at most a few times a second
    sleep(Duration::from_secs(1)).await;
    drop(garbage);
    stage.proxy.open()?;
    stage.recovered().await
}
