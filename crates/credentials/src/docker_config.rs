//! Docker configs: `config.json` with its `auths`, and the legacy `.dockercfg` that is the bare map.
//!
//! Decoded as the kubelet decodes them, with two differences that are told to users: an entry that cannot be read is
//! a problem and the others count, and `identitytoken` and `registrytoken` are handed on. Pure: no I/O, no clock.

mod shape;

use std::{collections::HashSet, fmt, sync::Arc};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::error::Category;

use self::shape::{Auths, RawEntry, Scalar, TopLevel};
use super::{
    Auth,
    go_rules::{base64, json},
    keyring::Key,
    text::{shown, shown_as_written, shown_key},
};

/// What is wrong with a config of the present format in the place of a legacy one.
const WRAPPED_LEGACY: &str = "its `auths` is not part of the legacy .dockercfg format, so it gives no credentials. Fix: \
     use a config.json, or recreate the Secret with type kubernetes.io/dockerconfigjson";
/// How the problem of a malformed entry ends.
const SKIPPED: &str = "the entry is skipped";
/// Most problems that are told about the entries of one config.
const MAX_PROBLEMS: usize = 20;

/// Which of the two formats a file or Secret has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An object whose field `auths` maps keys to entries.
    ConfigJson,
    /// The map itself (`.dockercfg`).
    Legacy,
}

/// One entry: its key, and what it gives. An entry without user name and password is one all the same.
#[derive(Clone)]
pub struct Entry {
    /// The key, normalised.
    pub key: Key,
    /// The key as written, so that messages can name it. It may hold a password: pass it through
    /// [`super::text::shown_as_written`].
    pub written: Arc<str>,
    /// User name, password and tokens.
    pub auth: Auth,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("key", &self.key).field("auth", &self.auth).finish_non_exhaustive()
    }
}

/// What a config says.
#[derive(Debug, Clone, Default)]
pub struct DockerConfig {
    /// The good entries, in the order of the file; of keys that are spelled the same the last one.
    pub entries: Vec<Entry>,
    /// What is wrong with the others, one clause each, without the name of the file.
    pub problems: Vec<String>,
    /// Whether there is a map of entries at all, be it empty.
    pub has_auths: bool,
    /// Whether an entry was malformed, for which the kubelet would not use the file at all.
    pub malformed: bool,
}

/// Why nothing of a config can be used. Never quotes the config: any of its text may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The text starts with a byte order mark.
    #[error("it starts with a byte order mark, which is not valid JSON. Fix: save it as UTF-8 without BOM")]
    ByteOrderMark,
    /// The text is UTF-16.
    #[error("it is encoded in UTF-16, and JSON must be UTF-8. Fix: save it as UTF-8 without BOM")]
    Utf16,
    /// The text breaks off.
    #[error("the JSON breaks off in line {line}, column {column}; write the file again")]
    Truncated {
        /// Line, from 1.
        line: usize,
        /// Column in bytes.
        column: usize,
    },
    /// The text is no JSON.
    #[error("not valid JSON at line {line}, column {column}; correct it there")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column in bytes.
        column: usize,
    },
    /// The top is no object.
    #[error("a JSON object is wanted, not {0}; write {{\"auths\": {{…}}}}")]
    NotAnObject(&'static str),
    /// `auths` is no object.
    #[error("`auths` must be an object of registries, not {0}")]
    AuthsNotAnObject(&'static str),
}

/// Why the field `auth` of an entry cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthFieldError {
    /// Not base64 by the kubelet's rules.
    #[error("`auth` is not valid base64; encode user:password with the standard alphabet, without spaces")]
    Base64,
    /// No colon in the decoded text.
    #[error("`auth` has no colon once decoded; encode user:password")]
    NoColon,
    /// The decoded text is not UTF-8, which CRI demands.
    #[error("`auth` is not UTF-8 once decoded; encode user:password in UTF-8")]
    NotUtf8,
}

/// Reads a config. `null` is a config without entries, as in the kubelet.
pub fn decode(text: &[u8], format: Format) -> Result<DockerConfig, DecodeError> {
    match text {
        [0xef, 0xbb, 0xbf, ..] => return Err(DecodeError::ByteOrderMark),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{', 0, ..] | [0, b'{', ..] => return Err(DecodeError::Utf16),
        _ => {}
    }
    let text = json::forgiving(text);
    match format {
        Format::ConfigJson => {
            let top: TopLevel = serde_json::from_slice(&text).map_err(|error| position(&error))?;
            if let Some(kind) = top.wrong_kind {
                return Err(DecodeError::NotAnObject(kind));
            }
            let mut config = match top.auths {
                Some(Auths::Wrong(kind)) => return Err(DecodeError::AuthsNotAnObject(kind)),
                Some(Auths::Entries(entries)) => DockerConfig { has_auths: true, ..collect(entries) },
                None => DockerConfig::default(),
            };
            if let Some(key) = top.bare_registry {
                config.problems.push(format!(
                    "key `{}` is outside `auths`: this is the legacy .dockercfg layout. Fix: wrap it in `auths`, or use \
                     type kubernetes.io/dockercfg",
                    shown_as_written(&key)
                ));
            }
            config.problems.extend(top.not_applicable.into_iter().map(not_applicable));
            Ok(config)
        }
        Format::Legacy => match serde_json::from_slice(&text).map_err(|error| position(&error))? {
            Auths::Wrong(kind) => Err(DecodeError::NotAnObject(kind)),
            Auths::Entries(entries) => {
                let wrapped = entries.iter().any(|(written, _)| json::is_field(written, "auths"));
                let mut config = DockerConfig { has_auths: true, ..collect(entries) };
                if wrapped {
                    config.problems.push(WRAPPED_LEGACY.to_owned());
                }
                Ok(config)
            }
        },
    }
}

/// Where the text is wrong. `serde_json`'s own words are left out: they may quote the text.
pub(super) fn position(error: &serde_json::Error) -> DecodeError {
    let (line, column) = (error.line(), error.column());
    match error.classify() {
        Category::Eof => DecodeError::Truncated { line, column },
        Category::Io | Category::Syntax | Category::Data => DecodeError::Syntax { line, column },
    }
}

fn not_applicable(field: &'static str) -> String {
    let instead = match field {
        "HttpHeaders" => "CRI has no field for headers",
        _ => "CRI knows no credential helpers; use a kubelet credential provider plugin or `auths`",
    };
    format!("`{field}` is not applicable over CRI and is ignored: {instead}")
}

fn collect(entries: Vec<(String, RawEntry)>) -> DockerConfig {
    let mut config = DockerConfig::default();
    let mut untold = 0;
    let mut malformed = false;
    let mut good: Vec<(String, Key, Auth)> = Vec::new();
    for (written, raw) in entries {
        let mut tell = |problem: String| {
            if config.problems.len() < MAX_PROBLEMS {
                config.problems.push(format!("entry `{}`: {problem}", shown_key(&written)));
            } else {
                untold += 1;
            }
        };
        let key = Key::normalise(&written).map_err(|error| {
            let port = if written.ends_with(":*") { " (a `*` works only in the host)" } else { "" };
            tell(format!("no registry has this name: {error}{port}; {SKIPPED}"));
        });
        let auth = key.ok().and_then(|key| {
            let auth = entry(raw, &mut tell);
            malformed |= auth.is_none();
            Some((key, auth?))
        });
        good.extend(auth.map(|(key, auth)| (written, key, auth)));
    }
    if untold > 0 {
        config.problems.push(format!("{untold} more problems with its entries"));
    }
    // as in any JSON map, the last of equal keys counts
    let mut seen = HashSet::new();
    config.entries = good
        .into_iter()
        .rev()
        .filter_map(|(written, key, auth)| {
            let entry = Entry { key, written: written.as_str().into(), auth };
            seen.insert(written).then_some(entry)
        })
        .collect();
    config.entries.reverse();
    config.malformed = malformed;
    config
}

/// The credential of an entry, or `None` with a problem told.
fn entry(raw: RawEntry, tell: &mut dyn FnMut(String)) -> Option<Auth> {
    let fields = match raw {
        RawEntry::Wrong(kind) => {
            tell(format!("an object is wanted, not {kind}; {SKIPPED}"));
            return None;
        }
        RawEntry::Fields(fields) => *fields,
    };
    let wrong = [
        ("username", &fields.username),
        ("password", &fields.password),
        ("email", &fields.email),
        ("auth", &fields.auth),
    ]
    .into_iter()
    .find_map(|(name, value)| value.wrong_kind().map(|kind| (name, kind)));
    if let Some((name, kind)) = wrong {
        tell(format!("`{name}` must be a string, not {kind}; {SKIPPED}"));
        return None;
    }
    let (username, password) = match fields.auth.text() {
        Some(field) if !field.is_empty() => match decode_auth(field) {
            Ok(pair) => pair,
            Err(error) => {
                tell(format!("{error}; {SKIPPED}"));
                return None;
            }
        },
        _ => (owned(&fields.username), SecretString::from(owned(&fields.password))),
    };
    if password.expose_secret().ends_with(['\n', '\r']) {
        tell("the password ends with a line break, which is sent too. Fix: encode it with `echo -n`".to_owned());
    }
    let mut token = |name: &str, value: &Scalar| {
        if let Some(kind) = value.wrong_kind() {
            tell(format!("`{}` must be a string, not {kind}; the token is ignored", shown(name)));
        }
        value.text().filter(|text| !text.is_empty()).map(SecretString::from)
    };
    let identity_token = token("identitytoken", &fields.identity_token);
    let registry_token = token("registrytoken", &fields.registry_token);
    Some(Auth { username, password, identity_token, registry_token })
}

fn owned(value: &Scalar) -> String {
    value.text().unwrap_or_default().to_owned()
}

/// User name and password from the field `auth`: base64, padded where the text (spaces around it aside) ends in `=`,
/// unpadded elsewhere; split at the first colon. A line end at the end stays in the password.
pub fn decode_auth(field: &str) -> Result<(String, SecretString), AuthFieldError> {
    let decoded =
        if field.trim().ends_with('=') { base64::decode_padded(field) } else { base64::decode_unpadded(field) };
    let decoded = decoded.ok_or(AuthFieldError::Base64)?;
    let colon = decoded.iter().position(|b| *b == b':').ok_or(AuthFieldError::NoColon)?;
    let text = str::from_utf8(&decoded).map_err(|_| AuthFieldError::NotUtf8)?;
    let (username, password) = (&text[..colon], &text[colon + 1..]);
    Ok((username.to_owned(), SecretString::from(password)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(text: &str) -> DockerConfig {
        decode(text.as_bytes(), Format::ConfigJson).unwrap()
    }

    fn pairs(config: &DockerConfig) -> Vec<(String, String, String)> {
        let pair = |e: &Entry| (e.key.to_string(), e.auth.username.clone(), e.auth.password.expose_secret().to_owned());
        config.entries.iter().map(pair).collect()
    }

    fn triple(key: &str, username: &str, password: &str) -> (String, String, String) {
        (key.to_owned(), username.to_owned(), password.to_owned())
    }

    #[test]
    fn a_malformed_entry_is_one_problem_and_the_others_count() {
        for (entry, clause) in [
            (r#"{"auth":"Zm9vOmJh!"}"#, "`auth` is not valid base64"),
            (r#"{"auth":"Zm9vOmJ"}"#, ""),
            (r#"{"auth":"Zm9vOmJhcg="}"#, "`auth` is not valid base64"),
            (r#"{"auth":"aHVudGVyMg=="}"#, "`auth` has no colon"),
            (r#"{"auth":"Ov8="}"#, "`auth` is not UTF-8"),
            (r#"{"auth":7}"#, "`auth` must be a string, not a number"),
            (r#"{"username":["hunter2"]}"#, "`username` must be a string, not a list"),
            (r#"{"password":{"hunter2":1}}"#, "`password` must be a string, not an object"),
            (r#"{"email":false}"#, "`email` must be a string, not true or false"),
            (r#""hunter2""#, "an object is wanted, not a string"),
        ] {
            let config = config(&format!(r#"{{"auths":{{"bad":{entry},"good":{{"username":"u","password":"p"}}}}}}"#));
            assert!(pairs(&config).contains(&triple("good", "u", "p")), "{entry}");
            let wanted = usize::from(!clause.is_empty());
            assert_eq!(config.problems.len(), wanted, "{entry}: {:?}", config.problems);
            for problem in &config.problems {
                assert!(problem.starts_with("entry `bad`: ") && problem.contains(clause), "{problem}");
                assert!(!problem.contains("hunter2") && !problem.contains("aHVud"), "{problem}");
            }
        }
    }

    #[test]
    fn what_is_no_config_says_where_and_quotes_nothing() {
        for (text, wanted) in [
            (r#"{"auths":{"r":{"password":"hunter2"}"#, "the JSON breaks off in line 1"),
            (r#"{"auths":{"r":{"password":hunter2}}}"#, "not valid JSON at line 1"),
            ("", "the JSON breaks off"),
            (r#"{"auths":{}} hunter2"#, "not valid JSON"),
            (r#""hunter2""#, "a JSON object is wanted, not a string"),
            (r#"{"auths":["hunter2"]}"#, "`auths` must be an object of registries, not a list"),
        ] {
            let error = decode(text.as_bytes(), Format::ConfigJson).unwrap_err().to_string();
            assert!(error.starts_with(wanted) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn encodings_other_than_utf_8_are_named() {
        let text = r#"{"auths":{}}"#;
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in [&little, &big, &[&[0xff, 0xfe][..], &little].concat(), &[&[0xfe, 0xff][..], &big].concat()] {
            assert_eq!(decode(bytes, Format::ConfigJson).unwrap_err(), DecodeError::Utf16);
            assert_eq!(decode(bytes, Format::Legacy).unwrap_err(), DecodeError::Utf16);
        }
        let marked = format!("\u{feff}{text}");
        assert_eq!(decode(marked.as_bytes(), Format::ConfigJson).unwrap_err(), DecodeError::ByteOrderMark);
    }

    #[test]
    fn a_layout_in_the_place_of_the_other_is_named() {
        let bare = config(r#"{"https://my.reg.example:5000":{"auth":"dTpw"}}"#);
        assert!(!bare.has_auths && bare.entries.is_empty());
        assert!(bare.problems[0].starts_with("key `https://my.reg.example:5000` is outside `auths`"));
        let wrapped = decode(br#"{"auths":{"r":{"auth":"dTpw"}}}"#, Format::Legacy).unwrap();
        assert_eq!(wrapped.problems, [WRAPPED_LEGACY]);
        assert!(config(r#"{"plugins":{"a.b":{}},"HttpHeaders":{}}"#).problems.iter().all(|p| !p.contains("outside")));
    }

    #[test]
    fn a_line_break_at_the_end_of_a_password_is_kept_and_named() {
        let config = config(r#"{"auths":{"r":{"auth":"dTpwCg=="}}}"#);
        assert_eq!(pairs(&config), [triple("r", "u", "p\n")]);
        assert!(config.problems[0].contains("`r`: the password ends with a line break"), "{:?}", config.problems);
    }

    #[test]
    fn a_port_that_is_a_pattern_is_named_as_written() {
        let config = config(r#"{"auths":{"reg.example.com:*":{"auth":"dTpw"}}}"#);
        assert!(config.problems[0].starts_with("entry `reg.example.com:*`: "), "{:?}", config.problems);
    }

    #[test]
    fn field_names_fold_and_the_last_value_counts() {
        let config = config(r#"{"AUTHS":{"r":{"UserName":"a","username":"u","username":null,"PASSWORD":"p"}}}"#);
        assert_eq!(pairs(&config), [triple("r", "u", "p")]);
    }

    #[test]
    fn repeated_maps_are_one_and_null_empties() {
        let twice = config(r#"{"auths":{"a":{},"b":{"username":"1"}},"Auths":{"b":{"username":"2"}}}"#);
        assert_eq!(pairs(&twice), [triple("a", "", ""), triple("b", "2", "")]);
        assert!(config(r#"{"auths":{"a":{}},"auths":null}"#).entries.is_empty());
        assert!(config("null").entries.is_empty() && !config("{}").has_auths);
    }

    #[test]
    fn tokens_are_handed_on() {
        let config = config(r#"{"auths":{"r":{"identitytoken":"i","registryToken":"t"},"s":{"identitytoken":1}}}"#);
        let auth = &config.entries[0].auth;
        let exposed = |t: &Option<SecretString>| t.as_ref().map(|t| t.expose_secret().to_owned());
        assert_eq!(exposed(&auth.identity_token).as_deref(), Some("i"));
        assert_eq!(exposed(&auth.registry_token).as_deref(), Some("t"));
        assert_eq!(config.entries.len(), 2);
        assert_eq!(config.problems.len(), 1);
    }

    #[test]
    fn what_cri_cannot_carry_is_told_once_each() {
        let config =
            config(r#"{"HttpHeaders":{"X-Meta":"hunter2"},"credsStore":"x","credsstore":"x","credHelpers":{}}"#);
        assert_eq!(config.problems.len(), 3);
        assert!(config.problems.iter().all(|p| p.contains("not applicable over CRI") && !p.contains("hunter2")));
    }

    #[test]
    fn the_legacy_format_is_the_map_itself() {
        let config = decode(br#"{"r":{"auth":"dTpw"},"x":1}"#, Format::Legacy).unwrap();
        assert_eq!(pairs(&config), [triple("r", "u", "p")]);
        assert_eq!(config.problems.len(), 1);
    }

    #[test]
    fn many_malformed_entries_are_bounded() {
        let entries: Vec<String> = (0..1000).map(|i| format!(r#""k{i}":1"#)).collect();
        let config = config(&format!(r#"{{"auths":{{{}}}}}"#, entries.join(",")));
        assert_eq!(config.problems.len(), MAX_PROBLEMS + 1);
        assert!(config.problems[MAX_PROBLEMS].starts_with("980 more"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[{}\\[\\]\":,a-z0-9\\\\]{0,80}") {
            let _ = decode(text.as_bytes(), Format::ConfigJson);
            let _ = decode(text.as_bytes(), Format::Legacy);
        }

        #[test]
        fn never_panics_on_bytes(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&text, Format::ConfigJson);
        }

        #[test]
        fn never_panics_on_an_auth_field(field in "\\PC{0,40}") {
            let _ = decode_auth(&field);
        }
    }
}
