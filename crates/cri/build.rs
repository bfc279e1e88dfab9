//! Compiles `proto/` without protoc.
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "proto/cri.proto",
        "proto/containerd-content.proto",
        "proto/containerd-events.proto",
        "proto/containerd-images.proto",
        "proto/containerd-leases.proto",
    ]
    .map(|file| format!("../../{file}"));
    let descriptors = protox::compile(&files, ["../../proto"])?;
    tonic_prost_build::configure()
        // `AuthConfig` carries passwords: no derived Debug may ever print one.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(descriptors)?;
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    Ok(())
}
