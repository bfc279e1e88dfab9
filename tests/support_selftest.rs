//! The test support itself, against every runtime that is here.

mod support;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use libtest_mimic::Arguments;
use support::{
    containerd::Containerd,
    images::{Artifact, Content, Image, Index, Layer, Platform},
    parts::ContainerdPart,
    registry::{Registry, RegistryKind},
    trials::on_every_containerd,
};
use tonic::Code;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.extend(on_every_containerd("pushed_image_is_pulled_listed_and_removed", pull_list_remove));
    trials.extend(on_every_containerd("index_is_pulled_by_tag_and_by_digest", index));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

async fn pull_list_remove(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let base = Layer::new(1, 300_000, Content::Random)?;
    let image = Image::new("first", &[base.clone(), Layer::new(2, 50_000, Content::Compressible)?]);
    let pushed = registry.push("team/app:1", &image).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;
    ensure!(containerd.images().await?.is_empty(), "a new containerd has images already");

    containerd.pull(&pushed.by_tag).await?;
    let names = containerd.images().await?;
    ensure!(names.contains(&pushed.by_tag) && names.contains(&pushed.by_digest), "the image is not listed: {names:?}");
    let (blobs, bytes) = registry.blob_downloads("team/app").await?;
    ensure!(blobs == 3 && bytes > 300_000, "{blobs} blobs of {bytes} bytes were downloaded");

    containerd.remove(&pushed.by_tag).await?;
    ensure!(containerd.images().await?.is_empty(), "the image is still there");
    Ok(())
}

async fn index(part: ContainerdPart) -> Result<()> {
    let registry = Registry::start(RegistryKind::Plain).await?;
    let layer = Layer::new(3, 1000, Content::Compressible)?;
    let foreign = Image::for_platform("multi", std::slice::from_ref(&layer), Platform::foreign());
    let here = Image::new("multi", &[layer]);
    let multi = registry.push("multi:1", &Index::new(vec![foreign.clone(), here.clone()])).await?;
    let other = registry.push("other:1", &Index::new(vec![foreign])).await?;
    let containerd = Containerd::start(&part, &[&registry]).await?;

    let id = containerd.pull(&multi.by_tag).await?;
    ensure!(id == here.config().digest, "the ID is {id}, not the configuration's digest");
    containerd.pull(&multi.by_digest).await?;
    ensure!(multi.digest != here.digest(), "the index has its image's digest");
    let names = containerd.images().await?;
    ensure!(names == [multi.by_tag, multi.by_digest], "the store has {names:?}");

    let refused = containerd.pull(&other.by_tag).await.err().map(|status| status.code());
    ensure!(refused == Some(Code::NotFound), "an index without this platform gave {refused:?}");
    Ok(())
}
