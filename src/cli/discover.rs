//! `prepull discover`: the images that workloads use, as a list.

use std::{ffi::OsString, process::ExitCode};

use super::{NOT_SO, WRONG_USAGE, cluster::ClusterArgs, images::or_twin, output, output::Format};
use crate::{
    discovery::{Detail, Found, FoundImage, ListText, Tally, workload::Kind},
    display::table,
    kubernetes::{
        configmaps::ConfigMapName,
        discovered::{self, Applied},
        workloads::{self, Scope},
    },
    list::revision,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A namespace whose workloads are looked at; repeatable [default: that of the context] [env: PREPULL_NAMESPACE,
    /// separated by commas]
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Vec<OsString>,
    /// Look at the workloads of all namespaces
    #[arg(short = 'A', long, env = "PREPULL_ALL_NAMESPACES")]
    all_namespaces: bool,
    /// Labels of the workloads and pods that count, as kubectl's --selector
    #[arg(short = 'l', long, env = "PREPULL_SELECTOR", value_name = "SELECTOR")]
    selector: Option<String>,
    /// Kinds of workloads that are looked at, separated by commas; for who may not list the others [default: pods,
    /// deployments, statefulsets, daemonsets, jobs, cronjobs]
    #[arg(long, env = "PREPULL_KINDS", value_name = "KINDS", value_delimiter = ',', value_parser = kind)]
    kinds: Vec<Kind>,
    /// Write the list into this ConfigMap, key images.yaml, instead of to stdout. One that was not made by this command is
    /// left alone
    #[arg(long, env = "PREPULL_INTO", value_name = "NAMESPACE/NAME")]
    into: Option<ConfigMapName>,
    /// Require every image that is found: a node without it is not warm. Without this flag entries have `required: false`
    #[arg(long, env = "PREPULL_REQUIRED")]
    required: bool,
    /// How to print: yaml is the list, json and table say more about each image [default: yaml, or nothing with --into]
    #[arg(short, long, env = "PREPULL_OUTPUT", value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { namespace, all_namespaces, selector, kinds, into, required, output, cluster } = args;
    let mut namespaces = Vec::new();
    if !all_namespaces {
        for name in or_twin(namespace, "PREPULL_NAMESPACE") {
            let name = name.to_string_lossy().into_owned();
            if !is_namespace(&name) {
                output::note(&format!(
                    "prepull: `{}` is no namespace (--namespace); write lower-case letters, digits and dashes",
                    crate::error_text::one_line(&name)
                ));
                return Ok(ExitCode::from(WRONG_USAGE));
            }
            if !namespaces.contains(&name) {
                namespaces.push(name);
            }
        }
    }
    let client = cluster.client().await?;
    if namespaces.is_empty() && !all_namespaces {
        namespaces.push(client.default_namespace().to_owned());
    }
    // a list may use the pull secrets of its own namespace: the one that it goes to, or the only one that it can be for
    let home = match (&into, namespaces.as_slice()) {
        (Some(into), _) => Some(into.namespace.clone()),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    };
    let place = in_words(&namespaces);
    let kinds = Kind::ALL.into_iter().filter(|kind| kinds.is_empty() || kinds.contains(kind)).collect();
    let scope = Scope { namespaces, selector: selector.filter(|s| !s.is_empty()), kinds };
    let mut tally = Tally::new(home.clone());
    let missed = workloads::count(&client, &scope, &mut tally).await;
    let (accounts, unread) = match home {
        Some(home) => workloads::account_secrets(&client, &home, tally.accounts_to_ask()).await,
        None => Default::default(),
    };
    let mut found = tally.into_found(&accounts);
    if !unread.is_empty() {
        found.problems.push(format!(
            "the pull secrets of service accounts are not known where these may not be read: {}",
            unread.join(", ")
        ));
    }
    found.problems.extend(missed.iter().cloned());
    for problem in &found.problems {
        output::note(&format!("prepull: {problem}"));
    }
    if found.images.is_empty() {
        output::note(&format!("prepull: no workload in {place} uses an image"));
    }
    let complete = missed.is_empty();
    if let Some(format) = output.or(into.is_none().then_some(Format::Yaml)) {
        print(format, &found, &place, required)?;
    }
    if let Some(into) = into {
        if !complete {
            // what could not be read is in use all the same: without it the list is better as it was
            output::note(&format!(
                "prepull: nothing is written to the ConfigMap {into}, because not everything could be read; ask only for what may be read with --namespace and --kinds"
            ));
            return Ok(ExitCode::from(NOT_SO));
        }
        let whole = write(&client, &into, &found, &place, required).await?;
        return Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) });
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

async fn write(
    client: &kube::Client,
    into: &ConfigMapName,
    found: &Found,
    place: &str,
    required: bool,
) -> anyhow::Result<bool> {
    let ListText { text, left_out } = ListText::of(found, place, Detail::Stable, required)?;
    let applied = discovered::apply(client, into, &text).await?;
    let images = found.images.len() - left_out;
    output::note(&match applied {
        Applied::Written => format!("ConfigMap {into} written: {images} images, revision {}", revision(&text)),
        Applied::Unchanged => format!("ConfigMap {into} unchanged: {images} images"),
    });
    if left_out > 0 {
        output::note(&format!(
            "prepull: {left_out} images, those of the fewest pods, do not fit into one ConfigMap; use several, each for some namespaces or labels"
        ));
    }
    Ok(left_out == 0)
}

fn print(format: Format, found: &Found, place: &str, required: bool) -> anyhow::Result<()> {
    match format {
        Format::Yaml => output::write(ListText::of(found, place, Detail::Counts, required)?.text),
        Format::Table | Format::Json => output::print(format, found, |found| {
            let rows: Vec<_> = found.images.iter().map(row).collect();
            table(["PODS", "IMAGE", "NAMESPACES", "USED BY"], &rows)
        }),
    }
}

fn row(image: &FoundImage) -> [String; 4] {
    let more = image.workloads - image.used_by.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let namespaces = match image.namespaces.as_slice() {
        [one] => one.to_string(),
        many => many.len().to_string(),
    };
    [image.pods.to_string(), image.image.clone(), namespaces, image.used_by.join(", ") + &more]
}

fn in_words(namespaces: &[String]) -> String {
    match namespaces {
        [] => "all namespaces".to_owned(),
        [one] => format!("the namespace {one}"),
        many => format!("the namespaces {}", many.join(", ")),
    }
}

/// A kind as kubectl names it.
fn kind(text: &str) -> Result<Kind, String> {
    let known = Kind::ALL.into_iter().find(|kind| [kind.plural(), kind.singular()].contains(&text.trim()));
    known.ok_or_else(|| format!("write some of {}", Kind::ALL.map(Kind::plural).join(",")))
}

/// A DNS label, as the API server wants it.
fn is_namespace(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| plain(*b) || *b == b'-')
        && plain(bytes[0])
        && plain(bytes[bytes.len() - 1])
}
