//! Texts from outside made fit to be shown: of one line, bounded, and without secrets.
//!
//! Registries, plugins and runtimes are not trusted: they may send megabytes, terminal escapes, or the credentials
//! that they were given.

/// Longest text that is shown, in characters.
const MAX_CHARACTERS: usize = 1000;
/// Stands where something was taken out.
const REDACTED: &str = "[redacted]";
/// Shorter texts are no secrets, and would cut up every message.
const SHORTEST_SECRET: usize = 3;

/// Cleans a text: the given secrets, the user part and the query of URLs, and what follows `Bearer` or `Basic` are
/// replaced, control characters are escaped, and the length is bounded.
pub fn clean(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    let mut secrets: Vec<&str> = secrets.iter().copied().filter(|s| s.len() >= SHORTEST_SECRET).collect();
    // the longest first, so that a secret within another one leaves no remains of it
    secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
    for secret in secrets {
        text = text.replace(secret, REDACTED);
    }
    one_line(&without_schemes(&without_url_secrets(&text)))
}

/// The text on one line of bounded length, control characters escaped.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_CHARACTERS));
    for (shown, c) in text.trim().chars().enumerate() {
        if shown == MAX_CHARACTERS {
            out.push('…');
            break;
        }
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() || is_direction_mark(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Marks that turn the direction of text around could make a message read as another one.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Pre-signed addresses carry their right in the query, and addresses may carry a password before the host.
fn without_url_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`')).unwrap_or(after.len());
        let (url, after) = after.split_at(end);
        let host_end = url.find(['/', '?', '#']).unwrap_or(url.len());
        let (authority, path) = url.split_at(host_end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(REDACTED);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        match path.split_once('?') {
            Some((path, _)) => {
                out.push_str(path);
                out.push('?');
                out.push_str(REDACTED);
                // the colon behind an address belongs to the sentence
                if url.ends_with(':') {
                    out.push(':');
                }
            }
            None => out.push_str(path),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What follows the name of an authentication scheme is a secret.
fn without_schemes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut redact_next = false;
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_end();
        // prose follows these words as well: only what looks like a token is taken out
        if redact_next && bare.len() >= 16 && !bare.contains('=') | bare.ends_with('=') {
            out.push_str(REDACTED);
            out.push_str(&word[bare.len()..]);
        } else {
            out.push_str(word);
        }
        let scheme = bare.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        redact_next = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("basic");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_lose_their_secrets_and_nothing_else() {
        assert_eq!(
            clean("Get \"https://s3.example.com/blob?X-Amz-Signature=abc&x=y\": dial tcp 1.2.3.4:443: refused", &[]),
            "Get \"https://s3.example.com/blob?[redacted]\": dial tcp 1.2.3.4:443: refused"
        );
        assert_eq!(clean("https://me:pw@host/v2/: 401", &[]), "https://[redacted]@host/v2/: 401");
        assert_eq!(
            clean("unexpected status from HEAD request to https://h/v2/a/manifests/t?ns=b: 403 Forbidden", &[]),
            "unexpected status from HEAD request to https://h/v2/a/manifests/t?[redacted]: 403 Forbidden"
        );
    }

    #[test]
    fn schemes_lose_their_credentials() {
        assert_eq!(
            clean("sent Authorization: Bearer abcdefghijklmnopqrstuvwxyz ok", &[]),
            "sent Authorization: Bearer [redacted] ok"
        );
        assert_eq!(clean("no basic auth credentials", &[]), "no basic auth credentials");
    }

    #[test]
    fn control_characters_and_length_are_bounded() {
        assert_eq!(clean("a\nb\u{1b}[31mc\u{202e}d", &[]), "a b\\u{1b}[31mc\\u{202e}d");
        assert!(clean(&"x".repeat(1_000_000), &[]).chars().count() <= MAX_CHARACTERS + 1);
    }

    #[test]
    fn a_secret_within_another_leaves_nothing() {
        assert_eq!(clean("pass=hunter2 hunter2-long", &["hunter2", "hunter2-long"]), "pass=[redacted] [redacted]");
    }

    proptest! {
        #[test]
        fn a_secret_never_survives(secret in "[A-Za-z0-9+/]{8,30}", before in "\\PC{0,30}", after in "\\PC{0,30}") {
            let text = clean(&format!("{before}{secret}{after}"), &[&secret]);
            prop_assert!(!text.contains(&secret));
        }

        #[test]
        fn one_line_always(text in "(?s).{0,400}") {
            prop_assert!(!clean(&text, &[]).chars().any(char::is_control));
        }
    }
}
