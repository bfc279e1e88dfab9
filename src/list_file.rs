//! A list's file as text: the one reader for every command. [`read`] reads files only, never hangs, and is bounded;
//! [`read_once`] also waits for standard input and pipes.

use std::{
    fs::{FileType, OpenOptions},
    io::{ErrorKind, Read as _},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

use crate::list::MAX_LIST_BYTES;

/// The file's text, or in one line why there is none and what to do.
pub fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let opened = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => format!("the list {shown} does not exist"),
        ErrorKind::PermissionDenied => format!("the list {shown} may not be read by this user"),
        _ => format!("the list {shown} cannot be opened: {e}"),
    };
    // asked before it is opened, because opening some devices does something, and after, because it may be another then
    refuse_other_kinds(path, std::fs::metadata(path).map_err(opened)?.file_type())?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path).map_err(opened)?;
    refuse_other_kinds(path, file.metadata().map_err(opened)?.file_type())?;
    text_of(file, &shown.to_string())
}

/// The text of a file, of standard input (`-`) or of a pipe such as `<(…)`, which may take as long as its writer takes; or
/// in one line why there is none and what to do. For commands that a person or a script runs once.
pub fn read_once(path: &Path) -> Result<String, String> {
    if path.as_os_str() == "-" {
        return text_of(std::io::stdin().lock(), "on standard input");
    }
    let is_pipe = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    if !is_pipe {
        return read(path);
    }
    let shown = path.display().to_string();
    let pipe = std::fs::File::open(path).map_err(|e| format!("the list {shown} cannot be opened: {e}"))?;
    text_of(pipe, &shown)
}

fn text_of(input: impl std::io::Read, shown: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let most = MAX_LIST_BYTES as u64 + 1;
    input.take(most).read_to_end(&mut bytes).map_err(|e| format!("the list {shown} cannot be read: {e}"))?;
    if bytes.len() > MAX_LIST_BYTES {
        return Err(format!("the list {shown} has more than {MAX_LIST_BYTES} bytes; split it into several lists"));
    }
    String::from_utf8(bytes).map_err(|error| match error.as_bytes() {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => format!("the list {shown} is UTF-16 text; save it as UTF-8"),
        _ => format!("the list {shown} is not UTF-8 text; save it as UTF-8"),
    })
}

fn refuse_other_kinds(path: &Path, kind: FileType) -> Result<(), String> {
    let other = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(format!("the list {} is {other}, not a file; name a file that has the list", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_without_hanging() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::fs::write(at("latin"), [b'#', 0xff]).unwrap();
        std::fs::write(at("wide"), [0xff, 0xfe, b'#', 0]).unwrap();
        std::fs::write(at("large"), vec![b'#'; MAX_LIST_BYTES + 1]).unwrap();
        std::fs::write(at("list"), "images: []\n").unwrap();
        for (path, why) in [
            (at("pipe"), "is a pipe, not a file"),
            (at("socket"), "is a socket, not a file"),
            (folder.path().to_owned(), "is a folder, not a file"),
            ("/dev/zero".into(), "is a device, not a file"),
            (at("absent"), "does not exist"),
            (at("latin"), "is not UTF-8 text"),
            (at("wide"), "is UTF-16 text"),
            (at("large"), "has more than 4194304 bytes"),
        ] {
            let told = read(&path).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        assert_eq!(read(&at("list")).unwrap(), "images: []\n");
    }
}
