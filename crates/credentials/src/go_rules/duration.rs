//! Durations as `time.ParseDuration` reads them (`5m0s`, `1.5h`, `-1m`, `0`).

use std::time::Duration;

/// A duration that may be negative, in whole nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

impl GoDuration {
    /// Reads the text: an optional sign, then decimal numbers with a unit each (`ns`, `us`, `µs`, `ms`, `s`, `m`,
    /// `h`), or a bare `0`. `None` for anything else, and for what does not fit in 64 bits of nanoseconds.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if unsigned == "0" {
            return Some(Self(0));
        }
        if unsigned.is_empty() {
            return None;
        }
        let mut rest = unsigned;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (nanoseconds, after) = part(rest)?;
            // one more than the largest is still good for a negative duration
            total = total.checked_add(nanoseconds).filter(|t| *t <= 1 << 63)?;
            rest = after;
        }
        let value = if negative { 0i64.checked_sub_unsigned(total)? } else { i64::try_from(total).ok()? };
        Some(Self(value))
    }

    /// Whether it is exactly zero.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// The duration, or `None` where it is below zero.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

/// One number with its unit, in nanoseconds, and what follows.
fn part(text: &str) -> Option<(u64, &str)> {
    let (whole, after) = digits(text);
    let (fraction, after) = match after.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", after),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let (unit, rest) = after.split_at(end);
    let unit: u64 = match unit {
        "ns" => 1,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let mut number: u64 = 0;
    for digit in whole.bytes() {
        number = number.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|n| *n <= 1 << 63)?;
    }
    let nanoseconds = number.checked_mul(unit).filter(|n| *n <= 1 << 63)?;
    Some((nanoseconds.checked_add(fraction_of(unit, fraction)).filter(|n| *n <= 1 << 63)?, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Go counts a fraction in a 64-bit integer, drops the digits that do not fit, and scales it as a float.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a fraction of a unit is below 2^63")]
fn fraction_of(unit: u64, digits: &str) -> u64 {
    let (mut value, mut scale) = (0u64, 1f64);
    for digit in digits.bytes() {
        let Some(next) =
            value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0'))).filter(|v| *v < 1 << 63)
        else {
            break;
        };
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_go_reads() {
        let seconds = |text| GoDuration::parse(text).and_then(GoDuration::to_std).map(|d| d.as_secs_f64());
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("+0"), Some(0.0));
        assert_eq!(seconds("5m0s"), Some(300.0));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds(".5s"), Some(0.5));
        assert_eq!(seconds("1.s"), Some(1.0));
        assert_eq!(seconds("100\u{b5}s"), Some(0.0001));
        assert_eq!(seconds("2562047h47m16.854775807s"), Some(9_223_372_036.854_776));
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in ["", "-", "5", "5 m", " 5m", "m", ".s", "5d", "1e3s", "2562048h", "--1m", "0x1s", "\u{b5}"] {
            assert_eq!(GoDuration::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn negative_durations_are_durations() {
        let minute = GoDuration::parse("-1m").unwrap();
        assert!(minute.is_negative() && !minute.is_zero());
        assert_eq!(minute.to_std(), None);
        assert!(GoDuration::parse("-9223372036854775808ns").unwrap().is_negative());
        assert_eq!(GoDuration::parse("9223372036854775808ns"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+]?[0-9.nuµmshd]{0,30}") {
            let _ = GoDuration::parse(&text);
        }

        #[test]
        fn never_panics_on_any_text(text in "\\PC{0,20}") {
            let _ = GoDuration::parse(&text);
        }
    }
}
