//! Shell patterns as `path/filepath.Match` reads them, for one label of a host name.
//!
//! Labels are bytes: a percent-escape in a key may stand for any. A label never holds a `/`, which the library treats
//! apart, so that rule is not here. A malformed pattern matches nothing.

/// One character of a pattern.
enum Token {
    /// `?`
    Any,
    /// A byte that stands for itself.
    Byte(u8),
    /// `[a-z]` or `[^a-z]`, ranges of code points, both ends included.
    Class { negated: bool, ranges: Vec<(u32, u32)> },
}

/// What stands between two stars, and whether a star stands before it.
struct Chunk {
    after_star: bool,
    tokens: Vec<Token>,
}

/// Whether the whole of `label` matches the pattern.
pub fn matches(pattern: &[u8], label: &[u8]) -> bool {
    let Some(chunks) = chunks(pattern) else { return false };
    let mut left = label;
    for (index, chunk) in chunks.iter().enumerate() {
        let last = index + 1 == chunks.len();
        if chunk.after_star && chunk.tokens.is_empty() {
            return true;
        }
        let skips = if chunk.after_star { left.len() } else { 0 };
        let found = (0..=skips).find_map(|skip| take(&chunk.tokens, &left[skip..]).filter(|t| !last || t.is_empty()));
        match found {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    left.is_empty()
}

/// What is left of the text behind a match at its start.
fn take<'a>(tokens: &[Token], text: &'a [u8]) -> Option<&'a [u8]> {
    let mut left = text;
    for token in tokens {
        match token {
            Token::Byte(byte) => left = left.strip_prefix(&[*byte])?,
            Token::Any => left = rune(left)?.1,
            Token::Class { negated, ranges } => {
                let (found, rest) = rune(left)?;
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&found));
                if inside == *negated {
                    return None;
                }
                left = rest;
            }
        }
    }
    Some(left)
}

/// Splits a pattern at its stars; `None` where it is malformed.
fn chunks(pattern: &[u8]) -> Option<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let mut left = pattern;
    while !left.is_empty() {
        let stars = left.iter().take_while(|b| **b == b'*').count();
        left = &left[stars..];
        let (text, rest) = left.split_at(chunk_end(left));
        chunks.push(Chunk { after_star: stars > 0, tokens: tokens(text)? });
        left = rest;
    }
    Some(chunks)
}

/// Where the next star stands that is neither escaped nor in a class.
fn chunk_end(pattern: &[u8]) -> usize {
    let mut in_class = false;
    let mut index = 0;
    while index < pattern.len() {
        match pattern[index] {
            b'\\' => index += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => return index,
            _ => {}
        }
        index += 1;
    }
    pattern.len()
}

fn tokens(chunk: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut left = chunk;
    while let Some((first, rest)) = left.split_first() {
        left = rest;
        tokens.push(match first {
            b'?' => Token::Any,
            b'[' => {
                let (class, rest) = class(left)?;
                left = rest;
                class
            }
            b'\\' => {
                let (escaped, rest) = left.split_first()?;
                left = rest;
                Token::Byte(*escaped)
            }
            byte => Token::Byte(*byte),
        });
    }
    Some(tokens)
}

/// What stands behind `[`: at least one range, then `]`.
fn class(text: &[u8]) -> Option<(Token, &[u8])> {
    let (negated, mut left) = match text.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let Some(rest) = left.strip_prefix(b"]").filter(|_| !ranges.is_empty()) {
            return Some((Token::Class { negated, ranges }, rest));
        }
        let (low, rest) = class_rune(left)?;
        let (high, rest) = match rest.strip_prefix(b"-") {
            Some(rest) => class_rune(rest)?,
            None => (low, rest),
        };
        ranges.push((low, high));
        left = rest;
    }
}

/// One end of a range; something must stand behind it, the `]` at least.
fn class_rune(text: &[u8]) -> Option<(u32, &[u8])> {
    let text = match text.first()? {
        b'-' | b']' => return None,
        b'\\' => &text[1..],
        _ => text,
    };
    let (found, rest) = rune(text)?;
    let broken = found == u32::from(char::REPLACEMENT_CHARACTER) && text.len() - rest.len() == 1;
    (!broken && !rest.is_empty()).then_some((found, rest))
}

/// The first code point; a byte that begins none counts as U+FFFD.
fn rune(text: &[u8]) -> Option<(u32, &[u8])> {
    let chunk = text.get(..text.len().min(4))?.utf8_chunks().next()?;
    Some(match chunk.valid().chars().next() {
        Some(found) => (u32::from(found), &text[found.len_utf8()..]),
        None => (u32::from(char::REPLACEMENT_CHARACTER), &text[1..]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is(pattern: &str, label: &str) -> bool {
        matches(pattern.as_bytes(), label.as_bytes())
    }

    #[test]
    fn stars_take_any_run() {
        assert!(is("*", "") && is("*", "abc") && is("a*", "a") && is("*c", "abcc") && is("a*b*c", "a1b2bc"));
        assert!(!is("a*b", "abc") && !is("", "a") && is("", "") && is("**a", "xa"));
    }

    #[test]
    fn classes_and_escapes() {
        assert!(is("[a-c]x", "bx") && !is("[^a-c]x", "bx") && is("[^a]", "é") && is("?", "é"));
        assert!(is("\\*", "*") && !is("\\*", "x") && is("[\\]]", "]") && is("[a*]", "*"));
        assert!(is("[::1]", ":") && is("[::1]", "1") && !is("[::1]", "[::1]"));
    }

    #[test]
    fn malformed_patterns_match_nothing() {
        for pattern in ["[", "[]", "[]a]", "[a", "[a-]", "[-a]", "\\", "a[", "[^]", "[\\", "*[", "[a-\\"] {
            for label in ["", "a", "[", "-", "]", pattern] {
                assert!(!is(pattern, label), "{pattern:?} matches {label:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics(pattern in proptest::collection::vec(any::<u8>(), 0..20), label in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = matches(&pattern, &label);
        }

        #[test]
        fn never_panics_on_operators(pattern in "[ab*?\\[\\]^\\\\-]{0,16}", label in "[ab\\]-]{0,8}") {
            let _ = is(&pattern, &label);
        }

        #[test]
        fn a_plain_label_matches_itself(label in "[a-z0-9-]{0,20}") {
            prop_assert!(is(&label, &label));
        }
    }
}
