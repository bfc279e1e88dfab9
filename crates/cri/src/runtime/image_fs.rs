//! The filesystem of the images: where the runtime says that it is, how full, and how busy the node's disks are.

use std::{io::Read as _, path::Path};

use rustix::io::Errno;
use tonic::Status;

use super::{Runtime, bounded};
use crate::cri::ImageFsInfoRequest;
use prepull_core::{disk_guard::Usage, error_text::one_line, io_pressure::some_avg10};

/// More than the kernel ever writes there.
const PRESSURE_BYTES: u64 = 4096;

impl Runtime {
    /// The folder of the images, of the filesystem that the kubelet too takes for that of the images: the first one.
    pub async fn image_folder(&self) -> Result<String, Status> {
        let mut client = self.images.clone();
        let answer = self.observed("ImageFsInfo", bounded(client.image_fs_info(ImageFsInfoRequest {}))).await?;
        let first = answer.into_inner().image_filesystems.into_iter().next();
        first
            .and_then(|filesystem| filesystem.fs_id)
            .map(|id| id.mountpoint)
            .filter(|folder| folder.starts_with('/'))
            .ok_or_else(|| Status::not_found("the runtime names no image filesystem"))
    }
}

/// How full the filesystem of a folder is. May block where the filesystem hangs.
///
/// The folder of containerd's root is the only one that others than root may see, so where a folder below it may not be
/// entered, the one above it is asked. Where a folder is not there at all nothing is guessed: in a container the folder
/// above it would be on another disk.
pub fn usage(folder: &Path) -> Result<Usage, String> {
    let mut asked = folder;
    loop {
        match rustix::fs::statvfs(asked) {
            Ok(stat) if stat.f_blocks == 0 => {
                return Err(format!("the filesystem of {} does not tell its size", shown(asked)));
            }
            Ok(stat) => {
                let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
                return Ok(Usage {
                    capacity: bytes(stat.f_blocks),
                    available: bytes(stat.f_bavail.min(stat.f_blocks)),
                    inodes: stat.f_files,
                    inodes_free: stat.f_favail.min(stat.f_files),
                });
            }
            Err(Errno::ACCESS) if asked.parent().is_some_and(|above| above.parent().is_some()) => {
                asked = asked.parent().unwrap_or(asked);
            }
            Err(error) => {
                return Err(format!(
                    "{}: {error}; in a pod, mount the folder of the images read-only at the path that it has on the host",
                    shown(folder)
                ));
            }
        }
    }
}

/// The kernel's I/O pressure from a file like `/proc/pressure/io`, in percent.
pub fn io_pressure(file: &Path) -> Result<f64, String> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(PRESSURE_BYTES).read_to_string(&mut text));
    read.map_err(|error| format!("{}: {error}", shown(file)))?;
    some_avg10(&text).ok_or_else(|| format!("{} has no figure `avg10` in a line `some`", shown(file)))
}

fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_is_not_guessed() {
        let folder = tempfile::tempdir().unwrap();
        let there = usage(folder.path()).unwrap();
        assert!(there.capacity > 0 && there.available <= there.capacity, "{there:?}");
        let why = usage(&folder.path().join("elsewhere")).unwrap_err();
        assert!(why.contains("mount the folder"), "{why}");
    }
}
