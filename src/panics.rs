//! The last words of a panic: where it was, on stderr and where the kubelet looks for the reason of a container's end.
//! Then the process ends, whichever task panicked: a keeper without its link, or a link without its keeper, would only
//! look alive.

use std::{
    any::Any,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    panic::{Location, PanicHookInfo},
    path::Path,
    sync::OnceLock,
};

use rustix::fs::OFlags;

use crate::error_text::one_line;

/// Where the kubelet reads why a container ended (`terminationMessagePath`, by default). It makes the file, writable
/// for every user, and mounts it by itself, so a read-only root does not matter.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
/// Rust's own exit status of a panic.
const STATUS: i32 = 101;

/// Where last words go beside stderr.
static LAST_WORDS: OnceLock<&'static Path> = OnceLock::new();

/// From now on a panic in any thread is told in one line on stderr, and ends the process.
///
/// The process exits instead of aborting: as process 1 of a container an abort would be told as SIGSEGV, and a core
/// file would have secrets in it.
pub fn end_the_process() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let line = line_of(panic.payload(), panic.location());
        // nobody may read stderr any more, and no log file may take a line: the end comes all the same
        let _ = writeln!(std::io::stderr(), "{line}");
        if let Some(path) = LAST_WORDS.get() {
            let _ = write(path, &line);
        }
        std::process::exit(STATUS);
    }));
}

/// Writes the line of a panic into this file too, where it exists.
pub fn tell_in(path: &'static Path) {
    // whoever said it first is right: there is one process and one kubelet
    let _ = LAST_WORDS.set(path);
}

/// The line. A text that was put together at the moment of the panic may have anything in it that came from outside,
/// a password as well, so only one that stands in the program is shown.
fn line_of(payload: &(dyn Any + Send), location: Option<&Location<'_>>) -> String {
    let place = location.map_or_else(|| "a place that is not known".to_owned(), ToString::to_string);
    let text =
        payload.downcast_ref::<&'static str>().map_or("its text may have foreign parts and is left out", |text| text);
    one_line(&format!(
        "prepull {} ({}) panicked at {place}: {text}; this is a defect of prepull: please report this line",
        env!("CARGO_PKG_VERSION"),
        env!("PREPULL_REVISION"),
    ))
}

/// Replaces what the file has. It is not made: where it is not, nobody reads it.
fn write(path: &Path, line: &str) -> std::io::Result<()> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = OpenOptions::new().write(true).truncate(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    file.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_of_the_program_is_shown() {
        let here = Location::caller();
        let shown = line_of(&"this cannot be", Some(here));
        assert!(shown.contains("this cannot be") && shown.contains("src/panics.rs:"), "{shown}");
        let put_together = format!("inside of `{}`", "canary");
        let shown = line_of(&put_together, Some(here));
        assert!(!shown.contains("canary") && shown.contains("src/panics.rs:"), "{shown}");
        let shown = line_of(&"two\nlines \u{1b}[31m", None);
        assert!(!shown.chars().any(char::is_control), "{shown}");
    }

    #[test]
    fn last_words_replace_what_was_there_and_make_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("termination-log");
        assert!(write(&path, "words").is_err() && !path.exists());
        std::fs::write(&path, "of an earlier end, and longer").unwrap();
        write(&path, "words").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "words");
    }
}
