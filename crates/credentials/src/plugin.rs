//! Kubelet credential provider plugins: programs that are asked for the credentials of an image.
//!
//! `config` says which there are, `protocol` what is said, `cache` what is remembered, and `runner` runs one once. This
//! module joins them for a lookup. The configuration is read anew for each, so that a correction counts at once; while
//! it stays the same, what the plugins answered stays known.

pub mod cache;
pub mod config;
pub mod protocol;
pub mod runner;

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared, join_all},
};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Mutex, time::Instant};
use zeroize::Zeroizing;

use self::{
    cache::{Cache, Logins},
    config::{Provider, TokenUse},
    runner::{Call, Limits, RunError},
};
use super::{
    file::{self, FileError, MAX_CONFIG},
    keyring::pattern_matches,
    text::{shown, shown_path},
};

/// Endings of the files that count in a configuration folder.
const CONFIG_ENDINGS: [&str; 3] = ["json", "yaml", "yml"];

/// Where plugins are configured; the flags are the kubelet's.
#[derive(Debug, Clone)]
pub struct PluginOptions {
    /// `--image-credential-provider-config`: a file, or a folder of `*.json`, `*.yaml` and `*.yml`.
    pub config: PathBuf,
    /// `--image-credential-provider-bin-dir`.
    pub bin_dir: PathBuf,
    /// What one call may take.
    pub limits: Limits,
}

/// What the plugins say about an image.
#[derive(Debug, Default)]
pub struct Answers {
    /// The name of a plugin and what it gave, in the order of the configuration.
    pub logins: Vec<(String, Logins)>,
    /// What went wrong, one line each, naming the plugin or the configuration.
    pub problems: Vec<String>,
    /// Whether any plugin is configured for the image, be it usable or not.
    pub matched: bool,
}

/// Start of the names of Docker credential helpers.
const DOCKER_HELPER_PREFIX: &str = "docker-credential-";
/// The argument that makes a Docker credential helper return a login.
const DOCKER_HELPER_COMMAND: &str = "get";

/// All configured plugins.
pub struct Plugins {
    options: PluginOptions,
    loaded: Mutex<Option<Loaded>>,
}

/// The configuration as it was last read.
struct Loaded {
    hash: [u8; 32],
    plugins: Result<Vec<Arc<Plugin>>, String>,
}

impl Plugins {
    /// Nothing is read before the first lookup.
    pub fn new(options: PluginOptions) -> Self {
        Self { options, loaded: Mutex::new(None) }
    }

    /// Asks every plugin that is configured for the image (`registry/repository`), all at the same time. A bad
    /// configuration is one problem, and no plugin is asked then.
    pub async fn ask(&self, image: &str) -> Answers {
        let plugins = match self.load().await {
            Ok(plugins) => plugins,
            Err(problem) => return Answers { problems: vec![problem], ..Answers::default() },
        };
        let mut answers = Answers::default();
        let mut asked = Vec::new();
        for plugin in &plugins {
            let name = shown(&plugin.provider.name);
            let matched = plugin.provider.match_images.iter().any(|pattern| pattern_matches(pattern, image));
            answers.matched |= matched;
            if let Some(problem) = plugin.problem() {
                answers.problems.push(problem);
            } else if matched && plugin.provider.token == TokenUse::Required {
                answers.problems.push(format!(
                    "plugin {name}: it requires a service account's token, which a pull for the whole node does not \
                     have, so it is not asked; use a pull secret for its images"
                ));
            } else if matched {
                asked.push(async move { (plugin, plugin.ask(image).await) });
            }
        }
        for (plugin, answer) in join_all(asked).await {
            match answer {
                Ok(logins) => answers.logins.push((plugin.provider.name.clone(), logins)),
                Err(problem) => answers.problems.push(problem.to_string()),
            }
        }
        answers
    }

    /// What is wrong with the configuration and the programs, whatever the image. No plugin is run.
    pub async fn problems(&self) -> Vec<String> {
        match self.load().await {
            Ok(plugins) => plugins.iter().filter_map(|plugin| plugin.problem()).collect(),
            Err(problem) => vec![problem],
        }
    }

    async fn load(&self) -> Result<Vec<Arc<Plugin>>, String> {
        let mut loaded = self.loaded.lock().await;
        let files = read_config(&self.options)?;
        let hash = hash(&files);
        match &*loaded {
            Some(loaded) if loaded.hash == hash => loaded.plugins.clone(),
            _ => {
                let plugins = build(&files, &self.options);
                *loaded = Some(Loaded { hash, plugins: plugins.clone() });
                plugins
            }
        }
    }
}

type ConfigFile = (PathBuf, Zeroizing<Vec<u8>>);

/// The configuration's files with their content, in the order in which they are merged.
fn read_config(options: &PluginOptions) -> Result<Vec<ConfigFile>, String> {
    let PluginOptions { config, bin_dir, limits: _ } = options;
    if !bin_dir.is_dir() {
        let bin_dir = shown_path(bin_dir);
        return Err(format!(
            "{bin_dir}: no such folder of credential provider plugins; correct --image-credential-provider-bin-dir"
        ));
    }
    let unreadable = |path: &Path, error: FileError| {
        let advice = if error == FileError::Absent { "; correct --image-credential-provider-config" } else { "" };
        format!("{}: {error}{advice}", shown_path(path))
    };
    let paths = if config.is_dir() {
        let entries = fs::read_dir(config).map_err(|error| unreadable(config, error.into()))?;
        let counts = |entry: &fs::DirEntry| {
            let name = entry.file_name();
            let ending = name.to_str().and_then(|name| name.rsplit_once('.')).map(|(_, ending)| ending);
            ending.is_some_and(|ending| CONFIG_ENDINGS.contains(&ending))
                && !entry.file_type().is_ok_and(|t| t.is_dir())
        };
        let mut paths: Vec<_> = entries.flatten().filter(counts).map(|entry| entry.path()).collect();
        paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
        if paths.is_empty() {
            let config = shown_path(config);
            return Err(format!(
                "{config}: the folder has no *.json, *.yaml or *.yml; write a CredentialProviderConfig into it"
            ));
        }
        paths
    } else {
        vec![config.clone()]
    };
    paths
        .into_iter()
        .map(|path| match file::read(&path, MAX_CONFIG) {
            Ok(text) => Ok((path, text)),
            Err(error) => Err(unreadable(&path, error)),
        })
        .collect()
}

fn hash(files: &[ConfigFile]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for (path, text) in files {
        for part in [path.as_os_str().as_encoded_bytes(), text] {
            hasher.update(part.len().to_be_bytes());
            hasher.update(part);
        }
    }
    hasher.finalize().into()
}

fn build(files: &[ConfigFile], options: &PluginOptions) -> Result<Vec<Arc<Plugin>>, String> {
    let mut providers = Vec::new();
    for (path, text) in files {
        let parsed = config::parse(text);
        providers.extend(parsed.map_err(|error| format!("{}: {error}", shown_path(path)))?);
    }
    config::check_all(&providers).map_err(|error| format!("{}: {error}", shown_path(&options.config)))?;
    let plugin = |provider| Arc::new(Plugin::new(provider, options));
    Ok(providers.into_iter().map(plugin).collect())
}

fn check_binary(binary: &Path) -> Result<(), String> {
    let shown = shown_path(binary);
    match fs::metadata(binary) {
        Err(error) => Err(format!("{shown}: {}; install the plugin there", FileError::from(error))),
        Ok(metadata) if metadata.is_dir() => Err(format!("{shown}: it is a directory; install the plugin there")),
        Ok(metadata) if metadata.permissions().mode() & 0o111 == 0 => {
            Err(format!("{shown}: it is not executable; set its mode to 0755"))
        }
        Ok(_) => Ok(()),
    }
}

type Flight = BoxFuture<'static, Result<Logins, Arc<str>>>;

/// One plugin, with what it answered.
struct Plugin {
    provider: Provider,
    binary: PathBuf,
    limits: Limits,
    cache: Mutex<Cache>,
    /// Calls that are under way, by image. Nobody's any more once nobody waits for it, which also ends the process.
    flights: Mutex<HashMap<String, WeakShared<Flight>>>,
}

impl Plugin {
    fn new(provider: Provider, options: &PluginOptions) -> Self {
        Self {
            binary: options.bin_dir.join(&provider.name),
            provider,
            limits: options.limits,
            cache: Mutex::new(Cache::new(Instant::now().into_std())),
            flights: Mutex::default(),
        }
    }

    /// What is wrong with its program, if anything.
    fn problem(&self) -> Option<String> {
        let clause = check_binary(&self.binary).err()?;
        Some(format!("plugin {}: {clause}", shown(&self.provider.name)))
    }

    /// What is known for the image, or what the plugin says now. Whoever asks about the same image meanwhile gets the
    /// same answer.
    async fn ask(self: &Arc<Self>, image: &str) -> Result<Logins, Arc<str>> {
        let flight = {
            let mut flights = self.flights.lock().await;
            // asked under the lock: a call puts its answer there before it ends
            if let Some(known) = self.cache.lock().await.get(image, Instant::now().into_std()) {
                return Ok(known);
            }
            if let Some(flight) = flights.get(image).and_then(WeakShared::upgrade) {
                flight
            } else {
                flights.retain(|_, flight| flight.upgrade().is_some());
                let (plugin, of) = (Arc::clone(self), image.to_owned());
                let flight: Shared<Flight> = async move { plugin.call(&of).await }.boxed().shared();
                flights.extend(flight.downgrade().map(|weak| (image.to_owned(), weak)));
                flight
            }
        };
        flight.await
    }

    /// What to add to a failure of a program that is a Docker credential helper.
    fn advice(&self) -> &'static str {
        let helper = self.provider.name.starts_with(DOCKER_HELPER_PREFIX)
            || self.provider.args.first().is_some_and(|arg| arg == DOCKER_HELPER_COMMAND);
        if helper {
            ". It looks like a Docker credential helper, whose protocol differs. Fix: configure a kubelet credential \
             provider, such as ecr-credential-provider"
        } else {
            ""
        }
    }

    async fn call(&self, image: &str) -> Result<Logins, Arc<str>> {
        let request = protocol::request(self.provider.api_version, image);
        let call = Call {
            binary: self.binary.clone(),
            args: &self.provider.args,
            env: environment(env::vars_os(), &self.provider),
            stdin: request.as_bytes(),
        };
        let name = shown(&self.provider.name);
        let stdout = runner::run(call, self.limits)
            .await
            .map_err(|error: RunError| Arc::from(format!("plugin {name}: {error}{}", self.advice())))?;
        let response = protocol::response(self.provider.api_version, &stdout)
            .map_err(|error| Arc::from(format!("plugin {name}: {error}{}", self.advice())))?;
        let now = Instant::now().into_std();
        Ok(self.cache.lock().await.put(image, response, self.provider.default_cache_duration, now))
    }
}

/// The environment of a plugin: the variables of this process, then the configured ones. Of equal names the last one
/// counts.
pub fn environment(own: impl Iterator<Item = (OsString, OsString)>, provider: &Provider) -> Vec<(OsString, OsString)> {
    let configured = provider.env.iter().map(|(name, value)| (name.into(), value.expose_secret().into()));
    own.chain(configured).collect()
}
