//! The agent's image: built by buildah from the Dockerfile, or where buildah is missing pushed as plain files.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::{kube::run, parts, parts::Buildah, render::repository, support::images::digest};

/// The most that the image may weigh.
const MOST_BYTES: u64 = 15_000_000;
/// Where Debian and others keep the certificates of public authorities.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// The static release binary.
pub(crate) fn binary() -> Result<PathBuf> {
    let build = || -> Result<PathBuf> {
        if let Some(given) = env::var_os("PREPULL_TEST_BINARY") {
            return Ok(given.into());
        }
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prepull-static");
        run(Command::new(repository().join("hack/build-static")).arg(architecture()).arg(&file))?;
        Ok(file)
    };
    let built = BINARY.get_or_init(|| build().map_err(|error| format!("{error:?}")));
    built.clone().map_err(|text| anyhow!(text))
}

fn architecture() -> &'static str {
    if env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" }
}

/// The base that the Dockerfile compiles in is at least as new as what the crate asks for.
pub(crate) async fn compiler((): ()) -> Result<()> {
    let line = |file: &str, start: &str| -> Result<String> {
        let text = fs::read_to_string(repository().join(file))?;
        text.lines()
            .find_map(|l| l.strip_prefix(start))
            .map(str::to_owned)
            .with_context(|| format!("no `{start}` in {file}"))
    };
    let minor = |version: &str| version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    let wanted = line("Cargo.toml", "rust-version = ")?;
    let base = line("Dockerfile", "ARG BUILD_IMAGE=docker.io/library/rust:")?;
    let (wanted, has) = (minor(wanted.trim_matches('"')), minor(base.split('-').next().unwrap_or_default()));
    ensure!(
        wanted.is_some() && has >= wanted,
        "the Dockerfile compiles with Rust {base}, Cargo.toml asks for {wanted:?}"
    );
    Ok(())
}

/// Builds the image with a name; no base image is pulled.
fn build(buildah: &Buildah, name: &str, folder: &Path) -> Result<()> {
    let context = folder.join("image-context");
    fs::create_dir_all(&context)?;
    fs::copy(binary()?, context.join("prepull"))?;
    fs::copy(CERTIFICATES, context.join("ca-certificates.crt")).context("is ca-certificates installed?")?;
    run(Command::new(&buildah.0)
        .args([
            "build",
            "--quiet",
            // a network of buildah's own would take the addresses of the cluster's pods
            "--network",
            "host",
            "--target",
            "prebuilt",
            "--build-arg",
            "VERSION=0.0.0-test",
            "--build-arg",
            "REVISION=abc",
            "--tag",
            name,
        ])
        .arg("--file")
        .arg(repository().join("Dockerfile"))
        .arg(&context))?;
    Ok(())
}

/// The tag of the image: another binary is another image, also for nodes that keep what they pulled.
pub(crate) fn tag() -> Result<String> {
    let digest = digest(&fs::read(binary()?).context("there is no binary for the image")?);
    Ok(digest.trim_start_matches("sha256:")[..12].to_owned())
}

/// Pushes the agent's image as `REGISTRY/prepull:TAG`. `script` is the cluster's, which has a helper for plain files beside it.
pub(crate) fn push(script: &Path, folder: &Path, registry: &str) -> Result<()> {
    let name = format!("{registry}/prepull:{}", tag()?);
    let Ok(buildah) = parts::buildah() else {
        let root = folder.join("image-root");
        fs::create_dir_all(&root)?;
        fs::copy(binary()?, root.join("prepull"))?;
        run(Command::new("python3").arg(script.with_file_name("push-rootfs")).arg(&name).arg(&root).arg("/prepull"))?;
        return Ok(());
    };
    build(&buildah, &name, folder)?;
    run(Command::new(&buildah.0).args(["push", "--quiet", "--tls-verify=false", &name, &format!("docker://{name}")]))?;
    // it is in the cluster's registry now; nothing stays on the machine
    run(Command::new(&buildah.0).args(["rmi", "--force", &name]))?;
    Ok(())
}

/// What stands in the image, and that it runs.
pub(crate) async fn built(buildah: Buildah) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let name = "localhost/prepull:of-a-test";
    build(&buildah, name, folder.path())?;
    let inspected: Value =
        serde_json::from_str(&run(Command::new(&buildah.0).args(["inspect", "--type", "image", name]))?)?;
    let config = &inspected["OCIv1"]["config"];
    ensure!(config["User"] == "65532:0", "{config:#}");
    ensure!(config["Entrypoint"] == serde_json::json!(["/prepull"]) && config["Cmd"].is_null(), "{config:#}");
    let labels = &config["Labels"];
    for (label, value) in
        [("version", "0.0.0-test"), ("revision", "abc"), ("licenses", "Apache-2.0"), ("title", "prepull")]
    {
        ensure!(labels[format!("org.opencontainers.image.{label}")] == value, "{labels:#}");
    }
    let archive = folder.path().join("image.tar");
    run(Command::new(&buildah.0).args(["push", "--quiet", name]).arg(format!("oci-archive:{}", archive.display())))?;
    let (packed, unpacked) =
        (archive.metadata()?.len(), binary()?.metadata()?.len() + Path::new(CERTIFICATES).metadata()?.len());
    eprintln!("the image has {packed} bytes packed, {unpacked} unpacked");
    ensure!(packed < MOST_BYTES && unpacked < MOST_BYTES, "the image has {packed} bytes, unpacked {unpacked}");

    let container = run(Command::new(&buildah.0).args(["from", "--pull-never", name]))?;
    let looked = look(&buildah, container.trim());
    run(Command::new(&buildah.0).args(["rm", container.trim()]))?;
    run(Command::new(&buildah.0).args(["rmi", name]))?;
    looked
}

fn look(buildah: &Buildah, container: &str) -> Result<()> {
    let root = run(Command::new(&buildah.0).args(["mount", container]))?;
    let root = Path::new(root.trim());
    let files = run(Command::new("find").arg(root).args(["-type", "f", "-printf", "/%P %m\n"]))?;
    let mut files: Vec<_> = files.lines().collect();
    files.sort_unstable();
    ensure!(files == ["/etc/ssl/certs/ca-certificates.crt 644", "/prepull 755"], "the image holds {files:?}");
    // with nothing but these two files there, a library that is missing would show here
    let version = run(Command::new("chroot").args(["--userspec=65532:0"]).arg(root).args(["/prepull", "--version"]))?;
    ensure!(version.starts_with("prepull "), "{version}");
    Ok(())
}
