//! The agent at its edges: lists that change or cannot be read, signals, logs. Without a real runtime.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    PATIENCE, agent, agent_with, list, program,
    support::{
        agent::{Agent, AgentOptions},
        fake_cri::{FakeCri, Offer},
        journal::{Call, Method},
        script::Rule,
    },
};

/// The least of three, because the machine may have other things to do.
pub(super) async fn warm_at_once() -> Result<()> {
    let fake = FakeCri::start()?;
    let images: Vec<_> = (0..200).map(|n| format!("registry.example.com/app-{n}:1")).collect();
    fake.put(images.iter().map(String::as_str))?;
    let mut least = Duration::MAX;
    for _ in 0..3 {
        fake.journal().clear();
        let agent = agent(&fake.socket(), &list(&images))?;
        let end = Instant::now() + PATIENCE;
        while !agent.get("/readyz").await.is_ok_and(|(code, _)| code == 200) {
            ensure!(Instant::now() < end, "not warm\n{}", agent.log());
            sleep(Duration::from_millis(2)).await;
        }
        let ready = Instant::now();
        let version = fake.journal().calls(Method::Version).first().and_then(|c| c.ended.clone());
        least = least.min(ready.saturating_duration_since(version.context("no Version")?.0));
        ensure!(fake.journal().count(Method::PullImage) == 0);
        let warm = agent.metric("prepull_time_to_warm_seconds").await?;
        ensure!(warm > 0.0 && warm < 10.0, "warm {warm} s after the agent's start");
    }
    ensure!(least < Duration::from_millis(300), "/readyz was 200 only {least:?} after the runtime's answer");
    Ok(())
}

pub(super) async fn reset_without_bytes() -> Result<()> {
    let fake = FakeCri::start()?;
    let [broken, other] = ["registry.example.com/app:1", "registry.example.com/other:1"];
    let reset = "failed to copy: read tcp 10.0.0.1:4242->10.0.0.2:443: read: connection reset by peer";
    fake.script().add(Rule::fail(Method::PullImage, tonic::Code::Unknown, reset).image(broken).times(1));
    let agent = agent(&fake.socket(), &format!("limits: {{parallelPulls: 1}}\n{}", list(&[broken, other])))?;
    let row = agent.until_image(PATIENCE, broken, "BackOff").await?;
    ensure!(row["class"] == "RegistryUnavailable" && row["attempt"] == 1, "{row:#}");
    let row = agent.image(other).await?;
    ensure!(row["state"] == "Pending" && row["reason"] == "cooldown", "{row:#}");
    ensure!(fake.journal().count(Method::PullImage) == 1);
    Ok(())
}

pub(super) async fn edit_of_what_is_there() -> Result<()> {
    let fake = FakeCri::start()?;
    let images = ["registry.example.com/app:1", "registry.example.com/other:1"];
    fake.put(images)?;
    let agent = agent(&fake.socket(), &list(&images[..1]))?;
    agent.until_warm(PATIENCE).await?;
    agent.edit(&list(&images))?;
    let both =
        |s: &Value| s["images"].as_array().is_some_and(|i| i.len() == 2 && i.iter().all(|i| i["state"] == "Present"));
    agent.until(PATIENCE, "both are present", both).await?;
    let log = agent.log();
    ensure!(!log.contains("node is not warm"), "nothing was missing at any time:\n{log}");
    ensure!(log.matches("node is warm").count() == 1, "warm once:\n{log}");
    Ok(())
}

pub(super) async fn bad_lists() -> Result<()> {
    let fake = FakeCri::start()?;
    let image = "registry.example.com/app:1";
    let agent = agent(&fake.socket(), &list(&[image]))?;
    agent.until_warm(PATIENCE).await?;
    let spoiled = [
        ("images: [", "not YAML"),
        ("- a", "must be a mapping"),
        ("", "the list is empty"),
        ("# soon\n", "the list is empty"),
    ];
    for (text, problem) in spoiled {
        agent.edit(text)?;
        let what = format!("the problem of {text:?} is told");
        let told = |s: &Value| s["lists"][0]["problems"][0].as_str().is_some_and(|p| p.contains(problem));
        let status = agent.until(PATIENCE, &what, told).await?;
        ensure!(
            status["warm"] == true && status["images"][0]["image"] == image,
            "the last good list stays: {status:#}"
        );
    }
    fs::remove_file(agent.list_path())?;
    let told = |s: &Value| s["lists"][0]["problems"][0].as_str().is_some_and(|p| p.contains("does not exist"));
    let status = agent.until(PATIENCE, "the file's end is told", told).await?;
    ensure!(status["warm"] == true, "{status:#}");
    ensure!(agent.metric("prepull_list_reloads_total{result=\"failure\"}").await? >= 3.0);
    agent.edit("images: []")?;
    let status = agent.until(PATIENCE, "the empty list is read", |s| s["images"] == Value::Array(vec![])).await?;
    ensure!(status["warm"] == true && status["lists"][0]["problems"] == Value::Array(vec![]), "{status:#}");
    Ok(())
}

/// As the kubelet updates a ConfigMap volume: the file is a link into `..data`, which is a link that is replaced.
pub(super) async fn swapped_link() -> Result<()> {
    let fake = FakeCri::start()?;
    let folder = tempfile::tempdir()?;
    let version = |name: &str, text: &str| -> Result<()> {
        fs::create_dir(folder.path().join(name))?;
        fs::write(folder.path().join(name).join("images.yaml"), text)?;
        std::os::unix::fs::symlink(name, folder.path().join("..data_tmp"))?;
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data"))?;
        Ok(())
    };
    version("..v1", &list(&["registry.example.com/a:1"]))?;
    std::os::unix::fs::symlink("..data/images.yaml", folder.path().join("images.yaml"))?;
    let path = folder.path().join("images.yaml");
    let agent = Agent::start_on(&program(), &fake.socket(), &path, tempfile::tempdir()?, &AgentOptions::default())?;
    agent.until_warm(PATIENCE).await?;
    for (n, image) in [(2, "registry.example.com/b:1"), (3, "registry.example.com/c:1")] {
        let began = Instant::now();
        version(&format!("..v{n}"), &list(&[image]))?;
        fs::remove_dir_all(folder.path().join(format!("..v{}", n - 1)))?;
        fake.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).any(|c| c.image == image)).await?;
        ensure!(began.elapsed() < Duration::from_secs(1), "the swap took {:?} to take effect", began.elapsed());
    }
    Ok(())
}

/// `--images cur/images.yaml`, with `cur` replaced as a whole.
pub(super) async fn swapped_parent() -> Result<()> {
    let fake = FakeCri::start()?;
    let folder = tempfile::tempdir()?;
    let version = |name: &str, image: &str| -> Result<()> {
        fs::create_dir(folder.path().join(name))?;
        fs::write(folder.path().join(name).join("images.yaml"), list(&[image]))?;
        std::os::unix::fs::symlink(name, folder.path().join("new"))?;
        fs::rename(folder.path().join("new"), folder.path().join("cur"))?;
        Ok(())
    };
    version("v1", "registry.example.com/a:1")?;
    let path = folder.path().join("cur/images.yaml");
    let agent = Agent::start_on(&program(), &fake.socket(), &path, tempfile::tempdir()?, &AgentOptions::default())?;
    agent.until_warm(PATIENCE).await?;
    for (name, image) in [("v2", "registry.example.com/b:1"), ("v3", "registry.example.com/c:1")] {
        let began = Instant::now();
        version(name, image)?;
        fake.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).any(|c| c.image == image)).await?;
        ensure!(began.elapsed() < Duration::from_secs(1), "the swap took {:?} to take effect", began.elapsed());
    }
    Ok(())
}

/// Whoever reads the log may go away: the agent does not follow.
pub(super) async fn closed_log_pipe() -> Result<()> {
    let fake = FakeCri::start()?;
    let folder = tempfile::tempdir()?;
    let start = folder.path().join("start");
    // the pipe has no reader once its only one is closed
    let script = format!(
        "#!/bin/sh\nmkfifo \"$0.pipe\"\nexec 3<>\"$0.pipe\" 2>\"$0.pipe\" 3>&-\nexec {} \"$@\"\n",
        program().display()
    );
    fs::write(&start, script)?;
    fs::set_permissions(&start, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    for format in ["text", "json"] {
        let _ = fs::remove_file(folder.path().join("start.pipe"));
        let flags = vec!["--log-format".to_owned(), format.to_owned()];
        let options = AgentOptions { flags, ..AgentOptions::default() };
        let mut agent = Agent::start(&start, &fake.socket(), &list(&["registry.example.com/a:1"]), &options)?;
        agent.until_warm(PATIENCE).await?;
        agent.edit(&list(&["registry.example.com/b:1"]))?;
        let read = |s: &Value| s["images"][0]["image"] == "registry.example.com/b:1" && s["warm"] == true;
        agent.until(PATIENCE, "the edit is in force", read).await?;
        ensure!(agent.ended().is_none());
        let (status, _) = agent.terminate(PATIENCE).await?;
        ensure!(status.success(), "{status}");
    }
    Ok(())
}

/// Two different signals, because two of one kind may arrive as one. The hung pull keeps the first from ending at once.
pub(super) async fn second_signal() -> Result<()> {
    let fake = FakeCri::start()?;
    fake.script().add(Rule::hang(Method::PullImage));
    let mut agent = agent(&fake.socket(), &list(&["registry.example.com/a:1"]))?;
    fake.journal().wait_until(PATIENCE, |j| j.pulling() == 1).await?;
    agent.signal(Signal::TERM)?;
    agent.signal(Signal::INT)?;
    let end = Instant::now() + Duration::from_secs(2);
    let status = loop {
        if let Some(status) = agent.ended() {
            break status;
        }
        ensure!(Instant::now() < end, "it did not end");
        sleep(Duration::from_millis(5)).await;
    };
    ensure!(matches!(status.code(), Some(143 | 130)), "{status}, which is the end of a first signal\n{}", agent.log());
    Ok(())
}

pub(super) async fn log_lines() -> Result<()> {
    let fake = FakeCri::start()?;
    let (good, bad) = ("registry.example.com/good:1", "registry.example.com/bad:1");
    fake.offer(bad, Offer { logins: vec![("nobody".into(), "knows".into())], ..Offer::default() });
    let agent = agent_with(&fake.socket(), &list(&[good, bad]), &["--log-format", "json", "--resync", "200ms"])?;
    agent.until_image(PATIENCE, bad, "BackOff").await?;
    agent.until_image(PATIENCE, good, "Present").await?;
    sleep(Duration::from_secs(1)).await;
    let lines: Vec<Value> = agent.log().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let about =
        |image: &str, message: &str| lines.iter().filter(|l| l["image"] == image && l["message"] == message).count();
    ensure!(about(good, "image is being pulled") == 1 && about(good, "image is present") == 1, "{}", agent.log());
    ensure!(about(bad, "image could not be pulled") == 1, "{}", agent.log());
    let failure = lines.iter().find(|l| l["message"] == "image could not be pulled").context("no failure")?;
    ensure!(failure["class"] == "Unauthorized" && failure["reason"] == "ErrImagePull", "{failure:#}");
    let ticks = lines.len();
    sleep(Duration::from_millis(700)).await;
    ensure!(agent.log().lines().count() == ticks, "a tick is no news: {}", agent.log());
    Ok(())
}

pub(super) async fn no_list() -> Result<()> {
    let fake = FakeCri::start()?;
    fake.script().add(Rule::fail(Method::ListImages, tonic::Code::Unimplemented, "unknown method"));
    let (here, missing) = ("registry.example.com/here:1", "registry.example.com/missing:1");
    fake.put([here])?;
    let agent = agent_with(&fake.socket(), &list(&[here, missing]), &["--resync", "300ms"])?;
    agent.until_warm(PATIENCE).await?;
    fake.take(missing);
    fake.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).count() == 2).await?;
    agent.until_warm(PATIENCE).await?;
    ensure!(fake.journal().calls(Method::PullImage).iter().all(|call| call.image == missing));
    Ok(())
}

/// Pulls one after the other, in a runtime that takes longer to say what it has than a pull may take.
pub(super) async fn asked_beside() -> Result<()> {
    let fake = FakeCri::start()?;
    let images: Vec<String> = (0..3).map(|n| format!("registry.example.com/{n}:1")).collect();
    fake.script().add(Rule::delay(Method::ImageStatus, Duration::from_secs(2)));
    let text = format!("limits: {{parallelPulls: 1, pullTimeout: 1s}}\n{}", list(&images));
    let agent = agent(&fake.socket(), &text)?;
    let status = agent.until_warm(PATIENCE).await?;
    fake.journal().read(|j| {
        let (pulls, asked): (Vec<_>, Vec<_>) = (j.of(Method::PullImage).collect(), j.of(Method::ImageStatus).collect());
        ensure!(j.most_pulling() == 1 && pulls.len() == images.len(), "{pulls:?}");
        ensure!(pulls[1].started < asked[0].started + Duration::from_secs(2), "the next pull waits for what came");
        // it waits when more is asked about than may be pulled at once
        let end = |call: &Call| call.ended.as_ref().map(|(end, _)| *end);
        ensure!(end(asked[0]).is_some_and(|end| end <= pulls[2].started), "{pulls:?} {asked:?}");
        Ok(())
    })?;
    ensure!(status["images"].as_array().is_some_and(|rows| rows.iter().all(|row| row["state"] == "Present")));
    Ok(())
}

pub(super) async fn runtime_handler() -> Result<()> {
    let fake = FakeCri::start()?;
    let image = "registry.example.com/app:1";
    let agent = agent(&fake.socket(), &format!("images: [{{image: '{image}', runtimeHandler: kata}}]"))?;
    agent.until_warm(PATIENCE).await?;
    let calls = fake.journal().read(|j| j.calls.clone());
    let about: Vec<_> = calls.iter().filter(|c| c.image == image).collect();
    ensure!(
        about.iter().any(|c| c.method == Method::PullImage) && about.iter().any(|c| c.method == Method::ImageStatus)
    );
    ensure!(about.iter().all(|c| c.runtime_handler == "kata"), "{about:?}");
    Ok(())
}

/// Manifests often set a variable to nothing.
pub(super) async fn empty_variables() -> Result<()> {
    let fake = FakeCri::start()?;
    let empty =
        ["PREPULL_NODE_NAME", "PREPULL_CONFIGMAP", "PREPULL_DOCKER_CONFIG", "PREPULL_RESYNC", "PREPULL_LOG_LEVEL"];
    let mut environment: Vec<_> = empty.map(|name| (name.to_owned(), String::new())).into();
    environment.push(("NODE_NAME".to_owned(), "from-the-pod".to_owned()));
    let options = AgentOptions { environment, ..AgentOptions::default() };
    let agent = Agent::start(&program(), &fake.socket(), &list(&["registry.example.com/a:1"]), &options)?;
    let status = agent.until_warm(PATIENCE).await?;
    ensure!(status["node"] == "from-the-pod", "{status:#}");
    Ok(())
}
