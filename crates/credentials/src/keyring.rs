//! Which credentials match an image, and in which order: the kubelet's keyring.
//!
//! A key is a host with an optional port and path. It matches an image where the ports are equal as text, the hosts
//! have the same number of labels and each label matches its pattern, and the key's path is a plain string prefix of
//! the image's. All matching keys count, in descending byte order. Pure: no I/O, no clock.

use std::{collections::BTreeMap, fmt};

use super::{
    go_rules::{
        glob,
        url::{HostAndPath, UrlError},
    },
    text::escaped,
};

/// The key that stands for Docker Hub where nothing else matches.
const DEFAULT_REGISTRY_KEY: &[u8] = b"index.docker.io";
/// Spellings of Docker Hub at the start of an image name.
const DEFAULT_REGISTRIES: [&str; 2] = ["docker.io", "index.docker.io"];
/// Begins of a key's path that mean the registry's API and are dropped, their last slash excepted.
const API_PREFIXES: [&[u8]; 2] = [b"/v1/", b"/v2/"];

/// A key as it is compared: without scheme, user name, query, fragment and API version. Bytes, because a
/// percent-escape may stand for any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// Normalises a key as it stands in a docker config or in a plugin's answer.
    pub fn normalise(written: &str) -> Result<Self, UrlError> {
        let parsed = HostAndPath::parse(without_scheme(written).as_bytes())?;
        let path = match API_PREFIXES.iter().find(|p| parsed.path.starts_with(p)) {
            Some(prefix) => &parsed.path[prefix.len() - 1..],
            None => &parsed.path,
        };
        let path = if path == b"/" { b"" } else { path };
        Ok(Self([&parsed.host, path].concat()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escaped(&String::from_utf8_lossy(&self.0), usize::MAX))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The key without `http://` or `https://`; other spellings of a scheme are none.
pub fn without_scheme(written: &str) -> &str {
    written.strip_prefix("https://").or_else(|| written.strip_prefix("http://")).unwrap_or(written)
}

/// Values by key, as the kubelet's basic keyring holds them.
#[derive(Debug)]
pub struct Keyring<T>(BTreeMap<Key, Vec<T>>);

impl<T> Default for Keyring<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Keyring<T> {
    /// Adds a value; values under one key keep the order in which they came.
    pub fn add(&mut self, key: Key, value: T) {
        self.0.entry(key).or_default().push(value);
    }

    /// All values, in ascending order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values().flatten()
    }

    /// Everything that matches the image (`registry/repository`, without tag and digest), most specific key first.
    /// Where nothing matches and the image is one of Docker Hub's, what stands under `index.docker.io`.
    pub fn lookup(&self, image: &str) -> Vec<(&Key, &T)> {
        let target = HostAndPath::parse(image.as_bytes()).ok();
        let matching = |key: &Key| target.as_ref().is_some_and(|target| covers(&key.0, target));
        let mut found: Vec<_> = self.0.iter().rev().filter(|(key, _)| matching(key)).collect();
        if found.is_empty() && is_default_registry(image) {
            found.extend(self.0.get_key_value(&Key(DEFAULT_REGISTRY_KEY.to_vec())));
        }
        found.into_iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value))).collect()
    }
}

/// Whether a pattern of `matchImages` matches an image. Unlike the keys of a config it is compared as written: a
/// scheme in it is part of the host. A pattern that cannot be read matches nothing.
pub fn pattern_matches(pattern: &str, image: &str) -> bool {
    HostAndPath::parse(image.as_bytes()).is_ok_and(|target| covers(pattern.as_bytes(), &target))
}

/// Whether a pattern of `matchImages` can be read at all.
pub fn check_pattern(pattern: &str) -> Result<(), UrlError> {
    HostAndPath::parse(pattern.as_bytes()).map(drop)
}

fn covers(key: &[u8], target: &HostAndPath) -> bool {
    // the key is read again as the kubelet does: an escape that was resolved once may form another
    let Ok(key) = HostAndPath::parse(key) else { return false };
    let ((key_name, key_port), (name, port)) = (key.name_and_port(), target.name_and_port());
    let labels = |name: &[u8]| name.split(|b| *b == b'.').count();
    key_port == port
        && labels(key_name) == labels(name)
        && target.path.starts_with(&key.path)
        && key_name.split(|b| *b == b'.').zip(name.split(|b| *b == b'.')).all(|(p, label)| glob::matches(p, label))
}

/// Whether an image without a matching key may be given what Docker Hub's key holds. `localhost/app` may too: its
/// first part looks like a user name.
pub fn is_default_registry(image: &str) -> bool {
    match image.split_once('/') {
        None => !image.is_empty(),
        Some((first, _)) => DEFAULT_REGISTRIES.contains(&first) || (!first.is_empty() && !first.contains(['.', ':'])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(written: &str) -> String {
        Key::normalise(written).unwrap().to_string()
    }

    fn ring(keys: &[&'static str]) -> Keyring<&'static str> {
        let mut ring = Keyring::default();
        for written in keys {
            ring.add(Key::normalise(written).unwrap(), *written);
        }
        ring
    }

    fn found(keys: &[&'static str], image: &str) -> Vec<&'static str> {
        ring(keys).lookup(image).into_iter().map(|(_, value)| *value).collect()
    }

    #[test]
    fn keys_are_normalised() {
        assert_eq!(key("https://index.docker.io/v1/"), "index.docker.io");
        assert_eq!(key("http://r.example.com/v2/team"), "r.example.com/team");
        assert_eq!(key("r.example.com/v1"), "r.example.com/v1");
        assert_eq!(key("r.example.com/v1/v2/x"), "r.example.com/v2/x");
        assert_eq!(key("HTTPS://r.example.com"), "HTTPS://r.example.com");
        assert_eq!(key("user:pass@r.example.com/?q#f"), "r.example.com");
        assert!(Key::normalise("*.io:*").is_err());
    }

    #[test]
    fn most_specific_key_first_and_order_kept_within_a_key() {
        let keys = ["r.example.com", "*.example.com", "r.example.com/team", "https://r.example.com"];
        let wanted = ["r.example.com/team", "r.example.com", "https://r.example.com", "*.example.com"];
        assert_eq!(found(&keys, "r.example.com/team/app"), wanted);
    }

    #[test]
    fn a_path_is_a_string_prefix() {
        assert_eq!(found(&["r.example.com/team"], "r.example.com/teammate/app"), ["r.example.com/team"]);
        assert!(found(&["r.example.com/team/"], "r.example.com/team").is_empty());
    }

    #[test]
    fn docker_hub_stands_in_only_where_nothing_matches() {
        let keys = ["https://index.docker.io/v1/", "docker.io"];
        assert_eq!(found(&keys, "docker.io/library/busybox"), ["docker.io"]);
        assert_eq!(found(&keys[..1], "docker.io/library/busybox"), [keys[0]]);
        assert_eq!(found(&keys[..1], "localhost/app"), [keys[0]]);
        assert!(found(&keys[..1], "r.example.com/app").is_empty());
        assert!(found(&["https://index.docker.io/v1"], "docker.io/library/busybox").is_empty());
    }

    #[test]
    fn brackets_match_only_with_a_port() {
        assert_eq!(found(&["[2001:db8::1]:5000"], "[2001:db8::1]:5000/app").len(), 1);
        assert!(found(&["[2001:db8::1]"], "[2001:db8::1]/app").is_empty());
    }

    #[test]
    fn an_escape_is_resolved_twice_as_the_kubelet_does() {
        assert_eq!(found(&["r.example.com/%2561"], "r.example.com/app").len(), 1);
        assert!(found(&["r.example.com/%25"], "r.example.com/%25").is_empty());
    }

    #[test]
    fn patterns_keep_their_scheme() {
        assert!(pattern_matches("*.example.com", "r.example.com/app"));
        assert!(!pattern_matches("https://r.example.com", "r.example.com/app"));
    }

    proptest! {
        #[test]
        fn never_panics(written in "\\PC{0,30}", image in "\\PC{0,30}") {
            let _ = pattern_matches(&written, &image);
            if let Ok(key) = Key::normalise(&written) {
                let mut ring = Keyring::default();
                ring.add(key, ());
                let _ = ring.lookup(&image);
            }
        }

        #[test]
        fn a_plain_host_finds_its_own_images(host in "[a-z]{1,8}(\\.[a-z]{1,8}){1,3}(:[0-9]{1,5})?", path in "[a-z]{1,8}") {
            let mut ring = Keyring::default();
            ring.add(Key::normalise(&host).unwrap(), ());
            let image = format!("{host}/{path}");
            prop_assert_eq!(ring.lookup(&image).len(), 1);
        }
    }
}
