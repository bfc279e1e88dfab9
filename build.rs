//! Stamps the revision that `build_info` shows.
use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=PREPULL_REVISION");
    println!("cargo:rustc-env=PREPULL_REVISION={}", revision());
}

/// The commit that is built: from the environment where there is no checkout (an image build), else from git.
fn revision() -> String {
    if let Ok(given) = std::env::var("PREPULL_REVISION") {
        return given;
    }
    if Path::new(".git/HEAD").exists() {
        println!("cargo:rerun-if-changed=.git/HEAD");
        println!("cargo:rerun-if-changed=.git/logs/HEAD");
    }
    Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|out| out.status.success())
        .map_or_else(|| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}
