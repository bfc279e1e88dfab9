//! Keys of docker configs that almost match an image, and how they differ from one that matches.
//!
//! The kubelet's rules decide what matches ([`super::keyring`]); a near miss is never used as a credential. It only
//! explains why a credential that looks right is not used. Pure: no I/O, no clock.

use super::{go_rules::glob, keyring::is_default_registry};

/// Most near misses that are reported for one image; further sources are left out.
pub const MAX_NEAR_MISSES: usize = 4;

/// Names under which people look for Docker Hub. Only some of them match as a key.
const DOCKER_HUB_HOSTS: [&str; 9] = [
    "docker.io",
    "index.docker.io",
    "registry-1.docker.io",
    "registry.docker.io",
    "auth.docker.io",
    "hub.docker.com",
    "registry.hub.docker.com",
    "www.docker.com",
    "docker.com",
];

/// How a key differs from one that matches. The closest difference comes first: of several keys of one source only the
/// closest is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The scheme is not `http` or `https` in lower case, so it counts as a host.
    Scheme,
    /// An IPv6 address in brackets matches only with a port.
    Ipv6WithoutPort,
    /// The port of the key is a pattern.
    PortPattern,
    /// The key has a port and the image has none.
    PortInKey,
    /// The image has a port and the key has none.
    PortInImage,
    /// Both have a port, and the ports differ.
    OtherPort,
    /// The hosts differ in upper and lower case.
    HostCase,
    /// Another name of Docker Hub.
    DockerHub,
    /// The key ends in `/v1` or `/v2` without a slash, so this counts as a path.
    ApiPath,
    /// The path of the key has a tag or a digest.
    TagInPath,
    /// The path of the key has a `*`.
    PathPattern,
    /// The path is another one.
    Path,
    /// One host is a subdomain of the other, or has more labels than the pattern.
    Subdomain,
}

/// A key that does not match, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// How it differs.
    pub difference: Difference,
    /// The reason, as a clause that follows the key.
    pub reason: String,
    /// What to do, as a sentence.
    pub fix: String,
}

/// A key or an image name, in parts. Nothing is decoded.
struct Parts<'a> {
    host: &'a str,
    port: Option<&'a str>,
    path: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let behind_brackets = authority.rfind(']').map_or(0, |at| at + 1);
        match authority[behind_brackets..].rfind(':') {
            Some(colon) => {
                let (host, port) = authority.split_at(behind_brackets + colon);
                Self { host, port: Some(&port[1..]), path }
            }
            None => Self { host: authority, port: None, path },
        }
    }

    fn registry(&self) -> String {
        self.port.map_or_else(|| self.host.to_owned(), |port| format!("{}:{port}", self.host))
    }
}

/// Compares a key as written with an image (`registry/repository`, without tag and digest) that it does not match.
/// Returns `None` if the two have nothing to do with each other.
pub fn near_miss(written: &str, image: &str) -> Option<NearMiss> {
    let target = Parts::of(image);
    let (scheme, rest) = match written.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, written),
    };
    let key = Parts::of(rest);
    if key.host.is_empty() || target.host.is_empty() {
        return None;
    }
    let registry = target.registry();
    let add = |key: &str| format!("Add the key `{key}`.");
    let miss = |difference, reason: String, fix: String| Some(NearMiss { difference, reason, fix });

    if is_default_registry(image) {
        return docker_hub(scheme, &key, &target);
    }
    let same_host = hosts_match(key.host, target.host);
    if !same_host {
        if hosts_match(&key.host.to_ascii_lowercase(), &target.host.to_ascii_lowercase()) {
            let reason = format!("differs from the host `{}` in upper and lower case", target.host);
            return miss(Difference::HostCase, reason, add(&registry));
        }
        if related(key.host, target.host) {
            let reason = format!("is for another host than `{}`: a key covers no subdomains", target.host);
            return miss(Difference::Subdomain, reason, add(&registry));
        }
        return None;
    }
    if let Some(scheme) = scheme.filter(|scheme| !["http", "https"].contains(scheme)) {
        let reason = if ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            "has its scheme in upper case, so the scheme counts as the host".to_owned()
        } else {
            "has a scheme other than http:// and https://, so the scheme counts as the host".to_owned()
        };
        return miss(Difference::Scheme, reason, add(&registry));
    }
    if target.host.starts_with('[') && key.port.is_none() && target.port.is_none() {
        let reason = "is an IPv6 address without a port, which never matches".to_owned();
        let fix = "Name the port in the image and in the key, or use a host name.".to_owned();
        return miss(Difference::Ipv6WithoutPort, reason, fix);
    }
    match (key.port, target.port) {
        (Some(port), _) if port.contains('*') => {
            let reason = "has a `*` as its port: a `*` works only in the host".to_owned();
            return miss(Difference::PortPattern, reason, add(&registry));
        }
        (Some(_), None) => {
            let reason = "has a port and the image has none: ports must be equal".to_owned();
            return miss(Difference::PortInKey, reason, add(&registry));
        }
        (None, Some(port)) => {
            let reason = format!("has no port and the image has port {port}: ports must be equal");
            return miss(Difference::PortInImage, reason, add(&registry));
        }
        (Some(key), Some(port)) if key != port => {
            let reason = format!("has another port than the image, {port}: ports must be equal");
            return miss(Difference::OtherPort, reason, add(&registry));
        }
        _ => {}
    }
    let path = key.path;
    if matches!(path, "/v1" | "/v2") {
        let reason = format!("ends in `{path}` without a slash behind it, so this counts as a repository path");
        return miss(Difference::ApiPath, reason, add(&registry));
    }
    if target.path.starts_with(path) {
        return None;
    }
    let bare = path.split([':', '@']).next().unwrap_or_default();
    if bare.len() < path.len() && target.path.starts_with(bare) {
        let reason = "has a tag or digest: a key is a registry and a path only".to_owned();
        return miss(Difference::TagInPath, reason, add(&format!("{registry}{bare}")));
    }
    if let Some((before, _)) = path.split_once('*').filter(|(before, _)| target.path.starts_with(before)) {
        let reason = "has a `*` in its path: a `*` works only in the host".to_owned();
        return miss(Difference::PathPattern, reason, add(&format!("{registry}{before}")));
    }
    let reason = format!("is for another path than `{}`", target.path);
    miss(Difference::Path, reason, add(&format!("{registry}{}", first_part(target.path))))
}

/// The same for an image of Docker Hub, which has a key of its own.
fn docker_hub(scheme: Option<&str>, key: &Parts<'_>, target: &Parts<'_>) -> Option<NearMiss> {
    let host = key.host.to_ascii_lowercase();
    if !DOCKER_HUB_HOSTS.contains(&host.as_str()) {
        return None;
    }
    let bare_path = key.path.trim_end_matches('/');
    let proper = ["docker.io", "index.docker.io"].contains(&key.host);
    let (difference, reason) = if !proper {
        (Difference::DockerHub, "is not the key of Docker Hub".to_owned())
    } else if scheme.is_some_and(|scheme| !["http", "https"].contains(&scheme)) {
        (Difference::Scheme, "has a scheme that is not http:// or https:// in lower case".to_owned())
    } else if key.port.is_some() {
        (Difference::PortInKey, "has a port, which the key of Docker Hub must not have".to_owned())
    } else if matches!(bare_path, "/v1" | "/v2") {
        (Difference::ApiPath, format!("ends in `{bare_path}` without a slash behind it"))
    } else if !bare_path.is_empty() {
        (Difference::Path, format!("is for another path than `{}`", target.path))
    } else {
        return None;
    };
    let fix = "Use the key `https://index.docker.io/v1/`.".to_owned();
    Some(NearMiss { difference, reason, fix })
}

fn hosts_match(pattern: &str, host: &str) -> bool {
    if pattern.starts_with('[') || host.starts_with('[') {
        return pattern == host;
    }
    pattern.split('.').count() == host.split('.').count()
        && pattern.split('.').zip(host.split('.')).all(|(p, label)| glob::matches(p.as_bytes(), label.as_bytes()))
}

/// Whether one host is below the other. A domain of one label relates nothing.
fn related(key: &str, host: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    let below = |longer: &str, shorter: &str| {
        shorter.contains('.') && longer.strip_suffix(shorter).is_some_and(|rest| rest.ends_with('.'))
    };
    match key.strip_prefix("*.") {
        Some(domain) => domain == host && domain.contains('.') || below(&host, domain),
        None => below(&host, &key) || below(&key, &host),
    }
}

/// The first part of a path, with the slash before it.
fn first_part(path: &str) -> &str {
    let end = path.get(1..).and_then(|rest| rest.find('/')).map_or(path.len(), |at| at + 1);
    &path[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::{Key, Keyring};
    use proptest::prelude::*;

    fn difference(written: &str, image: &str) -> Option<Difference> {
        near_miss(written, image).map(|miss| miss.difference)
    }

    #[test]
    fn near_misses_are_told_apart() {
        for (written, image, wanted) in [
            ("reg.example.com:443", "reg.example.com/a/b", Difference::PortInKey),
            ("https://reg.example.com:443/v2/", "reg.example.com/a/b", Difference::PortInKey),
            ("reg.example.com", "reg.example.com:443/a/b", Difference::PortInImage),
            ("*.example.com", "reg.example.com:443/a/b", Difference::PortInImage),
            ("reg.example.com:80", "reg.example.com:443/a/b", Difference::OtherPort),
            ("reg.example.com:*", "reg.example.com:443/a/b", Difference::PortPattern),
            ("HTTPS://quay.io", "quay.io/a/b", Difference::Scheme),
            ("docker://quay.io", "quay.io/a/b", Difference::Scheme),
            ("Reg.Example.com", "reg.example.com/a", Difference::HostCase),
            ("reg.example.com/v2", "reg.example.com/a", Difference::ApiPath),
            ("reg.example.com/team-a", "reg.example.com/team-b/x", Difference::Path),
            ("reg.example.com/team/*", "reg.example.com/team/x", Difference::PathPattern),
            ("reg.example.com/team/x:1", "reg.example.com/team/x", Difference::TagInPath),
            ("example.com", "reg.example.com/a", Difference::Subdomain),
            ("*.example.com", "a.b.example.com/a", Difference::Subdomain),
            ("*.example.com", "example.com/a", Difference::Subdomain),
            ("[2001:db8::1]", "[2001:db8::1]/a", Difference::Ipv6WithoutPort),
            ("[2001:db8::1]", "[2001:db8::1]:5000/a", Difference::PortInImage),
            ("registry-1.docker.io", "docker.io/library/nginx", Difference::DockerHub),
            ("https://hub.docker.com", "docker.io/library/nginx", Difference::DockerHub),
            ("https://index.docker.io/v1", "docker.io/library/nginx", Difference::ApiPath),
            ("HTTPS://index.docker.io/v1/", "docker.io/library/nginx", Difference::Scheme),
            ("docker.io/acme", "docker.io/library/nginx", Difference::Path),
            ("docker.io:443", "docker.io/library/nginx", Difference::PortInKey),
        ] {
            assert_eq!(difference(written, image), Some(wanted), "{written} for {image}");
            let mut ring = Keyring::default();
            if let Ok(key) = Key::normalise(written) {
                ring.add(key, ());
            }
            assert!(ring.lookup(image).is_empty(), "{written} matches {image}");
        }
    }

    #[test]
    fn unrelated_keys_are_no_near_miss() {
        for written in ["quay.io", "example.org", "com", "*.com", "*", "notexample.com", "index.docker.io", "", "://"] {
            assert_eq!(difference(written, "reg.example.com/a"), None, "{written}");
        }
        assert_eq!(difference("quay.io", "docker.io/library/nginx"), None);
        assert_eq!(difference("111.dkr.ecr.eu-west-1.amazonaws.com", "222.dkr.ecr.eu-west-1.amazonaws.com/a"), None);
    }

    #[test]
    fn the_fix_names_the_key_to_add() {
        let fix = |written, image| near_miss(written, image).unwrap().fix;
        assert_eq!(fix("reg.example.com:443", "reg.example.com/a"), "Add the key `reg.example.com`.");
        assert_eq!(fix("reg.example.com/a", "reg.example.com/b/c"), "Add the key `reg.example.com/b`.");
        assert_eq!(fix("hub.docker.com", "docker.io/a/b"), "Use the key `https://index.docker.io/v1/`.");
    }

    proptest! {
        #[test]
        fn never_panics(written in "\\PC{0,40}", image in "[a-z.:/@\\[\\]é]{0,40}") {
            let _ = near_miss(&written, &image);
        }
    }
}
