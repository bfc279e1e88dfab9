//! docs/limits.md has the limits of the code: each row names a constant, and the value is the constant's.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

use prepull as _;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the page: what the limit is, how much, what happens above, and what sets it.
fn rows() -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit |")).map(cells).collect()
}

/// The file and the `NAME = VALUE` that a cell names.
fn constant(cell: &str) -> (&str, &str) {
    let quoted: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
    let [file, constant] = quoted.as_slice() else { panic!("not a file and a constant: {cell}") };
    (file, constant)
}

/// Whether a file sets a constant to exactly this value.
fn sets(file: &str, constant: &str) -> bool {
    let source = fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let (name, value) = constant.split_once(" = ").unwrap();
    source.lines().any(|line| line.contains(&format!("const {name}: ")) && line.ends_with(&format!(" = {value};")))
}

#[test]
fn every_limit_is_the_one_in_the_code() {
    let rows = rows();
    assert!(rows.len() > 50, "only {} rows", rows.len());
    for row in &rows {
        let [what, how_much, above, set_by] = row.as_slice() else { panic!("not four cells: {row:?}") };
        assert!(!what.is_empty() && !how_much.is_empty() && !above.is_empty(), "{row:?}");
        let (file, constant) = constant(set_by);
        assert!(sets(file, constant), "{file} does not set {constant}");
    }
    assert!(!sets("src/metrics.rs", "MOST_REGISTRIES = 51"), "the search finds anything");
}

/// Constants that limit something other than what foreign input can make grow.
const OF_ANOTHER_KIND: [(&str, &str); 11] = [
    ("crates/core/src/disk_guard.rs", "MOST_UNPACKED"),
    ("crates/core/src/stock.rs", "MOST_INTERRUPTIONS"),
    ("crates/cri/src/puller.rs", "MOST_ASKED"),
    ("crates/cri/src/runtime/content.rs", "MOST_AT_ONCE"),
    ("crates/cri/src/runtime/content.rs", "MOST_ROUNDS"),
    ("crates/cri/src/runtime/pins.rs", "MOST_FILTERED"),
    ("src/agent/keeper.rs", "MOST_ANSWERS"),
    ("src/agent/pins.rs", "MOST_UNNOTICED"),
    // wording of messages and pages
    ("src/page/groups.rs", "MOST_CLASSES"),
    ("src/page/groups.rs", "MOST_PROBLEMS"),
    ("", "MOST_NAMED"),
];

#[test]
fn every_limit_of_the_code_is_on_the_page() {
    let rows = rows();
    let listed: Vec<_> = rows.iter().map(|row| constant(&row[3])).collect();
    let mut missing = Vec::new();
    for file in sources(&root().join("src")).into_iter().chain(sources(&root().join("crates"))) {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let source = fs::read_to_string(&file).unwrap();
        let code = source.split("#[cfg(test)]").next().unwrap();
        for name in code.lines().filter_map(|line| line.split_once("const ")?.1.split_once(':').map(|(name, _)| name)) {
            let is_limit = name == "MOST" || name.starts_with("MAX_") || name.starts_with("MOST_");
            let is_listed =
                listed.iter().any(|(file, constant)| *file == path && constant.starts_with(&format!("{name} =")));
            let is_other =
                OF_ANOTHER_KIND.iter().any(|(file, other)| *other == name && (file.is_empty() || *file == path));
            if is_limit && !is_listed && !is_other {
                missing.push(format!("{path} {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "not in docs/limits.md: {missing:?}");
}

/// The Rust files below a folder, tests left out.
fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") && path.file_name().is_some_and(|n| n != "tests.rs") {
            files.push(path);
        }
    }
    files
}
