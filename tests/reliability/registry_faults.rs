//! What registries, their token servers and the network between them and the node do wrong.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    matrix::{Came, Fault, On, Place},
    stage::{Gate, LAYER, Setting, Stage},
    support::{
        images::{Content, Image, Layer},
        registry::Upstream,
        stand_in::{self, Target},
    },
};

/// A name that no DNS knows.
const NO_NAME: &str = "no-such-host.invalid";
/// The image that is damaged, one of those that [`Stage`] lists.
const DAMAGED: &str = "team/first:1";
/// Slow enough that a layer is under way when something happens to it, in bytes per second.
const SLOW: u64 = 150_000;
/// So slow that nobody waits for the end.
const LORIS: u64 = 2_000;

/// What is brought about, and ended again.
#[derive(Debug, Clone)]
enum Act {
    /// Connections are reset over and over while layers come slowly.
    ResetInLayers,
    /// Nothing moves any more once a layer is under way.
    HalfOpen,
    /// Bytes come one by one.
    SlowLoris,
    /// Connections are refused.
    Refused,
    /// The registry answers wrongly.
    Wrong(stand_in::Fault),
    /// Its certificate has expired.
    Expired,
    /// Its authority is not known.
    UnknownAuthority,
    /// Its name is not.
    NoName,
    /// Nobody gives tokens out.
    NoTokens,
    /// One image has a layer that arrives whole and cannot be unpacked, until the image is pushed again.
    Damaged,
}

fn status(target: Target, status: u16, headers: &[(&'static str, &str)]) -> Act {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let body = if status == 200 { "<!DOCTYPE html><html>Sign in to the network</html>" } else { "" }.to_owned();
    Act::Wrong(stand_in::Fault::Status { target, status, headers, body })
}

/// All of them.
pub(crate) fn all() -> Vec<Fault> {
    let basic = [("www-authenticate", "Basic realm=\"faults\"")];
    let limited = [("retry-after", "2")];
    let gone = &["RegistryUnavailable"][..];
    [
        (
            "registry_resets_connections_in_a_layer",
            "connections reset every 300 ms while layers come slowly",
            Act::ResetInLayers,
            gone,
        ),
        (
            "registry_falls_silent_in_a_layer",
            "half-open: connections stay, nothing more comes; pullTimeout 3 s",
            Act::HalfOpen,
            &["Timeout"],
        ),
        ("registry_sends_byte_by_byte", "slow-loris: 2 kB/s; pullTimeout 3 s", Act::SlowLoris, &["Timeout"]),
        ("registry_refuses_connections", "every connection is reset at its begin", Act::Refused, gone),
        (
            "registry_says_401",
            "401 with a challenge, whatever is sent",
            status(Target::Manifests, 401, &basic),
            &["Unauthorized"],
        ),
        ("registry_says_403", "403 for manifests", status(Target::Manifests, 403, &[]), &["Unauthorized"]),
        ("registry_says_404", "404 for manifests", status(Target::Manifests, 404, &[]), &["NotFound"]),
        ("registry_says_429", "429 for manifests", status(Target::Manifests, 429, &[]), &["RateLimited"]),
        (
            "registry_says_429_with_retry_after",
            "429 with Retry-After: 2",
            status(Target::Manifests, 429, &limited),
            &["RateLimited"],
        ),
        (
            "registry_says_429_for_layers",
            "429 for blobs, manifests come",
            status(Target::Blobs, 429, &[]),
            &["RateLimited"],
        ),
        ("registry_says_500", "500 for manifests", status(Target::Manifests, 500, &[]), gone),
        ("registry_says_503", "503 for manifests", status(Target::Manifests, 503, &[]), gone),
        ("registry_says_503_for_layers", "503 for blobs, manifests come", status(Target::Blobs, 503, &[]), gone),
        ("layers_are_cut", "connections end after half of a layer", Act::Wrong(stand_in::Fault::TruncatedLayers), gone),
        (
            "layers_are_changed",
            "other bytes than the digest's",
            Act::Wrong(stand_in::Fault::ChangedLayers),
            &["DamagedContent"],
        ),
        (
            "layer_is_damaged",
            "the gzip stream of one image's layer is cut, its digest is right",
            Act::Damaged,
            &["DamagedContent"],
        ),
        ("blobs_are_lost", "404 for blobs, manifests come", status(Target::Blobs, 404, &[]), &["NotFound"]),
        (
            "web_page_answers",
            "200 with text/html for manifests, as of a captive portal",
            status(Target::Manifests, 200, &[("content-type", "text/html; charset=utf-8")]),
            gone,
        ),
        ("registry_says_520", "520 for manifests", status(Target::Manifests, 520, &[]), gone),
        ("certificate_has_expired", "the registry's certificate is of the past", Act::Expired, &["Tls"]),
        (
            "certificate_of_an_unknown_authority",
            "the runtime does not know the authority",
            Act::UnknownAuthority,
            &["Tls"],
        ),
        ("name_is_not_known", "DNS does not know the registry", Act::NoName, gone),
        ("token_server_is_down", "the token server refuses connections", Act::NoTokens, gone),
    ]
    .into_iter()
    .map(|(name, done, act, classes)| {
        let expected = match classes {
            ["Timeout"] => "ends the attempt at pullTimeout, BackOff Timeout",
            ["Unauthorized"] => "BackOff Unauthorized",
            ["NotFound"] => "BackOff NotFound",
            ["RateLimited"] => "BackOff RateLimited, the others wait for the cool-down",
            ["Tls"] => "BackOff Tls",
            ["DamagedContent"] => "BackOff DamagedContent, no cool-down",
            _ if matches!(act, Act::ResetInLayers | Act::Wrong(stand_in::Fault::TruncatedLayers)) => {
                "BackOff RegistryUnavailable; the second in a row closes the registry"
            }
            _ => "BackOff RegistryUnavailable, the others wait for the cool-down",
        };
        Fault::new(name, On::Containerd, done, expected, move |place| run(place, act.clone(), classes))
    })
    .collect()
}

async fn run(place: Place, act: Act, classes: &'static [&'static str]) -> Result<Came> {
    let Place::Containerd(part) = place else { bail!("this fault needs a real runtime") };
    let gate = match act {
        Act::Expired | Act::UnknownAuthority => Gate::Tls,
        Act::NoTokens => Gate::Tokens,
        _ => Gate::Password,
    };
    let pull_timeout = if matches!(act, Act::HalfOpen | Act::SlowLoris) { "3s" } else { "5m" };
    let host = matches!(act, Act::NoName).then_some(NO_NAME);
    let mut stage = Stage::set(&part, Setting { gate, host, pull_timeout, ..Setting::default() }).await?;
    begin(&mut stage, &act, gate).await?;
    stage.want(pull_timeout)?;
    match act {
        Act::ResetInLayers => {
            let resets = async {
                loop {
                    sleep(Duration::from_millis(300)).await;
                    stage.network.reset();
                }
            };
            tokio::select! {
                failed = stage.until_failed(classes) => failed.map(drop)?,
                () = resets => {}
            }
        }
        Act::HalfOpen => {
            let down = stage.network.traffic().down;
            stage.network.wait_until(super::stage::PATIENCE, |t| t.down > down + LAYER as u64 / 3).await?;
            stage.network.change(|c| c.frozen = true);
            stage.until_failed(classes).await?;
        }
        Act::Damaged => {
            stage.until_failed(classes).await?;
            // the registry is well: what else is listed comes at once, before the damaged image is tried again
            let others = |status: &Value| {
                let present = |row: &&Value| row["state"] == "Present";
                status["images"].as_array().is_some_and(|rows| rows.iter().filter(present).count() == 3)
            };
            let cooled = |status: &Value| {
                status["images"].as_array().is_some_and(|rows| rows.iter().any(|row| row["reason"] == "cooldown"))
            };
            let status = stage
                .agent
                .until(super::stage::PATIENCE, "the other images are present", |status| {
                    cooled(status) || others(status)
                })
                .await?;
            ensure!(!cooled(&status), "a damaged layer closed its registry: {status:#}");
        }
        Act::Wrong(stand_in::Fault::Status { target: Target::Blobs, status: 404, .. }) => {
            let row = stage.until_failed(classes).await?;
            ensure!(row["remedy"].as_str().is_some_and(|remedy| remedy.starts_with("Push the image again")), "{row:#}");
        }
        Act::Wrong(stand_in::Fault::Status { status: 200, .. }) => {
            let row = stage.until_failed(classes).await?;
            ensure!(row["remedy"].as_str().is_some_and(|remedy| remedy.contains("not a registry")), "{row:#}");
        }
        _ => stage.until_failed(classes).await.map(drop)?,
    }
    // what fails once must not be lost by failing a little longer
    sleep(Duration::from_millis(500)).await;
    end(&mut stage, &act, gate).await?;
    stage.recovered().await
}

async fn begin(stage: &mut Stage, act: &Act, gate: Gate) -> Result<()> {
    match act {
        Act::ResetInLayers | Act::HalfOpen => stage.network.change(|c| c.bytes_per_second = Some(SLOW)),
        Act::SlowLoris => stage.network.change(|c| c.bytes_per_second = Some(LORIS)),
        Act::Refused => {
            stage.network.change(|c| c.closed = true);
            stage.network.reset();
        }
        Act::Wrong(fault) => stage.front.set(fault.clone()),
        Act::Expired => stage.registry.restart_certified_until(2001).await?,
        Act::UnknownAuthority => {
            let stranger = Upstream { ca: None, ..stage.upstream(gate) };
            stage.containerd.route(&stage.host, &stranger)?;
        }
        Act::NoName => stage.containerd.route(&stage.host, &Upstream::http(&stage.host))?,
        Act::Damaged => {
            let damaged = Image::new("damaged", &[Layer::new(79, LAYER, Content::Compressible)?.cut()]);
            stage.registry.push(DAMAGED, &damaged).await?;
        }
        Act::NoTokens => {
            if let Some(tokens) = stage.registry.tokens() {
                tokens.network().change(|c| c.closed = true);
                tokens.network().reset();
            }
        }
    }
    Ok(())
}

async fn end(stage: &mut Stage, act: &Act, gate: Gate) -> Result<()> {
    match act {
        Act::ResetInLayers | Act::HalfOpen | Act::SlowLoris | Act::Refused => {
            stage.network.change(|c| *c = super::support::tcp_proxy::Conditions::default());
        }
        Act::Wrong(_) => stage.front.set(stand_in::Fault::None),
        Act::Expired => stage.registry.restart_certified_until(2100).await?,
        Act::Damaged => {
            let whole = Image::new("whole", &[Layer::new(79, LAYER, Content::Compressible)?]);
            stage.registry.push(DAMAGED, &whole).await?;
        }
        Act::UnknownAuthority | Act::NoName => stage.containerd.route(&stage.host, &stage.upstream(gate))?,
        Act::NoTokens => {
            if let Some(tokens) = stage.registry.tokens() {
                tokens.network().change(|c| c.closed = false);
            }
        }
    }
    Ok(())
}
