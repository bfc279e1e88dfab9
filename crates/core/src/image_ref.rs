//! Image names exactly as the kubelet reads them.
//!
//! The rule is the Docker normalising parser (distribution/reference) plus the kubelet's own additions: `latest` where
//! neither tag nor digest is written, and three digest algorithms. Pure: no I/O, no clock.

mod mistakes;

use std::{collections::HashSet, fmt, sync::Arc};

pub use mistakes::NameError;

/// The registry that a name without one belongs to.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// Another spelling of [`DEFAULT_REGISTRY`] that the parser rewrites.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Prefix of a Docker Hub repository that is written with one part only.
const OFFICIAL_PREFIX: &str = "library/";
/// The tag that stands where neither tag nor digest is written.
pub const DEFAULT_TAG: &str = "latest";
/// Longest path of a repository, its registry not counted.
const MAX_REPOSITORY_LENGTH: usize = 255;
/// Longest tag.
const MAX_TAG_LENGTH: usize = 128;

/// Host and optional port of a registry, as written: case is kept. Empty for the few names whose first part looks
/// like a host and is none (`reg_istry.example.com/app`), which the kubelet reads as one long path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistryHost(Arc<str>);

impl RegistryHost {
    /// The host as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A content digest, `sha256:…`, `sha384:…` or `sha512:…` in lower-case hexadecimal of the exact length.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

impl Digest {
    /// Reads a digest by the rules of the OCI image specification, with the three algorithms that the kubelet knows.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (algorithm, encoded) = text.split_once(':').ok_or(NameError::Malformed)?;
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return Err(NameError::DigestAlgorithm(mistakes::shown(algorithm))),
        };
        if encoded.len() != length {
            return Err(NameError::DigestLength { wanted: length, found: encoded.len() });
        }
        if !encoded.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NameError::DigestCharacters);
        }
        Ok(Self(text.into()))
    }

    /// The digest as text, algorithm included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A valid image name, in parts, together with the text that it was written as.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ImageRef {
    written: Arc<str>,
    registry: RegistryHost,
    repository: Arc<str>,
    tag: Option<Arc<str>>,
    digest: Option<Digest>,
}

impl ImageRef {
    /// Reads a name as the kubelet does before it asks the runtime.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NameError::ImageId);
        }
        let (domain, remainder) = split_registry(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(mistakes::likely(text).unwrap_or_else(|| mistakes::upper_case(text, remote)));
        }
        let full = format!("{domain}/{remainder}");
        let parts = Parts::of(&full).ok_or_else(|| mistakes::likely(text).unwrap_or(NameError::Malformed))?;
        if parts.repository.len() > MAX_REPOSITORY_LENGTH {
            return Err(NameError::TooLong(parts.repository.len()));
        }
        let digest = parts.digest.map(Digest::parse).transpose()?;
        Ok(Self {
            registry: RegistryHost(parts.registry.into()),
            repository: parts.repository.into(),
            tag: parts.tag.map(Into::into),
            digest,
            written: text.into(),
        })
    }

    /// The name as it was written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// The same, for whoever keeps it.
    pub fn shared_text(&self) -> Arc<str> {
        self.written.clone()
    }

    /// Keeps the registry's name together with others that have it, among those that are known.
    pub fn share_registry(&mut self, known: &mut HashSet<RegistryHost>) {
        match known.get(&self.registry) {
            Some(shared) => self.registry = shared.clone(),
            None => drop(known.insert(self.registry.clone())),
        }
    }

    /// The registry, normalised (`docker.io` where none is written).
    pub fn registry(&self) -> &RegistryHost {
        &self.registry
    }

    /// The repository's path in its registry, `library/` included.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag that was written, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that was written, if any.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether the text itself begins with its registry. Where it does not, a runtime may have rules of its own for
    /// short names (CRI-O's registries.conf), so only the runtime's answer for the text counts.
    pub fn is_qualified(&self) -> bool {
        let (first, rest) = self.written.split_once('/').unwrap_or(("", ""));
        !rest.is_empty() && (first == self.registry.as_str() || first == LEGACY_DEFAULT_REGISTRY)
    }

    /// Why the name, which is valid, probably does not mean what its writer wants, with what to do about it.
    pub fn doubt(&self) -> Option<String> {
        mistakes::doubt(self)
    }

    /// Registry and repository without tag and digest: the key by which the kubelet finds credentials.
    pub fn lookup_key(&self) -> String {
        if self.registry.as_str().is_empty() {
            self.repository.to_string()
        } else {
            format!("{}/{}", self.registry, self.repository)
        }
    }

    /// The one normalised spelling: registry/repository, then `@digest` if there is one (the tag is dropped, as
    /// containerd drops it), else the tag, else `latest`.
    pub fn canonical(&self) -> String {
        let name = self.lookup_key();
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{name}@{digest}"),
            (None, Some(tag)) => format!("{name}:{tag}"),
            (None, None) => format!("{name}:{DEFAULT_TAG}"),
        }
    }

    /// What the kubelet sends to the runtime: the text as written, with `:latest` behind it where neither tag nor
    /// digest is written. Short names are not expanded.
    pub fn cri_image(&self) -> String {
        if self.tag.is_none() && self.digest.is_none() {
            format!("{}:{DEFAULT_TAG}", self.written)
        } else {
            self.written.to_string()
        }
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageRef({:?})", self.written)
    }
}

/// Kubernetes' `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
pub enum PullPolicy {
    /// Ask the registry on start, on edit and at every refresh.
    Always,
    /// Pull when the runtime lacks it.
    IfNotPresent,
    /// Never pull.
    Never,
}

impl PullPolicy {
    /// All values, in the order in which messages list them.
    pub const ALL: [Self; 3] = [Self::Always, Self::IfNotPresent, Self::Never];

    /// The default that the API server sets for a Pod: `Always` where the tag is `latest`, also by default and also
    /// with a digest behind it; `IfNotPresent` for everything else, names that cannot be parsed included.
    pub fn default_for(image: &str) -> Self {
        ImageRef::parse(image).map_or(Self::IfNotPresent, |parsed| Self::default_of(&parsed))
    }

    /// As [`PullPolicy::default_for`], for a name that is parsed already.
    pub fn default_of(image: &ImageRef) -> Self {
        match (image.tag(), image.digest()) {
            (Some(DEFAULT_TAG), _) | (None, None) => Self::Always,
            (Some(_), _) | (None, Some(_)) => Self::IfNotPresent,
        }
    }

    /// The value as a Pod writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Registry and the rest, the rest with `library/` in front where Docker Hub wants it.
fn split_registry(name: &str) -> (&str, String) {
    let Some((first, rest)) = name.split_once('/') else {
        return (DEFAULT_REGISTRY, format!("{OFFICIAL_PREFIX}{name}"));
    };
    let (domain, remainder) = if first == LEGACY_DEFAULT_REGISTRY {
        (DEFAULT_REGISTRY, rest)
    } else if first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase) {
        (first, rest)
    } else {
        (DEFAULT_REGISTRY, name)
    };
    if domain == DEFAULT_REGISTRY && !remainder.contains('/') {
        (domain, format!("{OFFICIAL_PREFIX}{remainder}"))
    } else {
        (domain, remainder.to_owned())
    }
}

/// What the reference grammar finds in a normalised name.
struct Parts<'a> {
    registry: &'a str,
    repository: &'a str,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn of(full: &'a str) -> Option<Self> {
        let with_registry = full
            .split_once('/')
            .filter(|(domain, _)| is_domain(domain))
            .and_then(|(domain, rest)| Self::after_registry(domain, rest));
        // a first part that is no host is read as part of the path, and the registry stays empty
        with_registry.or_else(|| Self::after_registry("", full))
    }

    fn after_registry(registry: &'a str, rest: &'a str) -> Option<Self> {
        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = match named.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (named, None),
        };
        let valid =
            repository.split('/').all(is_path_part) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest_shaped);
        valid.then_some(Self { registry, repository, tag, digest })
    }
}

/// Host name or bracketed IPv6 address, with an optional port of digits.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(inner) => {
            let Some((address, after)) = inner.split_once(']') else { return false };
            if address.is_empty() || !address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            match after {
                "" => return true,
                _ => (None, after.strip_prefix(':')),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), Some("0")),
        },
    };
    let port_is_digits = port.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    port_is_digits && host.is_none_or(|h| h.split('.').all(is_host_label))
}

fn is_host_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Runs of lower-case letters and digits, between them one `.`, one or two `_`, or any run of `-`.
fn is_path_part(part: &str) -> bool {
    let bytes = part.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().is_some_and(plain) || !bytes.last().is_some_and(plain) {
        return false;
    }
    bytes
        .split(plain)
        .filter(|separator| !separator.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= MAX_TAG_LENGTH
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

/// The grammar's wide idea of a digest; [`Digest::parse`] narrows it and says what is wrong.
fn is_digest_shaped(digest: &str) -> bool {
    let Some((algorithm, encoded)) = digest.split_once(':') else { return false };
    let part = |p: &str| {
        p.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && p.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part)
        && encoded.len() >= 32
        && encoded.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests;
