//! The cluster as text for people.

use std::{collections::BTreeMap, fmt::Write as _, io::IsTerminal as _};

use crate::{
    display::table,
    fleet::{ImageCount, NodeRow, Picture},
};

/// Nodes that are named where a line is to stay readable.
const MOST_NAMED: usize = 10;

/// All of it: images, or nodes where `nodes` says so.
pub(super) fn whole(picture: &Picture, nodes: bool) -> String {
    let mut out = summary(picture) + "\n";
    for list in &picture.lists {
        let _ = match (&list.problem, &list.revision) {
            (Some(problem), _) => writeln!(out, "list {}: {problem}", list.source),
            (None, Some(revision)) => writeln!(
                out,
                "list {} (revision {revision}): {} of {} agents that answered follow it",
                list.source, list.up_to_date, list.agents
            ),
            (None, None) => Ok(()),
        };
    }
    if nodes {
        let rows: Vec<_> = picture.nodes.iter().map(node_row).collect();
        out.push_str(&section(
            &table(["NODE", "WARM", "PRESENT", "PULLING", "WAITING", "FAILING", "WHY NOT"], &rows),
            !rows.is_empty(),
        ));
    } else {
        let rows: Vec<_> = picture.images.iter().map(image_row).collect();
        out.push_str(&section(
            &table(["IMAGE", "NODES", "PRESENT", "PULLING", "WAITING", "FAILING", "MOST COMMON ERROR"], &rows),
            !rows.is_empty(),
        ));
        out.push_str(&errors(&picture.images));
        let cold: Vec<_> = picture.nodes.iter().filter(|row| !row.warm).collect();
        if !cold.is_empty() {
            let rows: Vec<_> =
                cold.iter().take(MOST_NAMED).map(|row| [row.node.to_string(), row.reason.clone()]).collect();
            out.push_str(&section(&table(["NOT WARM", "WHY"], &rows), true));
            out.push_str(&more(cold.len(), "--nodes shows all"));
        }
        let old: Vec<_> = old(picture).collect();
        if !old.is_empty() {
            let rows: Vec<_> = old.iter().take(MOST_NAMED).map(|row| [row.node.to_string()]).collect();
            out.push_str(&section(&table(["OLD LIST"], &rows), true));
            out.push_str(&more(old.len(), "--nodes shows all"));
        }
    }
    if !picture.silent.is_empty() {
        let rows: Vec<_> =
            picture.silent.iter().map(|silent| [named(&silent.node, &silent.pod), silent.reason.clone()]).collect();
        out.push_str(&section(&table(["NO ANSWER", "WHY"], &rows), true));
    }
    out
}

/// How many are warm, who was asked, and what that means for the table.
fn summary(picture: &Picture) -> String {
    if picture.agents == 0 {
        return format!(
            "no agent in namespace {}; see --namespace, and `kubectl -n {0} get daemonset`",
            picture.namespace
        );
    }
    let mut text = format!("{} of {} nodes warm", picture.warm, picture.agents);
    let old = old(picture).count();
    if old > 0 {
        let _ = write!(text, ", {old} of them with a list that was changed since");
    }
    if picture.not_asked > 0 {
        let _ = write!(
            text,
            "; {} agents asked, {} ready ones not asked and not counted below (--all asks them)",
            picture.asked, picture.not_asked
        );
    }
    if !picture.silent.is_empty() {
        let _ = write!(text, "; {} gave no answer", picture.silent.len());
    }
    text
}

/// Nodes that are warm with another list than the one as it is now.
fn old(picture: &Picture) -> impl Iterator<Item = &NodeRow> {
    picture.nodes.iter().filter(|row| row.warm && row.has_old_list())
}

/// Why it is no use to wait where so many agents read a file.
pub(super) fn of_files(agents: usize, all: usize) -> String {
    format!(
        "prepull: {agents} of {all} agents read their list from a file (--images, the component mounted-list), and what is in it now is not known here, so --wait cannot tell when they have it; let them follow a ConfigMap, or wait for `kubectl rollout status`, which knows no edit, and look with --all"
    )
}

/// What is waited for, in one line.
pub(super) fn progress(picture: &Picture) -> String {
    let mut text = format!("{} of {} nodes warm with the lists as they are now", picture.proven, picture.agents);
    if picture.agents == 0 {
        let _ = write!(text, "; no agent in namespace {} yet", picture.namespace);
    }
    let waiting: Vec<&str> =
        picture.nodes.iter().filter(|row| row.has_old_list() || !row.warm).map(|row| &*row.node).collect();
    if !waiting.is_empty() {
        let _ = write!(text, "; waiting for {}", names(&waiting));
    }
    let silent: Vec<String> = picture.silent.iter().map(|silent| named(&silent.node, &silent.pod)).collect();
    if !silent.is_empty() {
        let silent: Vec<&str> = silent.iter().map(String::as_str).collect();
        let _ = write!(text, "; no answer from {}", names(&silent));
    }
    text
}

fn names(all: &[&str]) -> String {
    let shown = all.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
    if all.len() > MOST_NAMED { format!("{shown} and {} more", all.len() - MOST_NAMED) } else { shown }
}

fn named(node: &str, pod: &str) -> String {
    if node.is_empty() { format!("pod {pod}") } else { node.to_owned() }
}

fn section(text: &str, shown: bool) -> String {
    if shown { format!("\n{text}") } else { String::new() }
}

fn more(all: usize, how: &str) -> String {
    if all > MOST_NAMED { format!("and {} more; {how}\n", all - MOST_NAMED) } else { String::new() }
}

fn image_row(image: &ImageCount) -> [String; 7] {
    let error = image.class.as_ref().map(|class| format!("{class} on {}", image.class_nodes));
    [
        image.image.clone(),
        image.nodes.to_string(),
        image.present.to_string(),
        image.pulling.to_string(),
        image.waiting.to_string(),
        image.failing.to_string(),
        error.unwrap_or_default(),
    ]
}

fn node_row(row: &NodeRow) -> [String; 7] {
    let warm = if row.warm { "yes" } else { "no" };
    let known = |n: usize| if row.asked { n.to_string() } else { "-".to_owned() };
    let why = if row.warm && row.has_old_list() { "not yet: its list was changed since" } else { &row.reason };
    let present = if row.asked { format!("{} of {}", row.present, row.images) } else { "-".to_owned() };
    [
        row.node.to_string(),
        warm.to_owned(),
        present,
        known(row.pulling),
        known(row.waiting),
        known(row.failing),
        why.to_owned(),
    ]
}

/// One example of each class of error, with its remedy.
fn errors(images: &[ImageCount]) -> String {
    let mut each: BTreeMap<&str, &ImageCount> = BTreeMap::new();
    for image in images {
        if let Some(class) = &image.class {
            each.entry(class).or_insert(image);
        }
    }
    let mut out = String::new();
    for (class, image) in each {
        let _ = write!(
            out,
            "\n{class}, for instance {}: {}\n",
            image.image,
            image.message.as_deref().unwrap_or("no more is known")
        );
        if let Some(remedy) = &image.remedy {
            let _ = writeln!(out, "  {remedy}");
        }
    }
    out
}

/// What is shown again: on a terminal in place of what stood there, elsewhere below it.
pub(super) fn again(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[H\x1b[2J{text}") } else { format!("{text}\n") }
}
