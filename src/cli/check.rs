//! `prepull check`: what a list means, and everything that is wrong with it. Offline.

mod meaning;

use std::{collections::HashSet, fmt::Write as _, path::PathBuf, process::ExitCode};

use serde::Serialize;

use self::meaning::{LimitsMeaning, Meaning};
use super::{NOT_SO, options::OutputArgs, output};
use crate::{
    budget,
    display::table,
    error_text::one_line,
    list::{
        Entry, ImageList, ListProblem, foreign,
        manifest::{Listed, Manifest},
        revision,
    },
    list_file,
};

/// Most doubtful names that are listed; the others are counted.
const MAX_DOUBTS: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The list, or ConfigMap manifests with lists below the key images.yaml; `-` is standard input
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
    /// The ConfigMaps that the lists are in; none where the file is a list itself.
    config_maps: Vec<InConfigMap>,
    /// The list that a file of another kind means, ready to paste.
    suggestion: Option<String>,
    /// Which of the images have a problem that is printed.
    #[serde(skip)]
    with_problem: HashSet<usize>,
}

/// A ConfigMap with a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InConfigMap {
    /// Namespace and name.
    name: String,
    line: usize,
    /// As its agents report it.
    revision: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let text = list_file::read_once(&args.file).map_err(anyhow::Error::msg)?;
    let is_input = args.file.as_os_str() == "-";
    let source = if is_input { "standard input".to_owned() } else { args.file.display().to_string() };
    let report = report(source, &text);
    let valid = report.valid;
    output::print(args.output.output, &report, for_people)?;
    Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

fn report(source: String, text: &str) -> Report {
    let manifest = Manifest::read(text).unwrap_or_else(|| Manifest {
        lists: vec![Listed { name: String::new(), line: 1, revision: revision(text), list: ImageList::parse(text) }],
        ..Manifest::default()
    });
    let Manifest { lists, mut problems, mut notes } = manifest;
    let mut with_problem = HashSet::new();
    let (mut good, mut config_maps) = (Vec::new(), Vec::new());
    let mut before = 0;
    for listed in lists {
        if !listed.name.is_empty() {
            let Listed { name, line, revision, .. } = listed;
            config_maps.push(InConfigMap { name, line, revision });
        }
        match listed.list {
            Ok(list) => {
                with_problem.extend(list.problems.iter().filter_map(entry_of).map(|entry| before + entry));
                before += list.entries.len();
                good.push(list);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let list = ImageList::joined(good);
    problems.extend(list.problems.iter().cloned());
    problems.sort_by_key(|problem| (problem.line, problem.column));
    let revision = match config_maps.as_slice() {
        [] => revision(text),
        [one] => one.revision.clone(),
        several => revision(&several.iter().map(|map| map.revision.as_str()).collect::<Vec<_>>().join(" ")),
    };
    notes.extend(doubts(&list));
    notes.extend(cap_note(&list));
    Report {
        source,
        revision,
        valid: problems.is_empty(),
        suggestion: (config_maps.is_empty() && list.entries.is_empty() && !problems.is_empty())
            .then(|| foreign::list_meant(text))
            .flatten(),
        problems,
        notes,
        images: Meaning::of_all(&list.entries),
        limits: LimitsMeaning::of(&list.limits),
        config_maps,
        with_problem,
    }
}

/// Names that are valid and probably mean something else.
fn doubts(list: &ImageList) -> Vec<String> {
    let doubt = |entry: &Entry| {
        let why = entry.spec.as_ref().ok()?.image.doubt()?;
        Some(format!("line {}: `{}`: {why}", entry.line, one_line(&entry.image)))
    };
    let mut found = list.entries.iter().filter_map(doubt);
    let mut told: Vec<_> = found.by_ref().take(MAX_DOUBTS).collect();
    let more = found.count();
    if more > 0 {
        told.push(format!("{more} more image names are probably mistakes"));
    }
    told
}

/// What a cluster-wide cap needs.
fn cap_note(list: &ImageList) -> Option<String> {
    list.limits.pulling_nodes.map(|cap| {
        let slots = if cap == 1 { "slot" } else { "slots" };
        format!(
            "limits.pullingNodes needs the {slots} {} ({}), and has no effect where the agent reads its list from a file (--images)",
            budget::names(cap),
            budget::remedy(cap)
        )
    })
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
        let told = &report.with_problem;
        let rows: Vec<_> = report.images.iter().enumerate().map(|(n, image)| image.row(told.contains(&n))).collect();
        out.push_str(&table(["LINE", "IMAGE", "POLICY", "MEANS"], &rows));
        out.push('\n');
        let _ = writeln!(out, "limits: {}", report.limits);
    }
    for note in &report.notes {
        let _ = writeln!(out, "NOTE: {note}");
    }
    if let Some(list) = &report.suggestion {
        let _ = writeln!(out, "\nthe list that this probably means:\n\n{list}");
    }
    for map in &report.config_maps {
        let _ = writeln!(out, "ConfigMap {} (line {}): revision {}", map.name, map.line, map.revision);
    }
    let invalid = report.images.iter().filter(|i| !i.valid).count();
    let count = |n: usize, one: &str, many: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {many}") };
    let images = count(report.images.len(), "image", "images");
    let problems = count(report.problems.len(), "problem", "problems");
    let _ = writeln!(out, "{}: {images}, {invalid} invalid, {problems} (revision {})", report.source, report.revision);
    out
}
