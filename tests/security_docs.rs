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

/// Lines that say what is so by design, and that no test can show.
const WITHOUT_TEST: [&str; 1] = ["have nodes talk to any registry"];

#[test]
fn every_test_that_is_named_is_there() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md")).unwrap();
    let mut named = 0;
    let mut without = Vec::new();
    // the table of the kubelet's policies is a test's own
    let mut is_threats = false;
    for row in docs.lines() {
        if !row.starts_with('|') {
            is_threats = false;
            continue;
        }
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        is_threats |= cells.last() == Some(&"shown by");
        if !is_threats || cells.last() == Some(&"shown by") || row.starts_with("|---") {
            continue;
        }
        let [what, _, shown] = cells.as_slice() else { panic!("not three cells: {row}") };
        let tests: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() {
            assert_eq!(*shown, "–", "no test, and no word that there is none: {row}");
            without.push(*what);
        }
        for test in tests {
            assert!(is_there(test), "{test} does not exist, of: {row}");
            named += 1;
        }
    }
    assert_eq!(without, WITHOUT_TEST, "lines that no test shows");
    assert!(named > 40, "{named} tests are named");
    assert!(!is_there("http_port there_is_no_such_test") && !is_there("http_port heads"), "the search finds anything");
}
