//! The status of a node as text, for those who ask for `/` without a browser, and for `prepull pull`'s summary.

use std::fmt::Write as _;

use super::{
    cooldown,
    groups::{downloaded, together},
};
use crate::{
    display::{bytes, table},
    error_text::one_line,
    status::{ImageStatus, Status},
};

/// The whole page.
pub fn page(status: &Status) -> String {
    let mut out = String::new();
    // writing into a String cannot fail
    let _ = writeln!(out, "prepull on {}", status.node);
    let runtime = match &status.runtime_problem {
        Some(problem) => format!("does not answer: {}", one_line(problem)),
        None if status.runtime.is_empty() => "has not answered yet".to_owned(),
        None => status.runtime.clone(),
    };
    let _ = writeln!(out, "runtime: {runtime}");
    for list in &status.lists {
        let revision = if list.revision.is_empty() { "none read yet" } else { &list.revision };
        let _ = writeln!(out, "list: {} (revision {revision})", one_line(&list.source));
        for problem in &list.problems {
            let _ = writeln!(out, "  problem: {}", one_line(problem));
        }
        for note in &list.notes {
            let _ = writeln!(out, "  note: {}", one_line(note));
        }
    }
    if let Some(ratio) = status.image_fs_used_ratio {
        let _ = writeln!(out, "disk: {:.0} % of the image filesystem is used", ratio * 100.0);
    }
    if let Some(progress) = together(status) {
        let _ = writeln!(out, "pulls: {progress}");
    }
    for (registry, left) in &status.cooldowns {
        let _ = writeln!(out, "registry: {} {}", one_line(registry), cooldown(*left));
    }
    let warm = if status.warm { "yes".to_owned() } else { format!("no: {}", status.not_warm_reason) };
    let _ = writeln!(out, "warm: {warm}\n");
    out.push_str(&images(&status.images));
    out
}

/// The images as a table, with errors and remedies below it.
pub fn images(images: &[ImageStatus]) -> String {
    let rows: Vec<_> = images
        .iter()
        .map(|i| [one_line(&i.image), i.state.to_owned(), i.size_bytes.map(bytes).unwrap_or_default(), detail(i)])
        .collect();
    let mut out = table(["IMAGE", "STATE", "SIZE", "DETAIL"], &rows);
    for image in images.iter().filter(|i| i.remedy.is_some()) {
        let class = image.class.map(|c| format!("{c}: ")).unwrap_or_default();
        let message = image.message.as_deref().unwrap_or_default();
        let remedy = image.remedy.as_deref().unwrap_or_default();
        let _ = write!(out, "\n{}\n  {class}{}\n  {remedy}\n", one_line(&image.image), one_line(message));
        for problem in &image.problems {
            let _ = writeln!(out, "  credentials: {}", one_line(problem));
        }
    }
    out
}

fn detail(image: &ImageStatus) -> String {
    let parts = [
        image.class.map(|c| c.to_string()),
        image.elapsed_seconds.map(|s| format!("attempt {}, for {s} s", image.attempt)),
        image.phase.map(str::to_owned),
        downloaded(image),
        image.wait.map(|w| w.sentence().to_owned()),
        image.next_attempt.as_ref().map(|at| format!("attempt {} failed, next at {at}", image.attempt)),
        image.credential.as_ref().map(|c| format!("with {}", one_line(c))),
        image.pinned.then(|| "pinned".to_owned()),
        image.pin_problem.as_deref().map(one_line),
        (image.state == "NotForThisNode").then(|| "selects other nodes".to_owned()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
