//! Tables of image commands, and image names without YAML.

use super::is_image;

/// Lines in which a table's header is looked for; some commands print a remark first.
const HEADER_WITHIN: usize = 5;

/// What a plain text is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// For a message.
    pub(super) name: &'static str,
    pub(super) images: Vec<String>,
    /// Rows without a valid name.
    pub(super) left_out: usize,
}

/// Recognizes a table by its header, or image names one a line or separated by white space.
pub(super) fn identify(text: &str) -> Option<Table> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    of_table(text).or_else(|| of_names(text))
}

/// A column: its title, and the characters where it begins and ends.
struct Column<'a> {
    title: &'a str,
    start: usize,
    end: usize,
}

/// Titles of a header: words in capitals, separated by a tab or at least two spaces.
fn columns(header: &str) -> Option<Vec<Column<'_>>> {
    // characters are bytes from here on
    if !header.is_ascii() {
        return None;
    }
    let mut found: Vec<Column<'_>> = Vec::new();
    let mut at = 0;
    for part in header.split_inclusive(['\t', ' ']) {
        let word = part.trim_end();
        if !word.is_empty() {
            if !word.chars().all(|c| c.is_ascii_uppercase() || matches!(c, '-' | '_' | '/')) {
                return None;
            }
            match found.last_mut() {
                // one space is within a title, as in IMAGE ID
                Some(last) if at == last.end + 1 && header.as_bytes().get(at - 1) == Some(&b' ') => {
                    last.title = &header[last.start..at + word.len()];
                    last.end = at + word.len();
                }
                _ => found.push(Column { title: word, start: at, end: at + word.len() }),
            }
        }
        at += part.len();
    }
    for next in 1..found.len() {
        found[next - 1].end = found[next].start;
    }
    found.last_mut()?.end = usize::MAX;
    Some(found)
}

fn of_table(text: &str) -> Option<Table> {
    let mut lines = text.lines().map(str::trim_end);
    let header =
        lines.by_ref().take(HEADER_WITHIN).find(|line| columns(line).is_some_and(|c| name_of(&c).is_some()))?;
    let columns = columns(header)?;
    let name = name_of(&columns)?;
    let titled = |titles: &[&str]| columns.iter().position(|column| titles.contains(&column.title));
    let repository = titled(&["REPOSITORY", "IMAGE", "IMAGES", "REF", "NAME"])?;
    let repository = titled(&["IMAGE", "IMAGES"]).unwrap_or(repository);
    let (tag, digest) = (titled(&["TAG"]), titled(&["DIGEST"]));
    let mut table = Table { name, images: Vec::new(), left_out: 0 };
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let cells = cells(line, &columns);
        let cell = |index: usize| cells.get(index).map_or("", |cell| cell.as_str());
        let known = |index: Option<usize>| index.map(cell).filter(|c| !c.is_empty() && *c != "<none>");
        let repository = cell(repository);
        let names = match (tag, known(tag), known(digest).filter(|d| d.starts_with("sha256:"))) {
            (Some(_), Some(tag), _) => vec![format!("{repository}:{tag}")],
            (Some(_), None, Some(digest)) => vec![format!("{repository}@{digest}")],
            (Some(_), None, None) => Vec::new(),
            // several containers of a pod are separated by commas
            (None, ..) => repository.split(',').map(|name| name.trim().to_owned()).collect(),
        };
        let before = table.images.len();
        table.images.extend(names.into_iter().filter(|name| !name.starts_with("sha256:") && is_image(name)));
        table.left_out += usize::from(table.images.len() == before);
    }
    (!table.images.is_empty()).then_some(table)
}

/// The command that prints such a header.
fn name_of(columns: &[Column<'_>]) -> Option<&'static str> {
    let has = |title: &str| columns.iter().any(|column| column.title == title);
    if has("REPOSITORY") && has("TAG") || has("IMAGE") && has("DISK USAGE") {
        Some("the output of `docker images`")
    } else if has("IMAGE") && has("TAG") && has("IMAGE ID") {
        Some("the output of `crictl images`")
    } else if has("REF") && has("DIGEST") {
        Some("the output of `ctr images ls`")
    } else if has("IMAGE") || has("IMAGES") {
        Some("a table of `kubectl get`")
    } else {
        None
    }
}

/// The cells of a row. Values may be wider than their column: then white space separates them.
fn cells(line: &str, columns: &[Column<'_>]) -> Vec<String> {
    let chars: Vec<char> = line.chars().collect();
    let aligned = columns
        .iter()
        .skip(1)
        .all(|column| column.start == 0 || chars.get(column.start - 1).is_none_or(|c| c.is_whitespace()));
    if !aligned || line.contains('\t') {
        return line.split_whitespace().map(str::to_owned).collect();
    }
    let cell = |column: &Column<'_>| {
        let end = column.end.min(chars.len());
        chars.get(column.start.min(end)..end).unwrap_or_default().iter().collect::<String>().trim().to_owned()
    };
    columns.iter().map(cell).collect()
}

/// Image names alone: one a line, or separated by white space or commas as `kubectl get pods -o jsonpath` prints them.
fn of_names(text: &str) -> Option<Table> {
    let mut images = Vec::new();
    let mut several = false;
    for line in text.lines() {
        // a comment begins at the start or behind white space
        let content = line.split(" #").next().unwrap_or_default().trim();
        if content.starts_with('#') {
            continue;
        }
        let content = content.trim_start_matches(['-', '*', '\u{2022}']).trim();
        let before = images.len();
        let names = content.split(|c: char| c.is_whitespace() || c == ',').filter(|name| !name.is_empty());
        for name in names.map(|name| name.trim_matches(['"', '\''])) {
            if !is_image(name) {
                return None;
            }
            images.push(name.to_owned());
        }
        several |= images.len() > before + 1;
    }
    // words of a sentence are valid names as well
    let telling = images.iter().filter(|name| name.contains([':', '/', '@'])).count();
    let name = if several { "text with several image names on a line" } else { "text with one image name a line" };
    (telling * 2 > images.len()).then_some(Table { name, images, left_out: 0 })
}
