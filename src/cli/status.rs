//! `prepull status`: the whole cluster, images × nodes.

mod rounds;
mod text;

use std::{process::ExitCode, time::Duration};

use super::{
    NOT_SO, WRONG_USAGE,
    agent::duration,
    cluster::ClusterArgs,
    options::OutputArgs,
    output::{self, Format, Reader},
};
use crate::{fleet::Picture, kubernetes::watch::Trouble};
use rounds::{Rounds, Who};

/// Between two looks, as long as nothing else takes longer.
const BETWEEN: Duration = Duration::from_secs(2);
/// Where there are many agents, looks are further apart: each lists all their pods.
const LONGEST_BETWEEN: Duration = Duration::from_secs(30);

/// How long is waited where nothing else is said.
const ONE_HOUR: Duration = Duration::from_hours(1);

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// The agents' namespace
    #[arg(short, long, env = "PREPULL_NAMESPACE", value_name = "NAMESPACE", default_value = "prepull")]
    namespace: String,
    /// Labels of the agents' pods
    #[arg(
        short = 'l',
        long,
        env = "PREPULL_SELECTOR",
        value_name = "SELECTOR",
        default_value = "app.kubernetes.io/name=prepull"
    )]
    selector: String,
    /// Ask every agent, not only those whose pods are not ready
    #[arg(long, env = "PREPULL_ALL")]
    all: bool,
    /// A row for each node instead of one for each image; asks every agent
    #[arg(long, env = "PREPULL_NODES")]
    nodes: bool,
    /// Wait until the nodes are warm with the lists as they are now; asks every agent
    #[arg(long, env = "PREPULL_WAIT")]
    wait: bool,
    /// How many of all nodes must be warm, in percent; with less than 100% a dead node does not keep anybody waiting
    #[arg(long, env = "PREPULL_MIN_WARM", value_name = "PERCENT", default_value = "100%", value_parser = percent)]
    min_warm: f64,
    /// How long to wait [default: 1h] [env: PREPULL_TIMEOUT, which alone asks for no waiting]
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "wait")]
    timeout: Option<Duration>,
    /// Show it again and again, until interrupted
    #[arg(short, long, env = "PREPULL_WATCH", conflicts_with = "wait")]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { namespace, selector, all, nodes, wait, min_warm, timeout, watch, output, cluster } = args;
    let format = output.output;
    let timeout = match (timeout, twin("PREPULL_TIMEOUT")) {
        (None, Some(text)) if wait => match duration(&text) {
            Ok(timeout) => Some(timeout),
            Err(why) => {
                output::note(&format!("prepull: PREPULL_TIMEOUT is no duration: {why}"));
                return Ok(ExitCode::from(WRONG_USAGE));
            }
        },
        (given, _) => given,
    };
    let client = cluster.client().await?;
    let who = if all || nodes || wait { Who::Everybody } else { Who::NotReady };
    let mut rounds = Rounds::new(client, namespace, selector, who);
    if wait {
        return waited(&mut rounds, min_warm, timeout.unwrap_or(ONE_HOUR), format, nodes).await;
    }
    loop {
        // what one look proved says nothing about the next: here every look is shown
        rounds.forget();
        let picture = match rounds.look().await {
            Ok(picture) => picture,
            Err(Trouble::NoAnswer(why)) if watch => {
                output::note(&format!("prepull: {why}; trying again"));
                tokio::time::sleep(BETWEEN).await;
                continue;
            }
            Err(trouble) => return Err(rounds.explained(trouble)),
        };
        let shown = output::text(format, &picture, |picture| text::whole(picture, nodes))?;
        let shown = match format {
            Format::Table if watch => text::again(&shown),
            // each look is a document of its own
            Format::Yaml if watch => format!("---\n{shown}"),
            Format::Table | Format::Json | Format::Yaml => shown,
        };
        let reader = output::write_on(shown)?;
        if !watch || reader == Reader::Gone {
            return Ok(verdict(picture.is_warm(min_warm, false) && !picture.has_unusable_list()));
        }
        tokio::time::sleep(between(picture.agents)).await;
    }
}

/// Waits until so many are warm, or the time is over. What is waited for is told on stderr, whenever it changes.
async fn waited(
    rounds: &mut Rounds,
    min_warm: f64,
    bound: Duration,
    format: Format,
    nodes: bool,
) -> anyhow::Result<ExitCode> {
    let deadline = tokio::time::Instant::now() + bound;
    let mut told = String::new();
    let mut tell = |line: String| {
        if line != told {
            output::note(&line);
            told = line;
        }
    };
    let mut last: Option<Picture> = None;
    let reached = loop {
        let remembered = rounds.remembers();
        let pause = match tokio::time::timeout_at(deadline, rounds.look()).await {
            Ok(Ok(picture)) => {
                if picture.has_unusable_list() {
                    // no agent can ever follow it: there is nothing to wait for
                    last = Some(picture);
                    break false;
                }
                if let Some(of_files) = picture.never_proven(min_warm) {
                    tell(text::of_files(of_files, picture.agents));
                    last = Some(picture);
                    break false;
                }
                let reached = picture.is_warm(min_warm, true);
                let pause = between(picture.agents);
                tell(text::progress(&picture));
                last = Some(picture);
                if reached && remembered {
                    // whoever was warm earlier may have lost an image since: the proof is one look in which all say so
                    rounds.forget();
                    continue;
                }
                if reached {
                    break true;
                }
                pause
            }
            Ok(Err(Trouble::NoAnswer(why))) => {
                tell(format!("prepull: {why}; trying again"));
                BETWEEN
            }
            Ok(Err(trouble)) => return Err(rounds.explained(trouble)),
            Err(_) => Duration::ZERO,
        };
        if tokio::time::Instant::now() + pause >= deadline {
            tell(format!("prepull: not warm within {} s (--timeout)", bound.as_secs()));
            break false;
        }
        tokio::time::sleep(pause).await;
    };
    if let Some(picture) = last {
        output::print(format, &picture, |picture| text::whole(picture, nodes))?;
    }
    Ok(verdict(reached))
}

/// A variable that is set to something.
fn twin(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn verdict(so: bool) -> ExitCode {
    if so { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) }
}

fn between(agents: usize) -> Duration {
    // two seconds for two hundred agents, twenty for two thousand
    let for_all = Duration::from_millis(10) * u32::try_from(agents).unwrap_or(u32::MAX);
    for_all.clamp(BETWEEN, LONGEST_BETWEEN)
}

/// `99%`, `99.5` and the like.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("write a number from 0 to 100, such as 99%".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents_are_numbers_up_to_a_hundred() {
        assert_eq!((percent("99%"), percent("99.5"), percent("0")), (Ok(99.0), Ok(99.5), Ok(0.0)));
        for wrong in ["", "%", "101%", "-1", "NaN", "all"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn many_agents_are_looked_at_less_often() {
        assert_eq!(between(3), BETWEEN);
        assert_eq!(between(2_000), Duration::from_secs(20));
        assert_eq!(between(20_000), LONGEST_BETWEEN);
    }
}
