//! Base64 as `encoding/base64` decodes it: standard alphabet, CR and LF skipped wherever they stand, padding either
//! demanded or refused, and the unused bits of the last character not looked at.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

const PADDED: GeneralPurpose = engine(DecodePaddingMode::RequireCanonical);
const UNPADDED: GeneralPurpose = engine(DecodePaddingMode::RequireNone);

const fn engine(padding: DecodePaddingMode) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(padding).with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(&alphabet::STANDARD, config)
}

/// Decodes text that must carry its padding (Go's `StdEncoding`), as the values under `data` of a Secret do. `None`
/// where it is no such text; what was decoded until then is wiped.
pub fn decode_padded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    decode(&PADDED, text)
}

/// Decodes text that must not carry padding (Go's `RawStdEncoding`).
pub fn decode_unpadded(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    decode(&UNPADDED, text)
}

fn decode(engine: &GeneralPurpose, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut compact = Zeroizing::new(Vec::with_capacity(text.len()));
    compact.extend(text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')));
    // a buffer of full size from the start: a growing one would leave copies of secrets behind
    let mut decoded = Zeroizing::new(vec![0; compact.len() / 4 * 3 + 3]);
    let length = engine.decode_slice(&compact, &mut decoded).ok()?;
    decoded.truncate(length);
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn padded(text: &str) -> Option<Vec<u8>> {
        decode_padded(text).map(|d| d.to_vec())
    }

    fn unpadded(text: &str) -> Option<Vec<u8>> {
        decode_unpadded(text).map(|d| d.to_vec())
    }

    #[test]
    fn padding_is_demanded_or_refused() {
        assert_eq!(padded("Zm9vOmI="), Some(b"foo:b".to_vec()));
        assert_eq!(padded("Zm9vOmI"), None);
        assert_eq!(padded("Zm9vOmI=="), None);
        assert_eq!(unpadded("Zm9vOmI"), Some(b"foo:b".to_vec()));
        assert_eq!(unpadded("Zm9vOmI="), None);
    }

    #[test]
    fn line_ends_are_skipped_and_nothing_else_is() {
        assert_eq!(padded("Zm9v\r\nOmI\n=\n"), Some(b"foo:b".to_vec()));
        assert_eq!(padded("Zm9v OmI="), None);
        assert_eq!(padded("Zm9v\tOmI="), None);
        assert_eq!(padded("_-9v"), None);
    }

    #[test]
    fn spare_bits_are_not_looked_at() {
        assert_eq!(padded("Zm9vOmJ="), Some(b"foo:b".to_vec()));
        assert_eq!(unpadded("Zm9vOmJ"), Some(b"foo:b".to_vec()));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[A-Za-z0-9+/=\\r\\n -]{0,40}") {
            let _ = (padded(&text), unpadded(&text));
        }
    }
}
