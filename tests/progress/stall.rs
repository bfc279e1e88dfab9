//! What stands still is ended; what unpacks is not.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::{
    PATIENCE, agent,
    bytes::{Stage, random},
    support::{
        containerd::{Containerd, Options},
        images::{Content, Layer},
        parts::ContainerdPart,
    },
};

/// Of the lists here.
const STALL: Duration = Duration::from_secs(4);

fn list(images: &[&str]) -> String {
    format!("limits: {{stallTimeout: {}s, pullTimeout: 10m}}\nimages: {images:?}\n", STALL.as_secs())
}

/// One registry stops sending in the middle, another one goes on all the time.
pub(super) async fn frozen(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let other = super::support::tcp_proxy::TcpProxy::start(&stage.registry.host())?;
    stage.containerd.route("other.test", &other.upstream())?;
    let image = stage.push("team/app:1", &[random(1, 12)?]).await?;
    stage.push("team/long:1", &[random(2, 40)?]).await?;
    stage.line.change(|line| line.bytes_per_second = Some(2 << 20));
    other.change(|line| line.bytes_per_second = Some(2 << 20));
    let agent = agent(&stage.containerd.socket(), &list(&[&image, "other.test/team/long:1"]))?;
    agent
        .until(PATIENCE, "it moves", |status| {
            status["images"][0]["downloadedBytes"].as_u64().is_some_and(|b| b > 3 << 20)
        })
        .await?;
    stage.line.change(|line| line.frozen = true);
    let froze = Instant::now();
    let failed = agent.until_image(PATIENCE, &image, "BackOff").await?;
    let took = froze.elapsed();
    println!("{}: {took:?} after it froze: {}", part.name(), failed["message"]);
    ensure!(failed["class"] == "Stalled" && took + Duration::from_secs(1) >= STALL, "after {took:?}: {failed}");
    ensure!(took < STALL * 3, "only after {took:?}");
    ensure!(failed["message"].as_str().is_some_and(|message| message.contains("stallTimeout")), "{failed}");
    // the other one is untouched, and this one goes on when its registry does
    let long = agent.image("other.test/team/long:1").await?;
    ensure!(long["attempt"] == 0 || long["attempt"] == 1, "{long}");
    stage.line.change(|line| *line = super::support::tcp_proxy::Conditions::default());
    stage.line.reset();
    agent.until_warm(PATIENCE).await?;
    Ok(())
}

/// Connections are taken, and nothing ever comes: on a node where nothing was ever pulled.
pub(super) async fn silent(part: ContainerdPart) -> Result<()> {
    let stage = Stage::set(Containerd::start(&part, &[]).await?).await?;
    let image = stage.push("team/app:1", &[random(2, 1)?]).await?;
    stage.line.change(|line| line.frozen = true);
    let agent = agent(&stage.containerd.socket(), &list(&[&image]))?;
    let failed = agent.until_image(PATIENCE, &image, "BackOff").await?;
    ensure!(failed["class"] == "Stalled", "{failed}");
    ensure!(failed["message"].as_str().is_some_and(|m| m.contains("nothing came from the registry")), "{failed}");
    Ok(())
}

/// The unpack takes more than four times the stall time-out, because the program that containerd decompresses with is slow.
pub(super) async fn long_unpack(part: ContainerdPart) -> Result<()> {
    let programs = tempfile::tempdir()?;
    let slow = format!("#!/bin/sh\nsleep {}\nexec gzip -d -c\n", STALL.as_secs() * 4 + 1);
    for program in ["unpigz", "igzip"] {
        fs::write(programs.path().join(program), &slow)?;
        fs::set_permissions(programs.path().join(program), fs::Permissions::from_mode(0o755))?;
    }
    let options = Options { programs: Some(programs.path().to_owned()), ..Options::default() };
    let stage = Stage::set(Containerd::start_with(&part, &[], options).await?).await?;
    let image = stage.push("team/app:1", &[Layer::new(1, 3 << 20, Content::Random)?]).await?;
    let agent = agent(&stage.containerd.socket(), &list(&[&image]))?;
    agent.until(PATIENCE, "it is unpacked", |status| status["images"][0]["phase"] == "unpacking").await?;
    let began = Instant::now();
    let present = agent.until_image(PATIENCE, &image, "Present").await?;
    let took = began.elapsed();
    println!("{}: unpacked for {took:?}", part.name());
    ensure!(took + Duration::from_secs(2) > STALL * 4, "the unpack was not slow: {took:?}");
    let failures =
        agent.metric("prepull_pulls_total{class=\"Stalled\",registry=\"registry.test\",result=\"failure\"}").await?;
    ensure!(failures == 0.0, "{present}");
    Ok(())
}
