//! The status of a node for people: as a web page, and as text. Pure.

mod groups;
pub mod html;
pub mod text;

use std::time::Duration;

/// A time as people say it, in its two largest units.
pub(crate) fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, _) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// A number with its thousands apart.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// What a registry's cool-down means now.
fn cooldown(left: Duration) -> String {
    if left.as_secs() == 0 {
        "is tried again with one pull".to_owned()
    } else {
        format!("is left alone for another {}", spoken(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn times_have_two_units_at_most() {
        let said = [0, 59, 60, 200, 3600, 7500, 90_061].map(|s| spoken(Duration::from_secs(s)));
        assert_eq!(said, ["0 s", "59 s", "1 min", "3 min 20 s", "1 h", "2 h 5 min", "25 h 1 min"]);
    }
}
