//! Reading small files that hold credentials: bounded, never blocking, and again only when they changed.

use std::{
    collections::HashMap,
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// Largest docker config that is read, in bytes: as large as a Secret can be.
pub const MAX_CONFIG: u64 = 1 << 20;
/// Largest manifest that is read, in bytes: a Secret of full size in base64, and company.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// A file that was written this recently is read again: its time stamp may not tell a second write from the first.
const TOO_YOUNG: Duration = Duration::from_secs(2);

/// Why a file cannot be used. One clause, lower case; the path is named by the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Nothing is there.
    #[error("no such file")]
    Absent,
    /// A directory stands in its place.
    #[error("it is a directory, and a file is wanted; name the file in it, or remove the directory")]
    Directory,
    /// A device, a pipe or a socket stands in its place.
    #[error("it is no regular file")]
    NotRegular,
    /// It is larger than any such file can sensibly be.
    #[error("it is larger than {} MiB and is not read; remove from it what is not needed here", .0 >> 20)]
    TooLarge(u64),
    /// The system refused.
    #[error("it cannot be read: {0}; check its owner and mode")]
    Io(io::ErrorKind),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // a file on the way to it is as good as nothing: HOME=/dev/null is common
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Absent,
            io::ErrorKind::IsADirectory => Self::Directory,
            kind => Self::Io(kind),
        }
    }
}

/// What tells one content of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Opens a regular file without ever waiting for it, as opening a pipe would.
fn open(path: &Path) -> Result<(File, Metadata), FileError> {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let metadata = file.metadata()?;
    match metadata.file_type() {
        kind if kind.is_file() => Ok((file, metadata)),
        kind if kind.is_dir() => Err(FileError::Directory),
        _ => Err(FileError::NotRegular),
    }
}

/// The whole file, at most `limit` bytes of it.
pub fn read(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let (file, metadata) = open(path)?;
    contents(file, &metadata, limit)
}

fn contents(file: File, metadata: &Metadata, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    if metadata.len() > limit {
        return Err(FileError::TooLarge(limit));
    }
    // room for all of it from the start: a growing buffer would leave copies of secrets behind
    let room = usize::try_from(metadata.len()).map_err(|_| FileError::TooLarge(limit))? + 64;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        return Err(FileError::TooLarge(limit));
    }
    Ok(text)
}

/// What was made of each file, kept until the file changes.
#[derive(Debug)]
pub struct Kept<T> {
    limit: u64,
    files: HashMap<PathBuf, (Stamp, Arc<T>)>,
}

impl<T> Kept<T> {
    /// Nothing is kept yet; files larger than `limit` bytes are refused.
    pub fn new(limit: u64) -> Self {
        Self { limit, files: HashMap::new() }
    }

    /// What `parse` makes of the file as it is now.
    pub fn get(&mut self, path: &Path, parse: impl FnOnce(&[u8]) -> T) -> Result<Arc<T>, FileError> {
        let opened = open(path);
        let (file, metadata) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.files.remove(path);
                return Err(error);
            }
        };
        let stamp = Stamp::of(&metadata);
        if let Some((_, kept)) = self.files.get(path).filter(|(earlier, _)| *earlier == stamp) {
            return Ok(Arc::clone(kept));
        }
        self.files.remove(path);
        let parsed = Arc::new(parse(&contents(file, &metadata, self.limit)?));
        let settled = metadata
            .modified()
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok())
            .is_some_and(|age| age > TOO_YOUNG);
        if settled {
            self.files.insert(path.to_owned(), (stamp, Arc::clone(&parsed)));
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn a_change_counts_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut kept = Kept::new(10);
        assert_eq!(kept.get(&path, text), Err(FileError::Absent));
        for content in ["one", "two", "six"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(kept.get(&path, text).unwrap().as_str(), content);
        }
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "one").unwrap();
        let old = SystemTime::now() - Duration::from_mins(1);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        let mut kept = Kept::new(10);
        kept.get(&path, text).unwrap();
        assert_eq!(kept.get(&path, |_| "read again".to_owned()).unwrap().as_str(), "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(kept.get(&path, text).unwrap().as_str(), "two");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(kept.get(&path, text), Err(FileError::Absent));
    }

    #[test]
    fn what_is_no_small_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), 10), Err(FileError::Directory));
        assert_eq!(read(Path::new("/dev/null"), 10), Err(FileError::NotRegular));
        let large = dir.path().join("large");
        std::fs::write(&large, "12345678901").unwrap();
        assert_eq!(read(&large, 10), Err(FileError::TooLarge(10)));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(read(&pipe, 10), Err(FileError::NotRegular));
    }

    #[test]
    fn a_file_that_reports_no_size_is_bounded_too() {
        assert_eq!(read(Path::new("/proc/self/maps"), 10), Err(FileError::TooLarge(10)));
    }
}
