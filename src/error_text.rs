//! Texts from outside made fit to be shown: of one line, bounded, and without secrets.
//!
//! Registries, plugins and runtimes are not trusted: they may send megabytes, terminal escapes, or the credentials
//! that they were given.

mod known;
mod shapes;

/// Longest text that is shown, in characters.
const MAX_CHARACTERS: usize = 1000;
/// Stands where something was taken out.
const REDACTED: &str = "[redacted]";

/// Cleans a text: the given secrets in every spelling, the user part and the query of URLs, tokens and what stands where
/// secrets stand are replaced, control characters are escaped, and the length is bounded.
pub fn clean(text: &str, secrets: &[&str]) -> String {
    one_line(&shapes::without(&known::without(text, secrets)))
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
            c if c.is_control() || is_unseen(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// Marks that are not seen themselves: they turn the direction of text around, break lines, or tell apart what looks the
/// same, so that a text reads as another one.
fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_and_length_are_bounded() {
        assert_eq!(clean("a\nb\u{1b}[31mc\u{202e}d", &[]), "a b\\u{1b}[31mc\\u{202e}d");
        assert_eq!(one_line("a\u{feff}b\u{2028}c\u{61c}d\u{e0041}"), "a\\u{feff}b\\u{2028}c\\u{61c}d\\u{e0041}");
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
