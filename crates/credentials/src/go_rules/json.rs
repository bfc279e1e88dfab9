//! What `encoding/json` forgives and `serde_json` does not, and its folding of field names.

use zeroize::Zeroizing;

/// What stands for a `\u` escape that is half of a surrogate pair.
const REPLACEMENT_ESCAPE: &[u8] = b"\\ufffd";
/// `\u` and four digits.
const ESCAPE_LENGTH: usize = 6;

/// A copy that `serde_json` accepts wherever Go would accept the original: a byte that is not UTF-8 and half a surrogate
/// pair become U+FFFD each, as in Go. Text that Go refuses stays refused.
pub fn forgiving(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let broken: usize = text.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    let mut copy = Zeroizing::new(Vec::with_capacity(text.len() + 2 * broken));
    for chunk in text.utf8_chunks() {
        copy.extend_from_slice(chunk.valid().as_bytes());
        for _ in chunk.invalid() {
            copy.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    let mut index = 0;
    while index < copy.len() {
        if copy[index] != b'\\' {
            index += 1;
            continue;
        }
        match surrogate(&copy[index..]) {
            None => index += 2,
            Some(unit) if unit < 0xdc00 && surrogate(&copy[index + ESCAPE_LENGTH..]).is_some_and(|u| u >= 0xdc00) => {
                index += 2 * ESCAPE_LENGTH;
            }
            Some(_) => {
                copy[index..index + ESCAPE_LENGTH].copy_from_slice(REPLACEMENT_ESCAPE);
                index += ESCAPE_LENGTH;
            }
        }
    }
    copy
}

/// The code unit of an escape at the start of the text, if it is one of a surrogate pair.
fn surrogate(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let unit = u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit)
}

/// Whether a field name of the text means the field `name` (lower case, ASCII): Go compares them by Unicode's simple
/// folding, under which two letters outside ASCII also stand for `k` and `s`.
pub fn is_field(written: &str, name: &str) -> bool {
    let folded = |c: char| match c {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    };
    written.chars().map(folded).eq(name.chars())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(json: &[u8]) -> Option<String> {
        serde_json::from_slice(&forgiving(json)).ok()
    }

    #[test]
    fn broken_text_becomes_replacement_characters() {
        assert_eq!(text(b"\"a\xff\xfeb\"").as_deref(), Some("a\u{fffd}\u{fffd}b"));
        assert_eq!(text(br#""\ud800x""#).as_deref(), Some("\u{fffd}x"));
        assert_eq!(text(br#""\udc00\ud83d\ude00""#).as_deref(), Some("\u{fffd}\u{1f600}"));
        assert_eq!(text(br#""\ud800\ud83d\ude00""#).as_deref(), Some("\u{fffd}\u{1f600}"));
        assert_eq!(text(br#""\\ud800""#).as_deref(), Some("\\ud800"));
    }

    #[test]
    fn what_go_refuses_stays_refused() {
        for json in [b"\"\\ud8\"".as_slice(), b"\xff\"\"", b"\"\x01\"", br#""\x""#, br#""\u+123""#, b"\"\\", b""] {
            assert_eq!(text(json), None, "{json:?}");
        }
    }

    #[test]
    fn field_names_are_folded() {
        assert!(is_field("AUTHS", "auths") && is_field("auth\u{17f}", "auths") && is_field("\u{212a}ind", "kind"));
        assert!(!is_field("auth", "auths") && !is_field("authss", "auths") && !is_field("aüths", "auths"));
    }

    proptest! {
        #[test]
        fn never_panics(json in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = forgiving(&json);
        }

        #[test]
        fn never_panics_on_escapes(json in "[\\\\ud8c0f\"]{0,40}") {
            let _ = forgiving(json.as_bytes());
        }

        #[test]
        fn good_json_is_left_alone(value in "\\PC{0,40}") {
            let json = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(text(json.as_bytes()), Some(value));
        }
    }
}
