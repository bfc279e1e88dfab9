//! Printing data: to stdout, as a table for people, or as JSON or YAML for programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// Prints `data`, or for people what `table` makes of it.
pub fn print<T: Serialize>(format: Format, data: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    write(text(format, data, table)?)
}

/// What is printed.
pub fn text<T: Serialize>(format: Format, data: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table => table(data),
        Format::Json => serde_json::to_string_pretty(data)?,
        Format::Yaml => serde_yaml::to_string(data)?,
    })
}

/// Whether anybody may read more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// As far as is known.
    There,
    /// Whoever read it has seen enough (`| head`).
    Gone,
}

/// Prints a text that is data.
pub fn write(text: String) -> anyhow::Result<()> {
    write_on(text).map(|_| ())
}

/// Prints a text that others follow.
pub fn write_on(mut text: String) -> anyhow::Result<Reader> {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        other => Ok(other.map(|()| Reader::There)?),
    }
}

/// Prints a line for people to stderr.
pub fn note(line: &str) {
    // nobody to tell is no reason to stop
    let _ = writeln!(io::stderr().lock(), "{line}");
}
