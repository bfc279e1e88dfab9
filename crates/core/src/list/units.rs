//! Durations, percentages and quantities as Kubernetes writes them.

use std::time::Duration;

/// Why a value with a unit was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError {
    /// What is wrong, one clause.
    pub message: String,
    /// What to write instead.
    pub remedy: &'static str,
}

fn error(message: String, remedy: &'static str) -> UnitError {
    UnitError { message, remedy }
}

/// Longest duration that means anything here. A typing mistake beyond it would only overflow.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// A duration as Go writes it: numbers with the units h, m, s, ms (also us and ns), such as `1h30m`.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    const REMEDY: &str = "write a number with a unit, such as 30s, 10m or 1h30m";
    let bad = || error(format!("`{}` is no duration", shown(text)), REMEDY);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(bad()),
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        let part = Duration::try_from_secs_f64(number * unit).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = after;
    }
    if total > LONGEST {
        return Err(error(format!("`{}` is longer than a year", shown(text)), REMEDY));
    }
    Ok(total)
}

/// A share of the disk, `1%` to `100%`.
pub fn percentage(text: &str) -> Result<u8, UnitError> {
    const REMEDY: &str = "write a whole number from 1 to 100 and a percent sign, such as 80%";
    let bad = || error(format!("`{}` is no percentage", shown(text)), REMEDY);
    let number = text.strip_suffix('%').ok_or_else(bad)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    number.parse::<u8>().ok().filter(|n| (1..=100).contains(n)).ok_or_else(bad)
}

/// A number from 0 to 100, such as the pressure figures of the kernel.
pub fn pressure(text: &str) -> Result<f64, UnitError> {
    text.parse::<f64>().ok().filter(|n| (0.0..=100.0).contains(n)).ok_or_else(|| {
        error(format!("`{}` is no number from 0 to 100", shown(text)), "write a number from 0 to 100, such as 40")
    })
}

/// A quantity of bytes as Kubernetes writes it: `20Gi`, `500M`, `1.5Ti`, or a plain number.
pub fn bytes(text: &str) -> Result<u64, UnitError> {
    const REMEDY: &str = "write a number with a suffix such as 500Mi, 20Gi or 1Ti";
    let bad = || error(format!("`{}` is no quantity of bytes", shown(text)), REMEDY);
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let factor: f64 = match suffix {
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    let total = number * factor;
    if !(total.is_finite() && (0.0..9e18).contains(&total)) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be within u64 just above")]
    Ok(total.round() as u64)
}

/// A duration as it would be written: `1h30m`.
pub fn written_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s"), (u64::from(millis), "ms")];
    let text: Vec<_> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text.concat() }
}

/// A quantity of bytes as it would be written: `20Gi`.
pub fn written_bytes(bytes: u64) -> String {
    let units = [("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = units.iter().find(|(_, shift)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    unit.map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

fn shown(text: &str) -> String {
    super::fields::shown(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let seconds = |text| duration(text).unwrap().as_secs_f64();
        assert!((seconds("1h30m") - 5400.0).abs() < 1e-9);
        assert!((seconds("1.5m") - 90.0).abs() < 1e-9);
        assert!((seconds("250ms") - 0.25).abs() < 1e-9);
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        for bad in ["", "30", "s", "-1s", "1d", "1 h", "1h-30m", "1..5s", "9999999h", "1e3s"] {
            assert!(duration(bad).is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn percentages() {
        assert_eq!(percentage("80%"), Ok(80));
        for bad in ["80", "0%", "101%", "8.5%", "%", "+8%", "-1%", "80 %"] {
            assert!(percentage(bad).is_err(), "{bad:?} was read");
        }
    }

    #[test]
    fn what_is_written_out_is_read_again() {
        for text in ["1h30m", "30s", "1s500ms", "0s", "24h"] {
            assert_eq!(written_duration(duration(text).unwrap()), text);
        }
        for text in ["20Gi", "1536Mi", "1000", "3Ti"] {
            assert_eq!(written_bytes(bytes(text).unwrap()), text);
        }
    }

    #[test]
    fn quantities() {
        assert_eq!(bytes("20Gi"), Ok(20 << 30));
        assert_eq!(bytes("1.5Mi"), Ok(1_572_864));
        assert_eq!(bytes("500M"), Ok(500_000_000));
        assert_eq!(bytes("0"), Ok(0), "nothing at all is a quantity");
        for bad in ["", "Gi", "20GB", "-1Gi", "99999999Pi", "1..2Gi"] {
            assert!(bytes(bad).is_err(), "{bad:?} was read");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,20}|[0-9.]{0,9}(h|m|s|ms|Gi|%){0,3}") {
            let _ = (duration(&text), percentage(&text), bytes(&text), pressure(&text));
        }
    }
}
