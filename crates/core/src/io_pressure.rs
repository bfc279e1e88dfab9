//! How busy the node's disks are, as the kernel tells it (`/proc/pressure/io`). Pure.

/// Where the kernel tells it. Containers see the node's own.
pub const FILE: &str = "/proc/pressure/io";

/// The share of the last ten seconds in which some task waited for I/O, in percent: `avg10` of the line `some`.
pub fn some_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let figure = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    figure.parse().ok().filter(|figure: &f64| (0.0..=100.0).contains(figure))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_words_are_understood() {
        let text = "some avg10=12.34 avg60=1.00 avg300=0.10 total=42\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(some_avg10(text), Some(12.34));
        for other in
            ["", "full avg10=1.00\n", "some avg60=1.00\n", "some avg10=many\n", "some avg10=NaN\n", "some avg10=101\n"]
        {
            assert_eq!(some_avg10(other), None, "{other}");
        }
    }
}
