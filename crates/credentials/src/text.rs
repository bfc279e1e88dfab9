//! Foreign text in messages: bounded, on one line, and without what might be a secret.

use std::path::Path;

use super::keyring::{Key, without_scheme};

/// Longest piece of foreign text in a message, in characters.
const SHOWN: usize = 120;

/// The text with everything escaped that is not printable, cut behind `limit` characters.
pub fn escaped(text: &str, limit: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(limit.saturating_mul(2)));
    for c in text.chars().take(limit) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            other => shown.extend(other.escape_debug()),
        }
    }
    if text.chars().nth(limit).is_some() {
        shown.push('…');
    }
    shown
}

/// A name for a message: of a plugin, a Secret, a field.
pub fn shown(text: &str) -> String {
    escaped(text, SHOWN)
}

/// A path for a message, whole.
pub fn shown_path(path: &Path) -> String {
    escaped(&path.to_string_lossy(), usize::MAX)
}

/// A key for a message. People write user names and passwords into keys, so one that cannot be read is shown only
/// from its last `@` to the end of what looks like a host.
pub fn shown_key(written: &str) -> String {
    if let Ok(key) = Key::normalise(written) {
        return shown(&key.to_string());
    }
    let behind_user = without_scheme(written).rsplit('@').next().unwrap_or_default();
    // a port that is a pattern holds no password, and is the reason why the key cannot be read
    if let Some(host) = behind_user.strip_suffix(":*") {
        return shown(&format!("{}:*", host.split(['/', ':', '?', '#']).next().unwrap_or_default()));
    }
    shown(behind_user.split(['/', ':', '?', '#']).next().unwrap_or_default())
}

/// A key for a message as it is written, scheme and path included, unless it may hold a password: then as
/// [`shown_key`] gives it.
pub fn shown_as_written(written: &str) -> String {
    if written.contains(['@', '?', '#', '%']) || Key::normalise(written).is_err() {
        shown_key(written)
    } else {
        shown(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_on_its_line() {
        assert_eq!(escaped("a\nb\u{1b}[31m\u{202e}\"", 20), "a\\nb\\u{1b}[31m\\u{202e}\"");
        assert_eq!(escaped("abcdef", 3), "abc…");
        assert_eq!(escaped("abc", 3), "abc");
    }

    #[test]
    fn keys_lose_what_may_be_a_password() {
        assert_eq!(shown_key("https://user:hunter2@r.example.com/team"), "r.example.com/team");
        assert_eq!(shown_key("user:hun ter2@r.example.com/team"), "r.example.com");
        assert_eq!(shown_key("user:hunter2"), "user");
        assert_eq!(shown_key("u:hunter2@r.example.com:*"), "r.example.com:*");
        assert_eq!(shown_as_written("HTTPS://quay.io/v2"), "HTTPS://quay.io/v2");
        assert_eq!(shown_as_written("https://u:hunter2@quay.io/a"), "quay.io/a");
    }
}
