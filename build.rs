//! Compiles `proto/` without protoc, and stamps the revision that `build_info` shows.
use std::{error::Error, path::Path, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "proto/cri.proto",
        "proto/containerd-content.proto",
        "proto/containerd-events.proto",
        "proto/containerd-images.proto",
        "proto/containerd-leases.proto",
    ];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        // `AuthConfig` carries passwords: no derived Debug may ever print one.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(descriptors)?;
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-env-changed=PREPULL_REVISION");
    println!("cargo:rustc-env=PREPULL_REVISION={}", revision());
    Ok(())
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
