//! Finds the programs that tests run against.
//!
//! | variable | meaning |
//! |---|---|
//! | `PREPULL_TEST_CONTAINERD_1_7` | folder with `containerd`, its shim and `ctr` of generation 1.7 |
//! | `PREPULL_TEST_CONTAINERD_2_1` | the same of generation 2.1 |
//! | `KUBEBUILDER_ASSETS` | folder with `kube-apiserver` and `etcd`, see `apiserver` |
//! | `PREPULL_TEST_REQUIRE_ALL` | `1`: a part that is missing fails its tests instead of skipping them |
//!
//! The `containerd` in `PATH` is always one of the runtimes, under the generation that it really has.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use super::process;

/// The folders of runtimes that no distribution installs side by side.
const FOLDERS: [(&str, &str); 2] = [("1.7", "PREPULL_TEST_CONTAINERD_1_7"), ("2.1", "PREPULL_TEST_CONTAINERD_2_1")];

/// A part that is not there. Its text is one sentence: what is missing, and how to get it.
#[derive(Debug, Clone)]
pub struct Missing {
    /// Short name of the part, as it stands in the names of tests.
    pub part: String,
    /// The sentence.
    pub sentence: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Missing {}

/// Whether a missing part is a failure.
pub fn require_all() -> bool {
    env::var("PREPULL_TEST_REQUIRE_ALL").is_ok_and(|value| value == "1")
}

/// Whether a part is left out on purpose, by its name in `PREPULL_TEST_LEAVE_OUT` (several with commas): its tests count
/// as ignored, by name, also where everything is required.
pub fn left_out(part: &str) -> bool {
    env::var("PREPULL_TEST_LEAVE_OUT").is_ok_and(|names| names.split(',').any(|name| name == part))
}

/// A containerd that can be started.
#[derive(Debug, Clone)]
pub struct ContainerdPart {
    /// Major and minor version, `1.6`.
    pub generation: String,
    /// The whole version, `1.6.20`.
    pub version: String,
    program: PathBuf,
}

impl ContainerdPart {
    /// The `containerd` in `PATH`.
    pub fn in_path() -> Result<Self, Missing> {
        let program = find("containerd").ok_or_else(|| Missing {
            part: "containerd".to_owned(),
            sentence: "containerd is not installed: run hack/install-parts, or install the package containerd"
                .to_owned(),
        })?;
        Self::of("containerd", program)
    }

    /// The containerd of a folder that an environment variable names.
    fn in_folder(generation: &str, variable: &str) -> Result<Self, Missing> {
        let part = format!("containerd-{generation}");
        let Some(folder) = env::var_os(variable).filter(|folder| !folder.is_empty()) else {
            return Err(Missing {
                part,
                sentence: format!(
                    "containerd {generation} is not here: unpack a release of it and set {variable} to the folder that holds its programs"
                ),
            });
        };
        let program = Path::new(&folder).join("containerd");
        if program.is_file() {
            Self::of(&part, program)
        } else {
            Err(Missing { part, sentence: format!("{variable} is set, but there is no {}", program.display()) })
        }
    }

    fn of(part: &str, program: PathBuf) -> Result<Self, Missing> {
        let missing = |sentence: String| Missing { part: part.to_owned(), sentence };
        if !rustix::process::geteuid().is_root() {
            return Err(missing(format!("{part} needs root, because it mounts layers: run the tests as root")));
        }
        if find("setpriv").is_none() {
            return Err(missing("setpriv is not installed: install the package util-linux".to_owned()));
        }
        let text = Command::new(&program).arg("--version").output().map(|out| out.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let version = text
            .split_whitespace()
            .find_map(version_number)
            .ok_or_else(|| missing(format!("{} does not tell its version, but: {}", program.display(), text.trim())))?;
        let generation = version.split('.').take(2).collect::<Vec<_>>().join(".");
        Ok(Self { generation, version, program })
    }

    /// The runtime's short name, `containerd-1.6`.
    pub fn name(&self) -> String {
        format!("containerd-{}", self.generation)
    }

    /// The daemon.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The debugging client that came with the daemon.
    pub fn ctr(&self) -> PathBuf {
        self.program.with_file_name("ctr")
    }

    /// `PATH` with the daemon's own folder first, so that it finds its own shim.
    pub fn path(&self) -> OsString {
        let own = self.program.parent().map(Path::to_path_buf);
        let rest = env::var_os("PATH").unwrap_or_default();
        env::join_paths(own.into_iter().chain(env::split_paths(&rest))).unwrap_or(rest)
    }

    /// The version of its configuration file.
    pub fn config_version(&self) -> u8 {
        if self.version.starts_with("1.") { 2 } else { 3 }
    }
}

/// All runtimes, the missing ones included, oldest first, each generation once.
pub fn containerds() -> Vec<Result<ContainerdPart, Missing>> {
    let mut all = vec![ContainerdPart::in_path()];
    for (generation, variable) in FOLDERS {
        let found = ContainerdPart::in_folder(generation, variable);
        let real = found.as_ref().map_or(generation, |part| &part.generation);
        let covered = all.iter().flatten().any(|part| part.generation == real);
        if !covered {
            all.push(found);
        }
    }
    all
}

/// The registry that tests pull from.
pub fn docker_registry() -> Result<PathBuf, Missing> {
    find("docker-registry").ok_or_else(|| Missing {
        part: "docker-registry".to_owned(),
        sentence: "docker-registry is not installed: run hack/install-parts, or install the package docker-registry"
            .to_owned(),
    })
}

/// What makes a file system for a disk of a test's own.
pub fn mkfs() -> Result<PathBuf, Missing> {
    find("mkfs.ext4").ok_or_else(|| Missing {
        part: "mkfs.ext4".to_owned(),
        sentence: "mkfs.ext4 is not installed: run hack/install-parts --optional, or install the package e2fsprogs"
            .to_owned(),
    })
}

/// A program in `PATH` or in the folders of system programs, which a user's `PATH` often lacks.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// `1.6.20~ds1` and `v2.1.9` are versions; the package's path and the commit beside them are not.
fn version_number(word: &str) -> Option<String> {
    let word = word.strip_prefix('v').unwrap_or(word);
    let number: String = word.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    (number.split('.').filter(|part| !part.is_empty()).count() >= 3).then_some(number)
}

/// The start of a command for this part's folder of programs, killed with the tests.
pub fn watched(part: &ContainerdPart) -> Command {
    let mut command = process::command(part.program());
    command.env("PATH", part.path());
    command
}
