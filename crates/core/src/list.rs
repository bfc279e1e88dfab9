//! The list of wanted images (`images.yaml`): YAML in, validated entries and located problems out.
//!
//! A list is read in three steps, each pure: [`tree`] keeps where every value stands, [`fields`] turns values into
//! types, and this module walks the document. One bad entry never stops the others. A text is refused as a whole, and the
//! last good list stays in force, if it is empty, is not YAML, is not a mapping, has other fields and no `images`, or if its
//! `images` are not a list. `images: []`, `images:`, `{}` and a list of `defaults` and `limits` alone are empty lists.

pub mod affinity;
mod entry;
mod fields;
pub mod foreign;
mod limits;
pub mod manifest;
mod places;
mod problems;
mod refusal;
mod tree;
pub mod units;

use std::fmt;

pub use entry::{Entry, EntrySpec};
pub use limits::{Limits, Parallel};

/// Largest text that is read, in bytes. A ConfigMap holds 1 MiB at most; a file on a host may be somewhat larger.
pub const MAX_LIST_BYTES: usize = 4 * 1024 * 1024;

/// What the top of a list may have.
const FIELDS: &[&str] = &["defaults", "limits", "images"];

/// Something that is wrong in a list, with its place.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ListProblem {
    /// Line, counted from 1.
    pub line: usize,
    /// Column, counted from 1.
    pub column: usize,
    /// Path of the value, such as `images[3].imagePullPolicy`; empty for the document as a whole.
    pub path: String,
    /// What is wrong, one clause in lower case.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ListProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

impl std::error::Error for ListProblem {}

/// A list that was read. Entries keep the order of the document, invalid ones included.
#[derive(Debug, Clone, Default)]
pub struct ImageList {
    /// What is wanted, in list order.
    pub entries: Vec<Entry>,
    /// How it is to be pulled.
    pub limits: Limits,
    /// Everything that is wrong, in document order.
    pub problems: Vec<ListProblem>,
}

impl ImageList {
    /// Reads a list. The error is the one problem for which nothing of the text can be used.
    pub fn parse(text: &str) -> Result<Self, ListProblem> {
        Self::parse_at(text, None)
    }

    /// Reads a list that is a value in a file: problems have the lines and columns of the file.
    fn parse_at(text: &str, places: Option<&places::Places>) -> Result<Self, ListProblem> {
        if text.len() > MAX_LIST_BYTES {
            return Err(ListProblem {
                line: 1,
                column: 1,
                path: String::new(),
                message: format!("the list has {} bytes, at most {MAX_LIST_BYTES} are read", text.len()),
                remedy: "split it into several lists".to_owned(),
            });
        }
        Self::read(text, places).map_err(|problem| refusal::explained(problem, text, places))
    }

    fn read(text: &str, places: Option<&places::Places>) -> Result<Self, ListProblem> {
        let root = tree::parse(text, places)?;
        let mut problems = problems::Problems::default();
        let mut list = Self::default();
        let mut top = fields::Fields::of_document(&root, &mut problems)?;
        let listed = top.has("images");
        let defaults = entry::Defaults::read(top.take("defaults"), &mut problems);
        list.limits = limits::read(top.take("limits"), &mut problems);
        if let Some(images) = top.take("images") {
            list.entries = entry::read_all(&images, &defaults, &mut problems)?;
        }
        if !listed {
            // taken for an empty list, a typing mistake would end what the last good one wants
            if let Some(other) = top.left().next() {
                let unknown = top.unknown(other, FIELDS);
                return Err(ListProblem {
                    message: format!("the list has no `images`, and {}", unknown.message),
                    ..unknown
                });
            }
            if let Some(own) = top.extension() {
                let remedy = "add `images:` with its entries, or `images: []` for none".to_owned();
                let message = "the list has no `images`, only fields of its writer's own".to_owned();
                return Err(ListProblem { line: own.line, column: own.column, path: String::new(), message, remedy });
            }
        }
        top.refuse_the_rest(FIELDS, &mut problems);
        list.problems = problems.in_order();
        Ok(list)
    }

    /// Joins lists of one file: entries one after the other, of the limits the strictest.
    pub fn joined(lists: impl IntoIterator<Item = Self>) -> Self {
        let mut lists = lists.into_iter();
        let mut all = lists.next().unwrap_or_default();
        for list in lists {
            all.entries.extend(list.entries);
            all.limits = all.limits.strictest(&list.limits);
            all.problems.extend(list.problems);
        }
        all
    }

    /// Whether any entry is meant for some nodes only, by their labels or name.
    pub fn selects_nodes(&self) -> bool {
        let selects = |spec: &EntrySpec| !spec.node_selector.is_empty() || !spec.node_selector_terms.is_empty();
        self.entries.iter().filter_map(|e| e.spec.as_ref().ok()).any(selects)
    }

    /// Whether any entry pins its image.
    pub fn pins(&self) -> bool {
        self.entries.iter().any(|e| e.spec.as_ref().is_ok_and(|spec| spec.pin))
    }

    /// How many entries cannot be used.
    pub fn invalid_entries(&self) -> usize {
        self.entries.iter().filter(|e| e.spec.is_err()).count()
    }
}

/// Short hash of a list's text, by which agents and `prepull status` tell whether they mean the same list: the first
/// 12 hexadecimal characters of its SHA-256.
pub fn revision(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    use std::fmt::Write as _;
    Sha256::digest(text.as_bytes()).iter().take(6).fold(String::with_capacity(12), |mut out, byte| {
        // writing into a String cannot fail
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod field_cases;
#[cfg(test)]
mod tests;
