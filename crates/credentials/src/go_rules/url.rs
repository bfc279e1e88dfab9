//! Host and path of a key, as `net/url.Parse` finds them behind `https://`.
//!
//! The kubelet prepends the scheme to every key and to every image before it compares them. What decides is which keys
//! the library refuses, and what it makes of percent-escapes; both are bytes afterwards, because an escape may stand
//! for any byte. Several colons in a host are accepted, as in every kubelet that is built with Go 1.25.

use std::net::Ipv6Addr;

/// Why a key cannot be read as host and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A byte below 32, or 127.
    #[error("it has a control character")]
    ControlCharacter,
    /// A `%` without two hexadecimal digits behind it, or an escape that a host must not have.
    #[error("it has a malformed percent-escape")]
    Escape,
    /// A character that no host has.
    #[error("its host has a character that no host name has")]
    Host,
    /// Something else than digits behind the host's colon.
    #[error("its port is no number")]
    Port,
    /// `[` and `]` around something that is no IPv6 address.
    #[error("its brackets hold no IPv6 address")]
    Brackets,
    /// Something before `@` that cannot be user and password.
    #[error("what stands before its @ is no user name")]
    UserInfo,
}

/// The two parts that matching looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAndPath {
    /// Host with its port, as written, escapes resolved.
    pub host: Vec<u8>,
    /// Path with its leading slash, escapes resolved; empty where there is none.
    pub path: Vec<u8>,
}

/// The part of a URL that an escape stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Host,
    Zone,
    /// Path, fragment, user name or password: any byte may be escaped, and none must be.
    Other,
}

impl HostAndPath {
    /// Reads what stands behind the scheme. User name, query and fragment are checked and dropped.
    pub fn parse(text: &[u8]) -> Result<Self, UrlError> {
        let (text, fragment) = cut(text, b'#');
        if text.iter().any(|b| *b < b' ' || *b == 0x7f) {
            return Err(UrlError::ControlCharacter);
        }
        let (text, _query) = cut(text, b'?');
        let slash = text.iter().position(|b| *b == b'/').unwrap_or(text.len());
        let (authority, path) = text.split_at(slash);
        let host = match authority.iter().rposition(|b| *b == b'@') {
            Some(at) => {
                user_info(&authority[..at])?;
                &authority[at + 1..]
            }
            None => authority,
        };
        unescape(fragment, Part::Other)?;
        Ok(Self { host: self::host(host)?, path: unescape(path, Part::Other)? })
    }

    /// Host name and port apart, by the rules of `net.SplitHostPort`: brackets around an address are dropped where a
    /// port follows them. Where it cannot be split, the whole host stands for the name and the port is empty.
    pub fn name_and_port(&self) -> (&[u8], &[u8]) {
        split_port(&self.host).unwrap_or((&self.host, b""))
    }
}

fn split_port(host: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = host.iter().rposition(|b| *b == b':')?;
    let (name, from_open, from_close) = if host[0] == b'[' {
        let close = host.iter().position(|b| *b == b']')?;
        if close + 1 != colon {
            return None;
        }
        (&host[1..close], 1, close + 1)
    } else {
        if host[..colon].contains(&b':') {
            return None;
        }
        (&host[..colon], 0, 0)
    };
    if host[from_open..].contains(&b'[') || host[from_close..].contains(&b']') {
        return None;
    }
    Some((name, &host[colon + 1..]))
}

fn cut(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    match text.iter().position(|b| *b == at) {
        Some(index) => (&text[..index], &text[index + 1..]),
        None => (text, b""),
    }
}

fn user_info(text: &[u8]) -> Result<(), UrlError> {
    if !text.iter().all(|b| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(b)) {
        return Err(UrlError::UserInfo);
    }
    unescape(text, Part::Other).map(drop)
}

fn host(text: &[u8]) -> Result<Vec<u8>, UrlError> {
    match text.iter().rposition(|b| *b == b'[') {
        Some(0) => bracketed(text),
        Some(_) => Err(UrlError::Brackets),
        None => {
            if let Some(colon) = text.iter().rposition(|b| *b == b':') {
                port(&text[colon..])?;
            }
            unescape(text, Part::Host)
        }
    }
}

/// `[address]` or `[address%25zone]`, and a port.
fn bracketed(text: &[u8]) -> Result<Vec<u8>, UrlError> {
    let close = text.iter().rposition(|b| *b == b']').ok_or(UrlError::Brackets)?;
    let (address, port_part) = (&text[1..close], &text[close + 1..]);
    port(port_part)?;
    let zone = address.windows(3).position(|w| w == b"%25").unwrap_or(address.len());
    let mut inner = unescape(&address[..zone], Part::Host)?;
    inner.extend(unescape(&address[zone..], Part::Zone)?);
    if !is_ipv6(&inner) {
        return Err(UrlError::Brackets);
    }
    Ok([b"[", inner.as_slice(), b"]", port_part].concat())
}

fn is_ipv6(text: &[u8]) -> bool {
    let (address, zone) = match text.iter().position(|b| *b == b'%') {
        Some(percent) => (&text[..percent], Some(&text[percent + 1..])),
        None => (text, None),
    };
    let parsed = str::from_utf8(address).ok().and_then(|a| a.parse::<Ipv6Addr>().ok());
    parsed.is_some() && zone.is_none_or(|z| !z.is_empty())
}

/// Nothing, or a colon with digits, or a colon alone.
fn port(text: &[u8]) -> Result<(), UrlError> {
    match text.split_first() {
        None => Ok(()),
        Some((b':', digits)) if digits.iter().all(u8::is_ascii_digit) => Ok(()),
        Some(_) => Err(UrlError::Port),
    }
}

fn may_stand_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&byte)
}

fn unescape(text: &[u8], part: Part) -> Result<Vec<u8>, UrlError> {
    let mut plain = Vec::with_capacity(text.len());
    let mut left = text;
    while let Some((first, rest)) = left.split_first() {
        if *first != b'%' {
            if part != Part::Other && first.is_ascii() && !may_stand_in_host(*first) {
                return Err(UrlError::Host);
            }
            plain.push(*first);
            left = rest;
            continue;
        }
        let escaped = rest.get(..2).and_then(hex).ok_or(UrlError::Escape)?;
        let allowed = match part {
            Part::Host => escaped >= 0x80 || escaped == b'%',
            Part::Zone => escaped == b'%' || escaped == b' ' || may_stand_in_host(escaped),
            Part::Other => true,
        };
        if !allowed {
            return Err(UrlError::Escape);
        }
        plain.push(escaped);
        left = &rest[2..];
    }
    Ok(plain)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(digits[0])? << 4 | digit(digits[1])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<(String, String), UrlError> {
        let parsed = HostAndPath::parse(text.as_bytes())?;
        let shown = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((shown(parsed.host), shown(parsed.path)))
    }

    fn split(text: &str) -> (String, String) {
        let parsed = HostAndPath { host: text.as_bytes().to_vec(), path: Vec::new() };
        let (name, port) = parsed.name_and_port();
        (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(port).into_owned())
    }

    fn pair(left: &str, right: &str) -> (String, String) {
        (left.to_owned(), right.to_owned())
    }

    #[test]
    fn finds_host_and_path() {
        assert_eq!(parse("r.example.com:5000/team"), Ok(pair("r.example.com:5000", "/team")));
        assert_eq!(parse("u:p@r.example.com/a?q#f"), Ok(pair("r.example.com", "/a")));
        assert_eq!(parse("r?.example.com"), Ok(pair("r", "")));
        assert_eq!(parse(""), Ok(pair("", "")));
        assert_eq!(parse("r/%41%2fb"), Ok(pair("r", "/A/b")));
        assert_eq!(parse("r:/x"), Ok(pair("r:", "/x")));
    }

    #[test]
    fn refuses_what_go_refuses() {
        assert_eq!(parse("*.io:*"), Err(UrlError::Port));
        assert_eq!(parse("ex ample"), Err(UrlError::Host));
        assert_eq!(parse("a%41b"), Err(UrlError::Escape));
        assert_eq!(parse("r/%4"), Err(UrlError::Escape));
        assert_eq!(parse("r/#%zz"), Err(UrlError::Escape));
        assert_eq!(parse("r\n"), Err(UrlError::ControlCharacter));
        assert_eq!(parse("r#\n"), Ok(pair("r", "")));
        assert_eq!(parse("[a-z].example.com"), Err(UrlError::Port));
        assert_eq!(parse("r[a].example.com"), Err(UrlError::Brackets));
        assert_eq!(parse("[1.2.3.4]"), Err(UrlError::Brackets));
        assert_eq!(parse("a b@r"), Err(UrlError::UserInfo));
    }

    #[test]
    fn brackets_hold_ipv6_with_an_optional_zone() {
        assert_eq!(parse("[2001:db8::1]:5000/x"), Ok(pair("[2001:db8::1]:5000", "/x")));
        assert_eq!(parse("[fe80::1%25en0]"), Ok(pair("[fe80::1%en0]", "")));
        assert_eq!(parse("[fe80::1%25]"), Err(UrlError::Brackets));
        assert_eq!(parse("[::1"), Err(UrlError::Brackets));
    }

    #[test]
    fn name_and_port_are_split_as_go_does() {
        assert_eq!(split("r:5000"), pair("r", "5000"));
        assert_eq!(split("r"), pair("r", ""));
        assert_eq!(split("[::1]:5"), pair("::1", "5"));
        assert_eq!(split("[::1]"), pair("[::1]", ""));
        assert_eq!(split("a:b:5"), pair("a:b:5", ""));
        assert_eq!(split("r]:5"), pair("r]:5", ""));
    }

    proptest! {
        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(parsed) = HostAndPath::parse(&text) {
                let _ = parsed.name_and_port();
            }
        }

        #[test]
        fn never_panics_on_what_is_nearly_a_host(text in "[ab:.@%2\\[\\]/#?]{0,20}") {
            if let Ok(parsed) = HostAndPath::parse(text.as_bytes()) {
                let _ = parsed.name_and_port();
            }
        }
    }
}
