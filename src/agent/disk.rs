//! Looks at the disk and its load, when the keeper asks: one look at a time, and never a loop that waits for a disk that
//! hangs.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::{
    disk_guard::{REMEMBERED, Usage},
    error_text::one_line,
    runtime::{Runtime, code_name, image_fs},
};

/// A disk that says nothing for so long hangs: what can be known without it decides.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one look saw.
#[derive(Debug)]
struct Seen {
    /// Of which connection the runtime was asked.
    connection: u64,
    /// The folder that the runtime named.
    folder: Option<String>,
    usage: Result<Usage, String>,
}

/// What is known now.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) usage: Option<Usage>,
    pub(super) io_pressure: Option<f64>,
    /// What cannot be seen, where that is new.
    pub(super) problems: Vec<String>,
}

/// What can be unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Usage,
    IoPressure,
}

/// The looks of one keeper.
#[derive(Debug)]
pub(super) struct Disk {
    /// Where the kernel tells the I/O pressure.
    pressure_file: PathBuf,
    /// Whether it is to be read.
    wants_pressure: bool,
    /// Connections to the runtime that have ended: what was asked of an earlier one is not of this one's disk.
    connection: u64,
    /// Where the runtime keeps images; none until it was asked.
    folder: Option<String>,
    /// Whether the usage was ever seen.
    was_seen: bool,
    looks: JoinSet<Seen>,
    /// When the running look counts as hung.
    late_at: Option<Instant>,
    /// The running one hangs.
    hangs: bool,
    /// Something happened that the running one may have missed: look again.
    again: Option<Runtime>,
    /// What was said.
    said: HashMap<Part, String>,
}

impl Disk {
    /// Nothing seen yet.
    pub(super) fn new(pressure_file: PathBuf) -> Self {
        Self {
            pressure_file,
            wants_pressure: false,
            connection: 0,
            folder: None,
            was_seen: false,
            looks: JoinSet::new(),
            late_at: None,
            hangs: false,
            again: None,
            said: HashMap::new(),
        }
    }

    /// Waits until a look has ended, or hangs. Never, where none is under way. Dropping the future loses nothing.
    pub(super) async fn news(&mut self) -> Measured {
        loop {
            let late = self.late_at;
            tokio::select! {
                Some(ended) = self.looks.join_next() => {
                    self.late_at = None;
                    self.hangs = false;
                    let seen = ended.unwrap_or_else(|error| Seen {
                        connection: self.connection,
                        folder: None,
                        usage: Err(format!("it cannot be looked at: {error}")),
                    });
                    let is_old = seen.connection != self.connection;
                    if let Some(runtime) = self.again.take() {
                        self.begin(&runtime);
                    }
                    if is_old {
                        continue;
                    }
                    self.folder = seen.folder;
                    return self.told(seen.usage);
                }
                () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                    self.late_at = None;
                    self.hangs = true;
                    return self.told(Err(format!("it gives no answer within {} s", PATIENCE.as_secs())));
                }
                else => std::future::pending().await,
            }
        }
    }

    /// Begins a look, and at the I/O pressure where that matters; the running one is followed by another.
    pub(super) fn measure(&mut self, runtime: &Runtime, io_pressure: bool) {
        self.wants_pressure = io_pressure;
        self.begin(runtime);
    }

    fn begin(&mut self, runtime: &Runtime) {
        if self.hangs {
            // no second one behind it: the answer is at once that there is none
            self.late_at = Some(Instant::now());
        } else if self.looks.is_empty() {
            self.late_at = Some(Instant::now() + PATIENCE);
            self.looks.spawn(look(runtime.clone(), self.folder.clone(), self.connection));
        } else {
            self.again = Some(runtime.clone());
        }
    }

    /// The runtime went away: the next one may keep its images elsewhere.
    pub(super) fn unlinked(&mut self) {
        self.connection += 1;
        self.folder = None;
        self.again = None;
    }

    fn told(&mut self, usage: Result<Usage, String>) -> Measured {
        self.was_seen |= usage.is_ok();
        let usage = usage.map_err(|why| {
            let counts = if self.was_seen {
                format!("what was seen last counts for {} min, and then ", REMEMBERED.as_secs() / 60)
            } else {
                String::new()
            };
            format!("how full the image filesystem is cannot be seen, so {counts}maxDiskUsage has no effect: {why}")
        });
        let mut problems = Vec::new();
        let usage = self.say(Part::Usage, usage, &mut problems);
        // the kernel tells it without a disk, so it is known though the disk hangs, and is as new as the answer
        let io_pressure = self.wants_pressure.then(|| image_fs::io_pressure(&self.pressure_file));
        let io_pressure = io_pressure.and_then(|seen| {
            let seen = seen
                .map_err(|why| format!("how busy the disks are cannot be seen, so maxIOPressure has no effect: {why}"));
            self.say(Part::IoPressure, seen, &mut problems)
        });
        Measured { usage, io_pressure, problems }
    }

    /// What there is to know; what is wrong is a problem where it was not said before.
    fn say<T>(&mut self, part: Part, seen: Result<T, String>, problems: &mut Vec<String>) -> Option<T> {
        match seen {
            Ok(value) => {
                self.said.remove(&part);
                Some(value)
            }
            Err(why) => {
                if self.said.get(&part) != Some(&why) {
                    problems.push(why.clone());
                    self.said.insert(part, why);
                }
                None
            }
        }
    }
}

async fn look(runtime: Runtime, folder: Option<String>, connection: u64) -> Seen {
    let folder = match folder {
        Some(folder) => Ok(folder),
        None => runtime.image_folder().await.map_err(|status| {
            format!("the runtime does not say where it is: {}: {}", code_name(&status), one_line(status.message()))
        }),
    };
    let usage = match folder.clone() {
        Ok(folder) => blocking(move || image_fs::usage(Path::new(&folder))).await,
        Err(why) => Err(why),
    };
    Seen { connection, folder: folder.ok(), usage }
}

/// A disk that hangs must not hold up the loop.
async fn blocking<T: Send + 'static>(look: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    spawn_blocking(look).await.unwrap_or_else(|error| Err(error.to_string()))
}
