//! `prepull pull`: the list's images now, once, with no cluster at all.

mod ending;
mod progress;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::bail;
use futures::FutureExt as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    NOT_SO, WRONG_USAGE,
    agent::{duration, local_node},
    images::{Asked, ImageArgs, NO_IMAGES},
    options::{CredentialArgs, OutputArgs, RuntimeArgs},
    output,
};
use crate::{
    agent::{
        cluster::Cluster,
        keeper::{Inputs, Keeper, Once, Settings},
        link::{self, LinkEvent},
        lists::read_text,
        on_signals,
        sources::SourceNames,
    },
    image_ref::ImageRef,
    io_pressure,
    list::{Entry, EntrySpec, ImageList, manifest::Manifest},
    list_update::{ListUpdate, Read},
    metrics::Metrics,
    node_report::ReadyWhen,
    page::text,
    process_clock::Clock,
    status::{ImageStatus, Status},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    images: ImageArgs,
    /// Go on trying what fails for this long, with the kubelet's back-off [default: one attempt for each image]
    #[arg(long, env = "PREPULL_RETRY_FOR", value_name = "DURATION", value_parser = duration)]
    retry_for: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    credentials: CredentialArgs,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { images, retry_for, output, runtime, credentials } = args;
    let asked = match images.into_asked() {
        Ok(asked) => asked,
        Err(wrong) => {
            output::note(&format!("prepull: {wrong}"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
    };
    let clock = Clock::start();
    let list = match &asked {
        Asked::List(path) => {
            let list = read_list(path).await?;
            for problem in &list.problems {
                output::note(&format!("prepull: {}: {problem}", path.display()));
            }
            if list.pins() {
                output::note(&format!(
                    "prepull: {}: pin is left to the agent; nothing is pinned or unpinned now",
                    path.display()
                ));
            }
            list
        }
        Asked::Images(images) => list_of(images),
    };
    let mut broken = list.problems.len();
    // an invalid entry is in the summary as well
    broken = broken.max(list.invalid_entries());

    let metrics = Metrics::new()?;
    let (link_sender, link) = mpsc::channel(2);
    let endpoint = runtime.runtime_endpoint;
    if retry_for.is_some() {
        tokio::spawn(link::keep_linked(endpoint, metrics.cri_observer(), link_sender));
    } else {
        let runtime = match link::connect(endpoint.as_ref(), &metrics.cri_observer()).await {
            Ok(runtime) => runtime,
            Err(reason) => bail!("{reason}"),
        };
        let mut closed = runtime.closed();
        link_sender.try_send(LinkEvent::Up(Box::new(runtime)))?;
        // when this runtime goes, nobody looks for another
        tokio::spawn(async move {
            closed.wait().await;
            // without a keeper nobody misses it
            let _ = link_sender.send(LinkEvent::Down("the container runtime closed the connection".to_owned())).await;
        });
    }
    let source: Arc<str> = "pull".into();
    let (list_sender, lists) = mpsc::channel(1);
    let read = Read::List { revision: "".into(), list: Arc::new(list) };
    list_sender.try_send(ListUpdate { source: source.clone(), namespace: None, read })?;
    let (_query_sender, queries) = mpsc::channel(1);

    let settings = Settings {
        node: local_node(None),
        resync: Duration::from_mins(5),
        ready_when: ReadyWhen::Warm,
        sources: SourceNames { named: vec![source], selector: None },
        cluster: Cluster::none(),
        credentials: Arc::new(credentials.into_credentials()),
        io_pressure: io_pressure::FILE.into(),
        once: Some(Once { retry_until: retry_for.map(|d| clock.now() + d) }),
    };
    let keeper = Keeper::new(settings, metrics, clock, progress::reporter());
    let stop = on_signals()?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let stopped = stop.clone();
    let mut status = keeper.run(Inputs { lists, link, queries, stop }).await;
    ending::nothing_follows(&mut status, matches!(asked, Asked::Images(_)));
    output::print(output.output, &status, |status| match status.images.as_slice() {
        [] => format!("{NO_IMAGES}\n"),
        images => text::images(images),
    })?;
    if let Some(problem) = &status.runtime_problem {
        output::note(&format!("prepull: {problem}"));
    }
    if *stopped.borrow() {
        let (word, code) = match interrupts.recv().now_or_never() {
            Some(_) => ("interrupted", 130),
            None => ("terminated", 143),
        };
        output::note(&format!("prepull: {word}; {}", summary(&status)));
        return Ok(ExitCode::from(code));
    }
    let all_there = status.images.iter().all(ImageStatus::present_or_elsewhere) && broken == 0;
    if output.output == output::Format::Table {
        output::note(&summary(&status));
    }
    Ok(if all_there { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

/// A list file or the lists of the ConfigMap manifests in a file, or in one line why there is none.
pub(super) async fn read_list(path: &std::path::Path) -> anyhow::Result<ImageList> {
    let text = read_text(path).await.map_err(|why| anyhow::anyhow!("{why}"))?;
    let list = match Manifest::read(&text) {
        Some(manifest) => {
            for note in &manifest.notes {
                output::note(&format!("prepull: {}: {note}", path.display()));
            }
            manifest.into_list()
        }
        None => ImageList::parse(&text),
    };
    list.map_err(|problem| anyhow::anyhow!("{}: {problem}", path.display()))
}

/// A list of the names on the command line.
fn list_of(images: &[String]) -> ImageList {
    let entry = |image: &String| Entry {
        image: image.as_str().into(),
        line: 0,
        required: true,
        spec: ImageRef::parse(image).map(EntrySpec::of).map_err(|e| format!("{e}; {}", e.remedy())),
    };
    ImageList { entries: images.iter().map(entry).collect(), ..ImageList::default() }
}

fn summary(status: &Status) -> String {
    let wanted = status.images.iter().filter(|i| i.state != "NotForThisNode").count();
    let there = status.images.iter().filter(|i| i.present && i.state == "Present").count();
    let bytes: u64 = status.images.iter().filter_map(|i| i.size_bytes).sum();
    format!("{there} of {wanted} images are present, {} in the store", crate::display::bytes(bytes))
}
