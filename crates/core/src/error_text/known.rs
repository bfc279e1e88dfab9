//! Secrets that are known, taken out of a text in whatever spelling it repeats them.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use zeroize::Zeroizing;

use super::REDACTED;

/// Shorter texts are no secrets, and would cut up every message.
const SHORTEST: usize = 3;
/// Texts that stand for one character in HTML.
const ENTITIES: [(&str, u8); 7] = [
    ("&amp;", b'&'),
    ("&lt;", b'<'),
    ("&gt;", b'>'),
    ("&quot;", b'"'),
    ("&#34;", b'"'),
    ("&#39;", b'\''),
    ("&#43;", b'+'),
];

/// The text without the secrets: as they are, in base64 of either alphabet, and each of these also where it is
/// percent-encoded, escaped as in JSON or Go, or written for HTML.
pub(super) fn without(text: &str, secrets: &[&str]) -> String {
    let needles: Vec<Zeroizing<String>> =
        secrets.iter().filter(|secret| secret.len() >= SHORTEST).flat_map(|secret| spellings(secret)).collect();
    if needles.is_empty() {
        return text.to_owned();
    }
    let mut hidden = vec![false; text.len()];
    for decode in [plain, percent, form, escapes, entities] {
        let read = Reading::of(text.as_bytes(), decode);
        for needle in &needles {
            read.mark(needle.as_bytes(), &mut hidden);
        }
    }
    let mut out = Vec::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        if !hidden[at] {
            out.push(byte);
        } else if at == 0 || !hidden[at - 1] {
            out.extend_from_slice(REDACTED.as_bytes());
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// As it is, and in base64. What pads base64 is no part of the secret.
fn spellings(secret: &str) -> [Zeroizing<String>; 3] {
    [secret.to_owned(), STANDARD_NO_PAD.encode(secret), URL_SAFE_NO_PAD.encode(secret)].map(Zeroizing::new)
}

/// The byte that the text begins with once decoded, and how many bytes stand for it; none where it stands for itself.
type Decode = fn(&[u8]) -> Option<(u8, usize)>;

fn plain(_: &[u8]) -> Option<(u8, usize)> {
    None
}

fn percent(text: &[u8]) -> Option<(u8, usize)> {
    let digits = text.strip_prefix(b"%")?.get(..2)?;
    Some((hex(digits)?, 3))
}

fn form(text: &[u8]) -> Option<(u8, usize)> {
    if text.first() == Some(&b'+') { Some((b' ', 1)) } else { percent(text) }
}

fn escapes(text: &[u8]) -> Option<(u8, usize)> {
    let rest = text.strip_prefix(b"\\")?;
    match rest.first()? {
        b'n' => Some((b'\n', 2)),
        b'r' => Some((b'\r', 2)),
        b't' => Some((b'\t', 2)),
        b'x' => Some((hex(rest.get(1..3)?)?, 4)),
        // what JSON and Go escape without need is ASCII
        b'u' => rest.get(1..5)?.strip_prefix(b"00").and_then(hex).filter(u8::is_ascii).map(|byte| (byte, 6)),
        other => Some((*other, 2)),
    }
}

fn entities(text: &[u8]) -> Option<(u8, usize)> {
    ENTITIES
        .iter()
        .find(|(written, _)| text.starts_with(written.as_bytes()))
        .map(|(written, byte)| (*byte, written.len()))
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digits = str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// A text as one of the decodings reads it, with the place of each byte.
struct Reading {
    bytes: Zeroizing<Vec<u8>>,
    /// Where each byte begins in the text as it stands, and at last where that ends.
    places: Vec<usize>,
}

impl Reading {
    fn of(text: &[u8], decode: Decode) -> Self {
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        let mut places = Vec::with_capacity(text.len() + 1);
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            let (byte, length) = decode(&text[at..]).unwrap_or((*byte, 1));
            bytes.push(byte);
            places.push(at);
            at += length;
        }
        places.push(text.len());
        Self { bytes, places }
    }

    /// Marks every place where the needle stands.
    fn mark(&self, needle: &[u8], hidden: &mut [bool]) {
        for (at, found) in self.bytes.windows(needle.len()).enumerate() {
            if found == needle {
                hidden[self.places[at]..self.places[at + needle.len()]].fill(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_spelling_is_found() {
        let secret = "pa\"ss <w>+ö/d?";
        for echo in [
            secret.to_owned(),
            form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
            "pa%22ss%20%3cw%3e%2b%c3%b6%2fd%3f".to_owned(),
            serde_json::to_string(secret).unwrap(),
            "pa\\\"ss \\u003cw\\u003e+ö/d?".to_owned(),
            "pa&quot;ss &lt;w&gt;+ö/d?".to_owned(),
            "cGEic3MgPHc+K8O2L2Q/".to_owned(),
            "cGEic3MgPHc-K8O2L2Q_".to_owned(),
            "cGEic3MgPHc%2BK8O2L2Q%2F".to_owned(),
        ] {
            let shown = without(&format!("before({echo})after"), &[secret]);
            assert!(shown.starts_with("before(") && shown.ends_with(")after"), "{shown}");
            assert_eq!(shown.matches(REDACTED).count(), 1, "{shown}");
            assert!(shown.len() <= "before(\"[redacted]\")after".len(), "{echo}: {shown}");
        }
    }

    #[test]
    fn neighbours_and_overlaps_leave_nothing() {
        assert_eq!(without("hunter2hunter2 hunter2-long", &["hunter2", "hunter2-long"]), "[redacted] [redacted]");
        assert_eq!(without("abcabca", &["abca"]), "[redacted]");
        assert_eq!(without("ab stays, so does \\u12", &["ab"]), "ab stays, so does \\u12");
    }

    proptest! {
        #[test]
        fn nothing_panics_and_no_secret_survives(secret in "\\PC{3,12}", before in "\\PC{0,20}", after in "[%\\\\&+u0-9a-f]{0,12}") {
            let shown = without(&format!("{before}{secret}{after}"), &[&secret]);
            prop_assert!(REDACTED.contains(&secret) || !shown.contains(&secret), "{shown}");
        }
    }
}
