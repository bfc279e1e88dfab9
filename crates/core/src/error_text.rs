//! Texts from outside made fit to be shown: of one line, bounded, and without secrets.
//!
//! Registries, plugins and runtimes are not trusted: they may send megabytes, terminal escapes, or the credentials
//! that they were given.

mod known;
mod shapes;

/// Longest text that is shown, in characters.
const MAX_CHARACTERS: usize = 1000;
/// Bytes of a text that are looked at: an error may have megabytes, and the agent's loop waits while they are read.
const MOST_READ: usize = 64 * 1024;
/// Bytes at the end of a text that was cut which are not shown: a secret that the cut went through stands there.
const UNSURE: usize = 32 * 1024;
/// Stands where something was taken out.
const REDACTED: &str = "[redacted]";

/// Cleans a text: the given secrets in every spelling, the user part and the query of URLs, tokens and what stands where
/// secrets stand are replaced, control characters are escaped, and the length is bounded.
pub fn clean(text: &str, secrets: &[&str]) -> String {
    if text.len() <= MOST_READ {
        return one_line(&shapes::without(&known::without(text, secrets)));
    }
    let read = &text[..text.floor_char_boundary(MOST_READ)];
    let cleaned = shapes::without(&known::without(read, secrets));
    let sure = cleaned.floor_char_boundary(cleaned.len().saturating_sub(UNSURE));
    one_line(&format!("{}…", &cleaned[..sure]))
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
    fn megabytes_are_not_read_and_a_cut_shows_no_half_of_a_secret() {
        let secret = "s3cr3t-".repeat(3000);
        for before in [MOST_READ - UNSURE - 9, MOST_READ - UNSURE, MOST_READ - 9, MOST_READ, 3] {
            // a long run that is taken out brings what stands behind it into sight
            let text =
                format!("Bearer {}{}{secret} {}", "x1".repeat(before / 2), " ".repeat(before % 2), "y".repeat(100_000));
            let cleaned = clean(&text, &[&secret]);
            assert!(!cleaned.contains("s3cr3t"), "{before}: {cleaned}");
        }
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
