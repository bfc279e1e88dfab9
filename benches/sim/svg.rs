//! Line charts, as small as an SVG can be.

use std::fmt::Write as _;

/// One line: a name, and points.
pub struct Line {
    /// What it is.
    pub name: String,
    /// Points, by x.
    pub points: Vec<(f64, f64)>,
}

const COLORS: [&str; 4] = ["#c2410c", "#b58900", "#2563eb", "#15803d"];
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 36.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 44.0;

/// A chart with its axes named.
pub fn chart(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let most = |of: fn(&(f64, f64)) -> f64| lines.iter().flat_map(|line| &line.points).map(of).fold(1.0, f64::max);
    let (x_step, y_step) = (step(most(|p| p.0)), step(most(|p| p.1)));
    let (x_most, y_most) = ((most(|p| p.0) / x_step).ceil() * x_step, (most(|p| p.1) / y_step).ceil() * y_step);
    let x = |value: f64| LEFT + value / x_most * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_most * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"18\" font-size=\"14\" fill=\"#111\">{title}</text>\n"
    );
    for n in 0..=(x_most / x_step).round() as u32 {
        let value = f64::from(n) * x_step;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{value}</text>",
            x(value),
            HEIGHT - BOTTOM + 16.0
        );
    }
    for n in 0..=(y_most / y_step).round() as u32 {
        let value = f64::from(n) * y_step;
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {0:.1}H{1:.1}\" stroke=\"#ddd\"/><text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#444\">{value}</text>",
            y(value),
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value) + 4.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444\">{x_name}</text>\n<text x=\"4\" y=\"{:.1}\" fill=\"#444\">{y_name}</text>",
        WIDTH - RIGHT,
        HEIGHT - 8.0,
        TOP - 6.0
    );
    for (n, (line, color)) in lines.iter().zip(COLORS.iter().cycle()).enumerate() {
        let points = line.points.iter().enumerate().fold(String::new(), |mut points, (n, (px, py))| {
            let _ = write!(points, "{}{:.1} {:.1}", if n == 0 { "M" } else { "L" }, x(*px), y(*py));
            points
        });
        let at = TOP + 14.0 + 16.0 * n as f64;
        let _ = writeln!(
            out,
            "<path d=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.8\"/>\n<text x=\"{:.1}\" y=\"{at:.1}\" text-anchor=\"end\" fill=\"{color}\">{}</text>",
            WIDTH - RIGHT - 8.0,
            line.name
        );
    }
    out + "</svg>\n"
}

/// A round distance of about a sixth.
fn step(most: f64) -> f64 {
    let size = 10f64.powf((most / 6.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|times| times * size).into_iter().find(|step| most / step <= 6.0).unwrap_or(size)
}
