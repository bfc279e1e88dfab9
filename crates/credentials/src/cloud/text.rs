//! Making one harmless line of what a server says: servers are strangers, and problems end up in logs and on pages.

use secrecy::{ExposeSecret, SecretString};

/// Longest text of a server's that is repeated, in characters.
const MAX_SHOWN: usize = 300;
/// Shorter secrets are not looked for: replacing them would garble ordinary words.
const MIN_SECRET: usize = 6;

/// One bounded line: control characters and those that turn the direction of writing are escaped, the rest beyond 300
/// characters is cut.
pub(super) fn shown(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == MAX_SHOWN {
            line.push('…');
            break;
        }
        if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// The text without any of the secrets: a server may repeat what it was sent.
pub(super) fn scrubbed(text: &str, secrets: &[SecretString]) -> String {
    let mut clean = text.to_owned();
    for secret in secrets {
        let secret = secret.expose_secret();
        if secret.len() >= MIN_SECRET && clean.contains(secret) {
            clean = clean.replace(secret, "[hidden]");
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(shown(" a\nb\u{1b}[2Jc\u{202e}d "), "a\\nb\\u{1b}[2Jc\\u{202e}d");
        assert_eq!(shown(&"x".repeat(5_000)).chars().count(), MAX_SHOWN + 1);
    }

    #[test]
    fn secrets_are_hidden_and_short_ones_left() {
        let secrets = ["hunter2-hunter2".into(), "a".into()];
        assert_eq!(scrubbed("bad token hunter2-hunter2, a", &secrets), "bad token [hidden], a");
    }

    proptest! {
        #[test]
        fn nothing_that_moves_a_cursor_is_left(text in "[\\PC\\pC]{0,400}") {
            let line = shown(&text);
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert!(line.chars().count() <= MAX_SHOWN * 10 + 1);
        }
    }
}
