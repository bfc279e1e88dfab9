//! Which docker config files of a node count: the kubelet's search, or the files that were named.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    docker_config::{self, DecodeError, DockerConfig, Format},
    file::{FileError, Kept, MAX_CONFIG},
    text::shown_path,
};

/// File name of the legacy format.
const LEGACY_NAME: &str = ".dockercfg";
/// File name of the present format.
const CONFIG_NAME: &str = "config.json";

/// Where the kubelet looks. Relative folders count from the working directory.
#[derive(Debug, Clone)]
pub struct SearchFolders {
    /// The kubelet's root folder (`/var/lib/kubelet`).
    pub kubelet_root: PathBuf,
    /// The working directory; empty for that of this process.
    pub working: PathBuf,
    /// The home folder; empty where there is none.
    pub home: PathBuf,
    /// The root of the file system (`/`).
    pub root: PathBuf,
}

impl SearchFolders {
    /// Those of this process, with the given root folder of the kubelet.
    pub fn of_this_process(kubelet_root: PathBuf) -> Self {
        let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        Self { kubelet_root, working: PathBuf::new(), home, root: PathBuf::from("/") }
    }

    /// The files in the order in which the kubelet tries them, each once: every `config.json` before any
    /// `.dockercfg`.
    fn files(&self) -> Vec<PathBuf> {
        let working = if self.working.as_os_str().is_empty() {
            env::current_dir().unwrap_or_default()
        } else {
            self.working.clone()
        };
        let config_folders =
            [self.kubelet_root.clone(), PathBuf::new(), self.home.join(".docker"), self.root.join(".docker")];
        let legacy_folders = [self.kubelet_root.clone(), PathBuf::new(), self.home.clone(), self.root.clone()];
        let config = config_folders.iter().map(|folder| working.join(folder).join(CONFIG_NAME));
        let legacy = legacy_folders.iter().map(|folder| working.join(folder).join(LEGACY_NAME));
        let mut files = Vec::new();
        for file in config.chain(legacy) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }
}

/// The docker configs of a node.
#[derive(Debug, Clone)]
pub enum NodeConfigs {
    /// The first file of the search that can be read; the others do not count.
    Search(SearchFolders),
    /// These files, all of them, in this order.
    Named(Vec<PathBuf>),
}

/// What is kept of each docker config file.
pub type KeptConfigs = Kept<Result<Arc<DockerConfig>, DecodeError>>;

/// Nothing kept yet.
pub fn kept_configs() -> KeptConfigs {
    Kept::new(MAX_CONFIG)
}

impl NodeConfigs {
    /// Reads what changed, and gives the configs that count. A file that cannot be used is one problem, which names
    /// it; in a search an absent file is none, and the next file is tried.
    pub fn read(&self, kept: &mut KeptConfigs, problems: &mut Vec<String>) -> Vec<(PathBuf, Arc<DockerConfig>)> {
        let (files, search) = match self {
            Self::Search(folders) => (folders.files(), true),
            Self::Named(files) => (files.clone(), false),
        };
        let mut found = Vec::new();
        for file in files {
            match read_one(&file, kept) {
                Ok(config) => {
                    problems.extend(config.problems.iter().map(|p| format!("{}: {p}", shown_path(&file))));
                    // the kubelet goes on after a file with a malformed entry; this agent does where nothing else is in it
                    let useless = config.malformed && config.entries.is_empty();
                    found.push((file, config));
                    if search && !useless {
                        break;
                    }
                }
                Err(Unusable::File(FileError::Absent)) if search => {}
                Err(Unusable::File(error)) => problems.push(format!("{}: {error}", shown_path(&file))),
                Err(Unusable::Content(error)) => problems.push(format!("{}: {error}", shown_path(&file))),
            }
        }
        found
    }
}

enum Unusable {
    File(FileError),
    Content(DecodeError),
}

fn read_one(file: &Path, kept: &mut KeptConfigs) -> Result<Arc<DockerConfig>, Unusable> {
    let legacy = file.file_name().is_some_and(|name| name == LEGACY_NAME);
    let format = if legacy { Format::Legacy } else { Format::ConfigJson };
    let decoded = kept.get(file, |text| docker_config::decode(text, format).map(Arc::new)).map_err(Unusable::File)?;
    (*decoded).clone().map_err(Unusable::Content)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node {
        dir: tempfile::TempDir,
        kept: KeptConfigs,
    }

    impl Node {
        fn with(files: &[(&str, &str)]) -> Self {
            let node = Self { dir: tempfile::tempdir().unwrap(), kept: kept_configs() };
            for (name, content) in files {
                let path = node.dir.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            node
        }

        fn folders(&self) -> SearchFolders {
            let at = |name: &str| self.dir.path().join(name);
            SearchFolders { kubelet_root: at("kubelet"), working: at("cwd"), home: at("home"), root: at("") }
        }

        /// User names of what counts, and the problems with the folder's name cut off.
        fn read(&mut self) -> (Vec<String>, Vec<String>) {
            self.read_as(&NodeConfigs::Search(self.folders()))
        }

        fn read_as(&mut self, configs: &NodeConfigs) -> (Vec<String>, Vec<String>) {
            let mut problems = Vec::new();
            let found = configs.read(&mut self.kept, &mut problems);
            let users = found.iter().flat_map(|(_, c)| c.entries.iter().map(|e| e.auth.username.clone())).collect();
            let prefix = format!("{}/", self.dir.path().display());
            (users, problems.iter().map(|p| p.strip_prefix(&prefix).unwrap_or(p).to_owned()).collect())
        }
    }

    fn config(user: &str) -> String {
        format!(r#"{{"auths":{{"r":{{"username":"{user}"}}}}}}"#)
    }

    #[test]
    fn a_file_with_nothing_but_malformed_entries_does_not_stop_the_search() {
        let bad = r#"{"auths":{"r":{"auth":"%"}}}"#;
        let mut node = Node::with(&[("kubelet/config.json", bad), ("home/.docker/config.json", &config("home"))]);
        let (users, problems) = node.read();
        assert_eq!(users, ["home"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let partly = r#"{"auths":{"r":{"auth":"%"},"s":{"username":"root"}}}"#;
        let mut node = Node::with(&[("kubelet/config.json", partly), ("home/.docker/config.json", &config("home"))]);
        assert_eq!(node.read().0, ["root"]);
    }

    #[test]
    fn an_absent_config_is_nothing_wrong() {
        assert_eq!(Node::with(&[]).read(), (vec![], vec![]));
    }

    #[test]
    fn the_first_good_file_wins() {
        let (root, home) = (config("slash"), config("home"));
        let mut node = Node::with(&[("home/.docker/config.json", &home), (".docker/config.json", &root)]);
        assert_eq!(node.read().0, ["home"]);
        std::fs::create_dir_all(node.dir.path().join("kubelet/config.json")).unwrap();
        let (users, problems) = node.read();
        assert_eq!(users, ["home"]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("kubelet/config.json: it is a directory"), "{problems:?}");
    }

    #[test]
    fn a_malformed_file_is_one_problem_and_the_next_counts() {
        let good = config("cwd");
        let mut node = Node::with(&[("kubelet/config.json", "{\"auths\":"), ("cwd/config.json", &good)]);
        let (users, problems) = node.read();
        assert_eq!(users, ["cwd"]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("kubelet/config.json: the JSON breaks off in line 1"), "{problems:?}");
    }

    #[test]
    fn a_change_on_disk_counts_at_the_next_lookup() {
        let (one, two) = (config("one"), config("two"));
        let mut node = Node::with(&[("home/.docker/config.json", &one)]);
        assert_eq!(node.read().0, ["one"]);
        std::fs::write(node.dir.path().join("home/.docker/config.json"), &two).unwrap();
        assert_eq!(node.read().0, ["two"]);
        std::fs::remove_file(node.dir.path().join("home/.docker/config.json")).unwrap();
        assert_eq!(node.read(), (vec![], vec![]));
    }

    #[test]
    fn named_files_all_count_and_must_be_there() {
        let mut node = Node::with(&[("a", &config("a")), (".dockercfg", r#"{"r":{"username":"legacy"}}"#)]);
        let named = |name: &str| node.dir.path().join(name);
        let files = NodeConfigs::Named(vec![named("a"), named("absent"), named(".dockercfg")]);
        let (users, problems) = node.read_as(&files);
        assert_eq!(users, ["a", "legacy"]);
        assert_eq!(problems, ["absent: no such file"]);
    }

    #[test]
    fn a_huge_file_is_one_problem() {
        let mut node = Node::with(&[("a", &" ".repeat(10 << 20)), ("b", &config("b"))]);
        let files = NodeConfigs::Named(vec![node.dir.path().join("a"), node.dir.path().join("b")]);
        let (users, problems) = node.read_as(&files);
        assert_eq!(users, ["b"]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("a: it is larger than 1 MiB"), "{problems:?}");
    }
}
