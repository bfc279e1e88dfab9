//! Every input that is kept of the fuzz targets: seeds, what fuzzing found to reach new code, and what once broke something.

use std::{fs, path::Path};

use prepull as _;

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn every_kept_input_is_survived() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut all = 0;
    for (name, target) in targets::ALL {
        let kept = fs::read_dir(folder.join(name)).unwrap_or_else(|e| panic!("fuzz/corpus/{name}: {e}"));
        let mut count = 0;
        for input in kept {
            let path = input.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "there is no input for {name}");
        all += count;
    }
    println!("{all} inputs were survived");
}

/// A target that is not in the table would never run here.
#[test]
fn the_table_is_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|f| f.unwrap().path().file_stem().unwrap().to_owned()).collect();
    let mut named: Vec<_> = targets::ALL.iter().map(|(name, _)| std::ffi::OsString::from(name)).collect();
    files.sort();
    named.sort();
    assert_eq!(files, named);
}
