//! `prepull check`: what a list means, and everything that is wrong with it. Offline.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use serde::Serialize;

use super::{NOT_SO, options::OutputArgs, output, table::table};
use crate::{
    error_text::one_line,
    list::{Entry, ImageList, ListProblem, revision},
    list_file,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The list
    #[arg(short, long, env = "PREPULL_FILE", value_name = "LIST")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    source: String,
    revision: String,
    valid: bool,
    problems: Vec<ListProblem>,
    images: Vec<Meaning>,
}

/// What an entry means.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Meaning {
    line: usize,
    image: String,
    valid: bool,
    canonical: Option<String>,
    image_pull_policy: Option<&'static str>,
    priority: Option<i64>,
    required: bool,
    pin: Option<bool>,
    image_pull_secrets: Vec<String>,
    service_account_name: Option<String>,
    selects_nodes: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = args.file.display().to_string();
    let text = list_file::read(&args.file).map_err(anyhow::Error::msg)?;
    let report = report(source, &text);
    let valid = report.valid;
    output::print(args.output.output, &report, for_people)?;
    Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

fn report(source: String, text: &str) -> Report {
    let (list, problems) = match ImageList::parse(text) {
        Ok(list) => {
            let problems = list.problems.clone();
            (list, problems)
        }
        Err(problem) => (ImageList::default(), vec![problem]),
    };
    Report {
        source,
        revision: revision(text),
        valid: problems.is_empty(),
        problems,
        images: list.entries.iter().map(Meaning::of).collect(),
    }
}

impl Meaning {
    fn of(entry: &Entry) -> Self {
        let spec = entry.spec.as_ref().ok();
        Self {
            line: entry.line,
            image: entry.image.clone(),
            valid: spec.is_some(),
            canonical: spec.map(|s| s.image.canonical()),
            image_pull_policy: spec.map(|s| s.policy.as_str()),
            priority: spec.map(|s| s.priority),
            required: entry.required,
            pin: spec.map(|s| s.pin),
            image_pull_secrets: spec.map(|s| s.image_pull_secrets.to_vec()).unwrap_or_default(),
            service_account_name: spec.and_then(|s| s.service_account_name.as_deref()).map(str::to_owned),
            selects_nodes: spec.is_some_and(|s| !s.node_selector.is_empty() || !s.node_selector_terms.is_empty()),
        }
    }
}

fn for_people(report: &Report) -> String {
    let mut out = String::new();
    for p in &report.problems {
        // source:line:column is what editors jump to; writing into a String cannot fail
        let path = if p.path.is_empty() { String::new() } else { format!("{}: ", p.path) };
        let _ = writeln!(out, "{}:{}:{}: {path}{}; {}", report.source, p.line, p.column, p.message, p.remedy);
    }
    if !report.problems.is_empty() && !report.images.is_empty() {
        out.push('\n');
    }
    if !report.images.is_empty() {
        let rows: Vec<_> = report.images.iter().map(row).collect();
        out.push_str(&table(["LINE", "IMAGE", "POLICY", "MEANS"], &rows));
        out.push('\n');
    }
    let invalid = report.images.iter().filter(|i| !i.valid).count();
    let count = |n: usize, one: &str, many: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {many}") };
    let images = count(report.images.len(), "image", "images");
    let problems = count(report.problems.len(), "problem", "problems");
    let _ = writeln!(out, "{}: {images}, {invalid} invalid, {problems} (revision {})", report.source, report.revision);
    out
}

fn row(image: &Meaning) -> [String; 4] {
    let mut means = vec![image.canonical.clone().unwrap_or_else(|| "cannot be used".to_owned())];
    if let Some(priority) = image.priority.filter(|p| *p != 0) {
        means.push(format!("priority {priority}"));
    }
    if !image.required {
        means.push("not required".to_owned());
    }
    if image.pin == Some(true) {
        means.push("pinned".to_owned());
    }
    if !image.image_pull_secrets.is_empty() {
        means.push(format!("pull secrets {}", image.image_pull_secrets.join(" ")));
    }
    if let Some(account) = &image.service_account_name {
        means.push(format!("service account {account}"));
    }
    if image.selects_nodes {
        means.push("on selected nodes".to_owned());
    }
    let policy = image.image_pull_policy.unwrap_or("-");
    [image.line.to_string(), one_line(&image.image), policy.to_owned(), means.join(", ")]
}
