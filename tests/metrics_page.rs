//! `/metrics` of a real agent, as Prometheus' own checker sees it.

#[path = "metrics_page/reference.rs"]
mod reference;
mod support;

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Arguments;
use support::{
    agent::{Agent, AgentOptions},
    fake_cri::{FakeCri, Offer},
    journal::Method,
    parts::{Missing, find},
    script::Rule,
    trials::trial,
};

const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let promtool = || {
        find("promtool").ok_or_else(|| Missing {
            part: "promtool".to_owned(),
            sentence: "promtool is not installed: run hack/install-parts --optional, or install the package prometheus"
                .to_owned(),
        })
    };
    let trials = vec![
        trial("reference::docs_metrics_md_is_what_the_code_says", Ok(()), reference::file_is_current),
        trial("promtool::the_page_of_an_idle_agent_passes", promtool(), idle),
        trial("promtool::the_page_passes_after_pulls_and_failures", promtool(), busy),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn check(promtool: PathBuf, page: &str) -> Result<()> {
    let mut check = Command::new(promtool);
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().context("promtool cannot be started")?;
    check.stdin.take().context("no stdin")?.write_all(page.as_bytes())?;
    let output = check.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && told.is_empty(), "{told}\n{page}");
    Ok(())
}

async fn idle(promtool: PathBuf) -> Result<()> {
    let mut fake = FakeCri::start()?;
    fake.close();
    let options = AgentOptions::default();
    let agent = Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &fake.socket(), "images: []", &options)?;
    agent.until(PATIENCE, "it answers", |_| true).await?;
    check(promtool, &agent.get("/metrics").await?.1)
}

async fn busy(promtool: PathBuf) -> Result<()> {
    let fake = FakeCri::start()?;
    let (good, private, limited) = ("a.example.com/good:1", "b.example.com/private:1", "c.example.com/limited:1");
    fake.offer(private, Offer { logins: vec![("nobody".into(), "knows".into())], ..Offer::default() });
    let refused = Rule::fail(Method::PullImage, tonic::Code::Unknown, "429 Too Many Requests");
    fake.script().add(refused.image(limited));
    let list = format!("images: ['{good}', '{private}', '{limited}', 'quay.io/\"quoted\\x:1', Bad//]");
    let options = AgentOptions::default();
    let agent = Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), &fake.socket(), &list, &options)?;
    for (image, state) in [(good, "Present"), (private, "BackOff"), (limited, "BackOff")] {
        agent.until_image(PATIENCE, image, state).await?;
    }
    let page = agent.get("/metrics").await?.1;
    for wanted in ["result=\"success\"", "class=\"Unauthorized\"", "prepull_registry_cooldown_seconds{registry=\"c."] {
        ensure!(page.contains(wanted), "{wanted} is not on the page\n{page}");
    }
    check(promtool, &page)
}
