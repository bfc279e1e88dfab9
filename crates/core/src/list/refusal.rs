//! Why a text cannot be read as a list, in the words of what its writer did.

use super::{ListProblem, fields, foreign, places::Places};
use crate::template;

/// The problem of a refused text, with its cause if that is one of the common ones: a template that nothing has rendered,
/// invisible characters in the indentation, or something else than a list.
pub(super) fn explained(problem: ListProblem, text: &str, places: Option<&Places>) -> ListProblem {
    // places of a value in a file were found already
    let place = |line, column| places.map_or((line, column), |places| places.of(line, column));
    let moved = |line: usize, column: usize, message: String, remedy: &str| {
        let (line, column) = place(line, column);
        ListProblem { line, column, message, remedy: remedy.to_owned(), path: String::new() }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // JSON may be indented with tabs
    let flow = text.trim_start().starts_with(['{', '[']) && !text.trim_start().starts_with("{{");
    let mut lines = text.lines().enumerate();
    let cause = lines.find_map(|(number, line)| cause_in(line, flow).map(|cause| (number + 1, cause)));
    if let Some((line, (column, message, remedy))) = cause {
        return moved(line, column, message, remedy);
    }
    match foreign::kind(text) {
        Some(what) => {
            let remedy = if what.readable {
                "use it with `prepull check -f` or `prepull pull -f`, or write the text of its key `images.yaml` alone"
            } else {
                "write `images:` and below it one `- registry/repository:tag` a line"
            };
            let message = format!("the list must be a mapping with the key `images`, and this is {}", what.name);
            moved(1, 1, message, remedy)
        }
        None => problem,
    }
}

/// What in a line makes it unreadable: column, message and remedy.
fn cause_in(line: &str, flow: bool) -> Option<(usize, String, &'static str)> {
    let content = line.trim_start();
    if content.starts_with('#') {
        return None;
    }
    let column = |at: usize| line[..at].chars().count() + 1;
    // the only templates that YAML itself cannot read; others are values
    if let Some(at) = ["{{", "{%"].iter().filter_map(|open| line.find(open)).min()
        && let Some(expression) = template::unrendered(&line[at..])
    {
        return Some((column(at), fields::unrendered(expression), template::REMEDY));
    }
    // what comes before the first word: spaces, and the dashes of list items
    let ahead = line.find(|c: char| !c.is_whitespace() && c != '-' && c != '\u{200b}' && c != '\u{feff}').unwrap_or(0);
    let (at, odd) = line[..ahead].char_indices().find(|(_, c)| !matches!(c, ' ' | '-' | '\r'))?;
    let name = match odd {
        '\t' if flow => return None,
        '\t' => "a tab".to_owned(),
        '\u{a0}' | '\u{202f}' => format!("a non-breaking space (U+{:04X})", odd as u32),
        _ => format!("an unusual space (U+{:04X})", odd as u32),
    };
    Some((column(at), format!("{name} is used for indentation"), "use plain spaces"))
}
