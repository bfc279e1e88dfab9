//! Reads manifests and indexes as far as progress needs them. What a registry sends is hostile: bounded in size, in
//! depth (by the JSON reader) and in the number of layers; whatever does not look right is simply not a manifest.

use std::collections::HashSet;

use serde::Deserialize;

use super::Part;
use crate::image_ref::Digest;

/// Largest document that is read. Registries take no larger manifest.
pub const MOST_BYTES: u64 = 4 << 20;
/// Most layers of a manifest. No runtime can mount so many.
const MOST_LAYERS: usize = 1024;

/// What a blob turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// A manifest: config, then layers in their order, each once.
    Manifest(Vec<Part>),
    /// A list of manifests.
    Index,
    /// Something else, such as a config or a layer.
    Other,
}

#[derive(Deserialize)]
struct Raw {
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

impl Document {
    /// Reads one.
    pub fn read(bytes: &[u8]) -> Self {
        if bytes.len() as u64 > MOST_BYTES || bytes.iter().find(|b| !b.is_ascii_whitespace()) != Some(&b'{') {
            return Self::Other;
        }
        match serde_json::from_slice(bytes) {
            Ok(Raw { config: Some(config), layers: Some(layers), manifests: None }) if layers.len() <= MOST_LAYERS => {
                let mut seen = HashSet::new();
                let parts: Option<Vec<Part>> = [config].iter().chain(&layers).enumerate().map(part).collect();
                let parts = parts.into_iter().flatten().filter(|part| seen.insert(part.digest.clone()));
                let parts: Vec<_> = parts.collect();
                if parts.is_empty() { Self::Other } else { Self::Manifest(parts) }
            }
            Ok(Raw { config: None, layers: None, manifests: Some(_) }) => Self::Index,
            _ => Self::Other,
        }
    }
}

fn part((at, descriptor): (usize, &Descriptor)) -> Option<Part> {
    let digest = Digest::parse(&descriptor.digest).ok()?;
    Some(Part { digest, size: descriptor.size, is_layer: at > 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> String {
        format!("sha256:{}", format!("{n:02x}").repeat(32))
    }

    fn manifest(layers: &str) -> Document {
        let config = digest(1);
        Document::read(
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":7}},"layers":[{layers}]}}"#)
                .as_bytes(),
        )
    }

    #[test]
    fn a_manifest_has_its_config_and_its_layers_each_once() {
        let layer = |n: u8, size: u64| format!(r#"{{"mediaType":"x","digest":"{}","size":{size}}}"#, digest(n));
        let Document::Manifest(parts) = manifest(&[layer(2, 10), layer(3, 20), layer(2, 10)].join(",")) else {
            panic!("no manifest")
        };
        let seen: Vec<_> = parts.iter().map(|p| (p.size, p.is_layer)).collect();
        assert_eq!(seen, [(7, false), (10, true), (20, true)]);
        assert_eq!(Document::read(br#"{"manifests":[]}"#), Document::Index);
    }

    #[test]
    fn what_is_hostile_or_something_else_is_no_manifest() {
        let deep = format!("{{\"layers\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        let many = vec![format!(r#"{{"digest":"{}","size":1}}"#, digest(2)); MOST_LAYERS + 1].join(",");
        let long = format!("{{\"manifests\":[],\"x\":\"{}\"}}", "x".repeat(usize::try_from(MOST_BYTES).unwrap()));
        for text in [
            "",
            "[]",
            "{}",
            &deep,
            &long,
            r#"{"config":{"Env":[]},"rootfs":{}}"#,
            r#"{"config":{"digest":"sha256:1","size":1},"layers":[]}"#,
        ] {
            assert_eq!(Document::read(text.as_bytes()), Document::Other, "{text:.80}");
        }
        assert_eq!(manifest(&many), Document::Other);
        assert_eq!(manifest(&format!(r#"{{"digest":"{}","size":-1}}"#, digest(2))), Document::Other);
        assert_eq!(manifest(r#"{"digest":"../../etc/passwd","size":1}"#), Document::Other);
        assert_eq!(Document::read(b"\x1f\x8b\x08\x00"), Document::Other);
    }
}
