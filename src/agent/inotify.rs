//! Waiting for changes of one file, without looking at it over and over.

use std::{
    collections::VecDeque,
    ffi::{CStr, OsStr, OsString},
    io,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Component, Path, PathBuf},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

/// Most links on the way to a file, as the kernel has it.
const MOST_LINKS: usize = 40;
/// Events of other files in a busy folder are read in bunches.
const BUNCH: Duration = Duration::from_millis(50);

/// Watches what decides which file a path names, and whether it changes: the file's own folder, the folder of each link
/// on the way, and every folder on the way itself.
#[derive(Debug)]
pub struct Watch {
    fd: AsyncFd<OwnedFd>,
    /// The names that matter, each in the folder with this watch.
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    watch: i32,
    folder: PathBuf,
    text: OsString,
    is_last: bool,
}

impl Watch {
    /// Begins to watch, with links as they are now: a watch that has told of a change is of no more use.
    pub fn of(path: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that lie about their descriptor, which OwnedFd does not"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        let mut watch = Self { fd, names: Vec::new() };
        let mut left = VecDeque::new();
        prepend(&mut left, &std::path::absolute(path)?);
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = left.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let is_last = left.is_empty();
            let found = next.symlink_metadata();
            let is_link = found.as_ref().is_ok_and(std::fs::Metadata::is_symlink);
            if is_last || is_link || found.is_err() {
                watch.name(&at, name, is_last)?;
            }
            if is_link && links < MOST_LINKS {
                links += 1;
                let target = next.read_link()?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                prepend(&mut left, &target);
            } else if is_last || found.is_err() {
                break;
            } else {
                watch.folder(&next);
                at = next;
            }
        }
        Ok(watch)
    }

    /// A name in a folder. A new file counts when it is complete, so `CREATE` is for links.
    fn name(&mut self, folder: &Path, name: OsString, is_last: bool) -> io::Result<()> {
        let events = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        let events = if is_last { events | WatchFlags::CLOSE_WRITE } else { events };
        let watch = inotify::add_watch(&self.fd, folder, events | WatchFlags::MASK_ADD | WatchFlags::ONLYDIR)?;
        self.names.push(Name { watch, folder: folder.to_owned(), text: name, is_last });
        Ok(())
    }

    /// A folder that may be moved or removed as a whole.
    fn folder(&self, folder: &Path) {
        let events = WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF | WatchFlags::MASK_ADD | WatchFlags::ONLYDIR;
        // one that this user may pass and not read is left to the look that comes anyway
        let _ = inotify::add_watch(&self.fd, folder, events);
    }

    /// Waits until the file may be another, or have other content.
    pub async fn changed(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
            let mut events = inotify::Reader::new(&self.fd, &mut buffer);
            loop {
                match events.next() {
                    Ok(event) if self.matters(event.wd(), event.events(), event.file_name().map(CStr::to_bytes)) => {
                        return Ok(());
                    }
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(e) => return Err(e.into()),
                }
                if events.is_buffer_empty() {
                    break;
                }
            }
            sleep(BUNCH).await;
        }
    }

    fn matters(&self, watch: i32, events: ReadFlags, name: Option<&[u8]>) -> bool {
        // what has no name is about a watched folder itself, or about events that were lost
        let Some(name) = name.map(OsStr::from_bytes) else { return true };
        self.names.iter().filter(|known| known.watch == watch && known.text == name).any(|known| {
            let is_new = events.contains(ReadFlags::CREATE);
            // a new file is told of again when it is closed; a link, and a second name of a file, is not
            let complete = || {
                let found = known.folder.join(name).symlink_metadata();
                found.is_ok_and(|f| !f.is_file() || f.nlink() > 1)
            };
            !is_new || !known.is_last || complete()
        })
    }
}

/// Puts a path's parts in front of what is left.
fn prepend(left: &mut VecDeque<OsString>, path: &Path) {
    let parts: Vec<_> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect();
    for part in parts.into_iter().rev() {
        left.push_front(part);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const WHILE: Duration = Duration::from_millis(200);

    async fn is_told(watch: &Watch) -> bool {
        timeout(SOON, watch.changed()).await.is_ok()
    }

    async fn is_quiet(watch: &Watch) -> bool {
        timeout(WHILE, watch.changed()).await.is_err()
    }

    fn replace(folder: &Path, link: &str, target: &str) {
        symlink(target, folder.join("new")).unwrap();
        fs::rename(folder.join("new"), folder.join(link)).unwrap();
    }

    #[tokio::test]
    async fn every_link_on_the_way_counts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["v1", "v2", "v3"] {
            fs::create_dir_all(at(version).join("deep")).unwrap();
            fs::write(at(version).join("deep/list"), version).unwrap();
        }
        replace(folder.path(), "cur", "v1");
        replace(folder.path(), "outer", folder.path().join("cur").to_str().unwrap());
        let path = at("outer/deep/../deep/list");
        let watch = Watch::of(&path).unwrap();
        assert!(is_quiet(&watch).await);
        replace(folder.path(), "cur", "v2");
        assert!(is_told(&watch).await, "the inner link");
        let watch = Watch::of(&path).unwrap();
        replace(folder.path(), "outer", "v3");
        assert!(is_told(&watch).await, "the outer link");
        let watch = Watch::of(&path).unwrap();
        fs::rename(at("v3"), at("v4")).unwrap();
        assert!(is_told(&watch).await, "a folder on the way was moved");
        let watch = Watch::of(&path).unwrap();
        fs::rename(at("v4"), at("v3")).unwrap();
        assert!(is_told(&watch).await, "and came back");
        let watch = Watch::of(&path).unwrap();
        fs::write(at("v3/deep/list"), "new").unwrap();
        assert!(is_told(&watch).await, "the file behind the links");
    }

    #[tokio::test]
    async fn other_files_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("list"), "").unwrap();
        let watch = Watch::of(&at("list")).unwrap();
        for n in 0..500 {
            fs::write(at(&format!("other-{n}")), "").unwrap();
            fs::remove_file(at(&format!("other-{n}"))).unwrap();
        }
        assert!(is_quiet(&watch).await);
        fs::write(at("list"), "").unwrap();
        assert!(is_told(&watch).await);
    }

    #[tokio::test]
    async fn a_new_file_counts_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let watch = Watch::of(&at("list")).unwrap();
        let mut file = fs::File::create(at("list")).unwrap();
        file.write_all(b"images:\n").unwrap();
        assert!(is_quiet(&watch).await);
        file.write_all(b"  - quay.io/a:1\n").unwrap();
        drop(file);
        assert!(is_told(&watch).await);
        // a second name of a file, and a link, are complete at once
        let watch = Watch::of(&at("other")).unwrap();
        fs::hard_link(at("list"), at("other")).unwrap();
        assert!(is_told(&watch).await);
        let watch = Watch::of(&at("link")).unwrap();
        symlink("list", at("link")).unwrap();
        assert!(is_told(&watch).await);
        let watch = Watch::of(&at("folder/list")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        assert!(is_told(&watch).await);
    }
}
