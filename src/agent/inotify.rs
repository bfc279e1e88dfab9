//! Waiting for changes in folders, without looking at them over and over.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::{Interest, unix::AsyncFd};

/// Watches some folders for files that appear, change or go.
#[derive(Debug)]
pub struct Folders {
    fd: AsyncFd<OwnedFd>,
}

impl Folders {
    /// Begins with no folder.
    pub fn new() -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that lie about their descriptor, which OwnedFd does not"
        )]
        let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
        Ok(Self { fd })
    }

    /// Adds a folder; one that is watched already changes nothing.
    pub fn add(&self, folder: &Path) -> io::Result<()> {
        // a ConfigMap volume is updated by renaming a link within the folder: MOVED_TO
        let events = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&self.fd, folder, events)?;
        Ok(())
    }

    /// Waits until something happened in any of them. What it was does not matter: the caller reads the file again.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.fd.readable().await?;
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        loop {
            let mut events = inotify::Reader::new(&self.fd, &mut buffer);
            match events.next() {
                Ok(_) => {
                    while !events.is_buffer_empty() {
                        events.next()?;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    ready.clear_ready();
                    return Ok(());
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
