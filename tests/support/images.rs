//! OCI images made in memory: the same arguments always give the same bytes, so the same digests.

use std::{fmt::Write as _, io::Write as _};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use hyper::body::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Bytes under their digest.
#[derive(Debug, Clone)]
pub struct Blob {
    /// What a registry says it is.
    pub media_type: &'static str,
    /// `sha256:…`.
    pub digest: String,
    /// The content.
    pub bytes: Bytes,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, digest: digest(&bytes), bytes: bytes.into() }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// What fills a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// As large on the wire as on disk.
    Random,
    /// Nearly nothing on the wire.
    Compressible,
}

/// A layer with one file. Cloning it is cheap, and images that hold clones share it.
#[derive(Debug, Clone)]
pub struct Layer {
    blob: Blob,
    diff_id: String,
}

impl Layer {
    /// A layer whose file has `size` bytes; `seed` tells layers apart.
    pub fn new(seed: u64, size: usize, content: Content) -> Result<Self> {
        let data = match content {
            Content::Random => random(seed, size),
            Content::Compressible => format!("layer {seed}\n").into_bytes().into_iter().cycle().take(size).collect(),
        };
        let level = match content {
            // squeezing random bytes would only cost time
            Content::Random => Compression::none(),
            Content::Compressible => Compression::default(),
        };
        Self::with_file(&format!("data-{seed}"), 0o644, &data, level)
    }

    /// A layer with a program, for images whose containers run.
    pub fn with_program(name: &str, program: &[u8]) -> Result<Self> {
        Self::with_file(name, 0o755, program, Compression::fast())
    }

    fn with_file(name: &str, mode: u32, data: &[u8], level: Compression) -> Result<Self> {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(data.len())?);
        header.set_mode(mode);
        header.set_mtime(0);
        let mut archive = tar::Builder::new(Vec::with_capacity(data.len() + 2048));
        archive.append_data(&mut header, name, data).context("the layer's file does not fit a tar archive")?;
        let archive = archive.into_inner()?;
        let mut gzip = GzEncoder::new(Vec::new(), level);
        gzip.write_all(&archive)?;
        Ok(Self { blob: Blob::new(LAYER, gzip.finish()?), diff_id: digest(&archive) })
    }

    /// The same layer with a gzip stream that ends too early. Its digest is that of what is sent, so only unpacking fails.
    #[must_use]
    pub fn cut(self) -> Self {
        let half = self.blob.bytes.len() / 2;
        Self { blob: Blob::new(self.blob.media_type, self.blob.bytes[..half].to_vec()), ..self }
    }

    /// The same layer in an image whose configuration expects another content.
    #[must_use]
    pub fn with_wrong_diff_id(self) -> Self {
        Self { diff_id: digest(b"another layer"), ..self }
    }

    /// The same bytes under another media type.
    #[must_use]
    pub fn of_type(mut self, media_type: &'static str) -> Self {
        self.blob.media_type = media_type;
        self
    }

    /// The compressed layer.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }
}

/// Operating system and architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// As Go names it.
    pub os: &'static str,
    /// As Go names it.
    pub architecture: &'static str,
}

impl Platform {
    /// This machine's.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: "linux", architecture }
    }

    /// One that no machine of these tests has.
    pub fn foreign() -> Self {
        Self { os: "linux", architecture: "mips64le" }
    }
}

/// What can be pushed: blobs, and manifests of which the last is the one that a tag names.
pub trait Artifact {
    /// All blobs, shared ones more than once.
    fn blobs(&self) -> Vec<&Blob>;
    /// All manifests, each after those that it refers to.
    fn manifests(&self) -> Vec<&Blob>;

    /// The digest that a tag of this resolves to.
    fn digest(&self) -> &str {
        self.manifests().last().map_or("", |manifest| &manifest.digest)
    }
}

/// An image of one platform.
#[derive(Debug, Clone)]
pub struct Image {
    platform: Platform,
    config: Blob,
    layers: Vec<Layer>,
    manifest: Blob,
}

impl Image {
    /// An image for this machine; `name` is in its configuration, so that images with the same layers differ.
    pub fn new(name: &str, layers: &[Layer]) -> Self {
        Self::for_platform(name, layers, Platform::here())
    }

    /// An image for another platform.
    pub fn for_platform(name: &str, layers: &[Layer], platform: Platform) -> Self {
        let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let history: Vec<_> = layers.iter().map(|_| json!({"created_by": "a test"})).collect();
        let config = Blob::json(
            CONFIG,
            &json!({
                "architecture": platform.architecture,
                "os": platform.os,
                "config": {"Labels": {"name": name}, "Env": ["PATH=/"]},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": history,
            }),
        );
        Self::with_config(config, layers, platform)
    }

    /// A Helm chart: a manifest like an image's, of which nothing else is.
    pub fn helm_chart(name: &str, layer: Layer) -> Self {
        let config = Blob::json("application/vnd.cncf.helm.config.v1+json", &json!({"name": name, "version": "0.1.0"}));
        let layer = layer.of_type("application/vnd.cncf.helm.chart.content.v1.tar+gzip");
        Self::with_config(config, &[layer], Platform::here())
    }

    fn with_config(config: Blob, layers: &[Layer], platform: Platform) -> Self {
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": layers.iter().map(|layer| layer.blob.descriptor()).collect::<Vec<_>>(),
            }),
        );
        Self { platform, config, layers: layers.to_vec(), manifest }
    }

    /// An image with one small layer.
    pub fn small(name: &str) -> Result<Self> {
        let seed = name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Ok(Self::new(name, &[Layer::new(seed, 4096, Content::Compressible)?]))
    }

    /// The configuration; its digest is the image's ID in CRI.
    pub fn config(&self) -> &Blob {
        &self.config
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The manifest.
    pub fn manifest(&self) -> &Blob {
        &self.manifest
    }
}

impl Artifact for Image {
    fn blobs(&self) -> Vec<&Blob> {
        self.layers.iter().map(Layer::blob).chain([&self.config]).collect()
    }

    fn manifests(&self) -> Vec<&Blob> {
        vec![&self.manifest]
    }
}

/// A multi-architecture image.
#[derive(Debug, Clone)]
pub struct Index {
    images: Vec<Image>,
    manifest: Blob,
}

impl Index {
    /// An index of images, one per platform.
    pub fn new(images: Vec<Image>) -> Self {
        let entries: Vec<_> = images
            .iter()
            .map(|image| {
                let mut entry = image.manifest.descriptor();
                entry["platform"] = json!({"os": image.platform.os, "architecture": image.platform.architecture});
                entry
            })
            .collect();
        let manifest = Blob::json(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}));
        Self { images, manifest }
    }

    /// The images.
    pub fn images(&self) -> &[Image] {
        &self.images
    }
}

impl Artifact for Index {
    fn blobs(&self) -> Vec<&Blob> {
        self.images.iter().flat_map(Image::blobs).collect()
    }

    fn manifests(&self) -> Vec<&Blob> {
        self.images.iter().map(Image::manifest).chain([&self.manifest]).collect()
    }
}

/// The digest of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // writing to a string cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes that no compression shortens; the same seed gives the same bytes.
pub fn random(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    // a counter through a mixing function: every seed gives a stream of its own
    let mut counter = seed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    while bytes.len() < size {
        counter = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = counter;
        word = (word ^ (word >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        word = (word ^ (word >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        bytes.extend_from_slice(&(word ^ (word >> 32)).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}
