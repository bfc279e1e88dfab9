//! docs/metrics.md, written from the table that the families are made of.

use std::{env, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, ensure};
use prepull::{
    error_class::ErrorClass,
    image_ref::ImageRef,
    metrics::{
        Metrics,
        families::{self, Family, Kind, Label, Values},
    },
    status::Status,
};

const FILE: &str = "docs/metrics.md";
const BEGINNING: &str = "# Metrics
Every family of `/metrics`, written from the code: `make generated` writes this page again.

Each agent serves its own node's figures on the port 9797. Every family is announced from the start, with the label values
that are known beforehand at 0; series with a registry begin at 0 with the first pull there. Counters begin at 0 with the agent.
What the alerts make of them is in [runbook.md](runbook.md), how to have them scraped in [install.md](install.md#monitoring).
";

/// The file is as the code says; with `INSTA_UPDATE=always` it is written so first.
pub(super) async fn file_is_current((): ()) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let wanted = text()?;
    if env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        fs::write(&path, &wanted)?;
    }
    let found = fs::read_to_string(&path).with_context(|| format!("{FILE} cannot be read"))?;
    ensure!(found == wanted, "{FILE} is not what the code says; `make generated` writes it");
    Ok(())
}

fn text() -> Result<String> {
    let mut metrics = Metrics::new()?;
    let page = metrics.page(&Status::default())?;
    let alone = series(&page);
    metrics.pulling(ImageRef::parse("registry.example.com/a:1")?.registry());
    let a_registry = series(&metrics.page(&Status::default())?) - alone;
    let mut text = BEGINNING.to_owned();
    write!(
        text,
        "\n**How many series.** {alone} on each node, one more for each listed image, and {a_registry} more for each registry that the node pulls\n\
         from: with a hundred images of two registries {}, and a few for each gRPC code that the runtime answers with.\n",
        alone + 100 + 2 * a_registry
    )?;
    for family in families::ALL {
        write_family(&mut text, family)?;
    }
    text.push_str("\n## The classes of failures\nLabel `class` of `prepull_pulls_total`, and what to do about each.\n\n| class | remedy |\n|---|---|\n");
    for class in ErrorClass::ALL {
        writeln!(text, "| `{class}` | {} |", class.remedy())?;
    }
    text.push_str("\n## The process\nUnder the names that every dashboard knows, without labels.\n\n| name | type | what |\n|---|---|---|\n");
    for line in page.lines().filter_map(|line| line.strip_prefix("# HELP process_")) {
        let (name, help) = line.split_once(' ').context("a family without help")?;
        let kind = page.lines().find_map(|l| l.strip_prefix(&format!("# TYPE process_{name} "))).unwrap_or_default();
        writeln!(text, "| `process_{name}` | {kind} | {help} |")?;
    }
    Ok(text)
}

fn series(page: &str) -> usize {
    page.lines().filter(|line| !line.starts_with('#')).count()
}

fn write_family(text: &mut String, family: &Family) -> Result<()> {
    let unit = family.unit().map_or(String::new(), |unit| format!(", {unit}"));
    write!(text, "\n## {}\n{}{unit}. {}\n", family.full_name(), capital(family.kind.as_str()), family.help)?;
    if let Kind::Histogram(buckets) = family.kind {
        let bounds: Vec<_> = buckets.iter().map(ToString::to_string).collect();
        writeln!(text, "\nBuckets up to {} seconds, and `+Inf`.", bounds.join(", "))?;
    }
    if !family.labels.is_empty() {
        text.push_str("\n| label | values |\n|---|---|\n");
    }
    for Label { name, values } in family.labels {
        let values = match values {
            Values::Known(values) => values().iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", "),
            Values::Bounded(words) => (*words).to_owned(),
        };
        writeln!(text, "| `{name}` | {values} |")?;
    }
    Ok(())
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
