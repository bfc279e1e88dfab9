//! docs/security.md names a test for each of its lines: they must be there.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

use prepull as _;

/// What stands in a file, or in all files of a folder.
fn text(path: &Path) -> String {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|entry| text(&entry.unwrap().path())).collect();
    }
    fs::read_to_string(path).unwrap_or_default()
}

/// `FILE NAME`: of a file with its path, or of a test program, which may have a folder.
fn is_there(named: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some((file, name)) = named.split_once(' ') else { return false };
    let source = if Path::new(file).extension().is_some() {
        text(&root.join(file))
    } else {
        text(&root.join(format!("tests/{file}.rs"))) + &text(&root.join("tests").join(file))
    };
    source.contains(&format!("fn {name}("))
        || source.contains(&format!("\"{name}\""))
        || source.contains(&format!("::{name}\""))
}

#[test]
fn every_test_that_is_named_is_there() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md")).unwrap();
    let rows = docs.lines().filter(|line| line.starts_with("| ") && !line.contains("shown by"));
    let mut named = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        // the table of the kubelet's policies is a test's own
        let [_, _, shown] = cells.as_slice() else { continue };
        for test in shown.split('`').skip(1).step_by(2) {
            assert!(is_there(test), "{test} does not exist, of: {row}");
            named += 1;
        }
    }
    assert!(named > 40, "{named} tests are named");
    assert!(!is_there("http_port there_is_no_such_test") && !is_there("http_port heads"), "the search finds anything");
}
