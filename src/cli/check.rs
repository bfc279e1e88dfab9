//! `prepull check`: what a list means, and everything that is wrong with it. Offline.

mod meaning;

use std::{collections::HashSet, fmt::Write as _, path::PathBuf, process::ExitCode};

use serde::Serialize;

use self::meaning::{LimitsMeaning, Meaning};
use super::{NOT_SO, options::OutputArgs, output};
use crate::{
    budget,
    display::table,
    list::{ImageList, ListProblem, revision},
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
    /// What its author should know though nothing is wrong.
    notes: Vec<String>,
    images: Vec<Meaning>,
    limits: LimitsMeaning,
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
        notes: notes(&list),
        images: Meaning::of_all(&list.entries),
        limits: LimitsMeaning::of(&list.limits),
    }
}

/// What the author should know though nothing is wrong.
fn notes(list: &ImageList) -> Vec<String> {
    let cap = list.limits.pulling_nodes.map(|cap| {
        let slots = if cap == 1 { "slot" } else { "slots" };
        format!(
            "limits.pullingNodes needs the {slots} {} ({}), and has no effect where the agent reads its list from a file (--images)",
            budget::names(cap),
            budget::remedy(cap)
        )
    });
    cap.into_iter().collect()
}

/// Which entry a problem is about.
fn entry_of(problem: &ListProblem) -> Option<usize> {
    problem.path.strip_prefix("images[")?.split_once(']')?.0.parse().ok()
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
        let told: HashSet<_> = report.problems.iter().filter_map(entry_of).collect();
        let rows: Vec<_> = report.images.iter().enumerate().map(|(n, image)| image.row(told.contains(&n))).collect();
        out.push_str(&table(["LINE", "IMAGE", "POLICY", "MEANS"], &rows));
        out.push('\n');
        let _ = writeln!(out, "limits: {}", report.limits);
    }
    for note in &report.notes {
        let _ = writeln!(out, "NOTE: {note}");
    }
    let invalid = report.images.iter().filter(|i| !i.valid).count();
    let count = |n: usize, one: &str, many: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {many}") };
    let images = count(report.images.len(), "image", "images");
    let problems = count(report.problems.len(), "problem", "problems");
    let _ = writeln!(out, "{}: {images}, {invalid} invalid, {problems} (revision {})", report.source, report.revision);
    out
}
