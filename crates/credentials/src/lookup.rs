//! All credentials for an image, from every source, in the kubelet's order.

use std::{path::PathBuf, sync::Arc};

use futures::future::BoxFuture;
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;

use super::{
    Auth, Credential, Source,
    cloud::{CloudProvider, Clouds, provider_of},
    docker_config::DockerConfig,
    file::{Kept, MAX_MANIFEST},
    keyring::{Key, Keyring},
    near_miss::{MAX_NEAR_MISSES, NearMiss, near_miss},
    node_search::{KeptConfigs, NodeConfigs, kept_configs},
    plugin::{Answers, PluginOptions, Plugins},
    secret::{Secret, SecretError, manifest},
    text::{shown, shown_as_written, shown_key, shown_path},
};
use prepull_core::{error_text, image_ref::ImageRef};

/// The built-in cloud lookups, as this module needs them.
pub trait CloudLookup: Send + Sync {
    /// The cloud whose registry the image is in, from its name alone.
    fn cloud_of(&self, image: &ImageRef) -> Option<&'static str>;

    /// Asks the image's cloud. Bounded in time by itself.
    fn lookup<'a>(&'a self, image: &'a ImageRef) -> BoxFuture<'a, CloudAnswer>;
}

/// What a cloud gives.
#[derive(Debug, Default)]
pub struct CloudAnswer {
    /// Keys as a docker config has them, each with its credential.
    pub entries: Vec<(String, Auth)>,
    /// What went wrong, one line each, naming the cloud.
    pub problems: Vec<String>,
}

impl CloudLookup for Clouds {
    fn cloud_of(&self, image: &ImageRef) -> Option<&'static str> {
        provider_of(image).map(CloudProvider::as_str)
    }

    fn lookup<'a>(&'a self, image: &'a ImageRef) -> BoxFuture<'a, CloudAnswer> {
        Box::pin(async move {
            let answer = Self::lookup(self, image).await;
            CloudAnswer { entries: answer.found, problems: answer.problems }
        })
    }
}

/// Where credentials are looked for.
pub struct Options {
    /// Docker configs of the node.
    pub node_configs: NodeConfigs,
    /// Manifests of Secrets that are tried for every image, in this order.
    pub pull_secret_files: Vec<PathBuf>,
    /// Credential provider plugins, if any are configured.
    pub plugins: Option<PluginOptions>,
    /// The built-in cloud lookups; `None` switches them off.
    pub clouds: Option<Arc<dyn CloudLookup>>,
}

/// What is looked up.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The image.
    pub image: &'a ImageRef,
    /// The Secrets that the entry names, in its order.
    pub pull_secrets: &'a [Secret],
    /// The Secrets that its service account names, in its order.
    pub service_account_secrets: &'a [Secret],
    /// Leaves plugins and clouds out.
    pub offline: bool,
}

/// How asking one kind of source ended, for `prepull_credential_lookups_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// At least one credential.
    Found,
    /// No credential, and nothing was wrong.
    None,
    /// No credential, and something was wrong.
    Error,
}

impl Outcome {
    /// All values, for metrics that show each from the start.
    pub const ALL: [Self; 3] = [Self::Found, Self::None, Self::Error];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::None => "none",
            Self::Error => "error",
        }
    }
}

/// What a lookup found.
#[derive(Debug, Default)]
pub struct Lookup {
    /// The credentials in the order in which they are tried; none means one anonymous pull.
    pub credentials: Vec<Credential>,
    /// What was wrong on the way, one line each, naming its source. No content of any credential.
    pub problems: Vec<String>,
    /// How each kind of source ended that was asked, in [`Source::ALL`]'s order.
    pub outcomes: Vec<(Source, Outcome)>,
    /// Keys that almost match, one line each and at most [`MAX_NEAR_MISSES`]. Empty if any credential matches. They are
    /// part of `problems` too.
    pub near_misses: Vec<String>,
}

/// All sources of credentials on this node.
pub struct Credentials {
    node_configs: NodeConfigs,
    pull_secret_files: Vec<PathBuf>,
    plugins: Option<Plugins>,
    clouds: Option<Arc<dyn CloudLookup>>,
    kept: Mutex<KeptFiles>,
}

struct KeptFiles {
    configs: KeptConfigs,
    manifests: Kept<Manifest>,
}

/// What is kept of a manifest: its Secrets with what they give, and what is wrong with the rest.
#[derive(Debug)]
struct Manifest {
    secrets: Vec<(String, Result<DockerConfig, SecretError>)>,
    problems: Vec<String>,
}

impl Manifest {
    fn parse(text: &[u8]) -> Self {
        let (secrets, problems) = manifest::parse(text);
        Self { secrets: secrets.iter().map(|secret| (secret.origin(), secret.docker_config())).collect(), problems }
    }
}

impl Credentials {
    /// Prepares the sources; nothing is read before the first lookup.
    pub fn new(options: Options) -> Self {
        let Options { node_configs, pull_secret_files, plugins, clouds } = options;
        let kept = KeptFiles { configs: kept_configs(), manifests: Kept::new(MAX_MANIFEST) };
        let plugins = plugins.map(Plugins::new);
        Self { node_configs, pull_secret_files, plugins, clouds, kept: Mutex::new(kept) }
    }

    /// Everything that would be tried for the image. Never fails: what cannot be used is a problem, and the other
    /// sources count. Files are read again where they changed; plugins and clouds are really asked.
    pub async fn lookup(&self, request: Request<'_>) -> Lookup {
        let image = request.image.lookup_key();
        let mut lookup = Lookup::default();
        {
            let mut kept = self.kept.lock().await;
            self.secrets(&request, &mut kept.manifests).finish(&image, &mut lookup);
            self.node(&mut kept.configs).finish(&image, &mut lookup);
        }
        if !request.offline {
            let answers = match &self.plugins {
                Some(plugins) => plugins.ask(&image).await,
                None => Answers::default(),
            };
            let configured = answers.matched;
            exec(answers).finish(&image, &mut lookup);
            if !configured {
                self.cloud(request.image).await.finish(&image, &mut lookup);
            }
        }
        if lookup.credentials.is_empty() {
            lookup.near_misses.truncate(MAX_NEAR_MISSES);
            lookup.problems.extend(lookup.near_misses.iter().cloned());
        } else {
            lookup.near_misses.clear();
        }
        lookup
    }

    /// The cloud that an image's registry belongs to, from its name alone; none where clouds are switched off.
    pub fn cloud_of(&self, image: &ImageRef) -> Option<&'static str> {
        self.clouds.as_ref()?.cloud_of(image)
    }

    /// What is wrong with whole sources, whatever the image: files, manifests and the plugins' configuration.
    pub async fn source_problems(&self) -> Vec<String> {
        let mut lookup = Lookup::default();
        let mut kept = self.kept.lock().await;
        // the problems of a file do not depend on what is looked up in it
        self.secret_files(Ring::default(), &mut kept.manifests).finish("", &mut lookup);
        self.node(&mut kept.configs).finish("", &mut lookup);
        drop(kept);
        if let Some(plugins) = &self.plugins {
            lookup.problems.extend(plugins.problems().await);
        }
        lookup.problems
    }

    /// One keyring of the entry's Secrets, those of `--pull-secret`, and the service account's.
    fn secrets(&self, request: &Request<'_>, kept: &mut Kept<Manifest>) -> Ring {
        let mut ring = Ring::default();
        for secret in request.pull_secrets {
            ring.add_secret(Source::PullSecret, "", &secret.origin(), secret.docker_config().as_ref());
        }
        ring = self.secret_files(ring, kept);
        for secret in request.service_account_secrets {
            ring.add_secret(Source::ServiceAccount, "", &secret.origin(), secret.docker_config().as_ref());
        }
        ring
    }

    /// Adds the Secrets of `--pull-secret`.
    fn secret_files(&self, mut ring: Ring, kept: &mut Kept<Manifest>) -> Ring {
        for file in &self.pull_secret_files {
            let name = shown_path(file);
            match kept.get(file, Manifest::parse) {
                Err(error) => ring.problem(Source::PullSecret, format!("{name}: {error}")),
                Ok(manifest) => {
                    for (origin, config) in &manifest.secrets {
                        ring.add_secret(Source::PullSecret, &format!("{name}: "), origin, config.as_ref());
                    }
                    for problem in &manifest.problems {
                        ring.problem(Source::PullSecret, format!("{name}: {problem}"));
                    }
                }
            }
        }
        ring
    }

    fn node(&self, kept: &mut KeptConfigs) -> Ring {
        let mut ring = Ring::default();
        ring.asked(Source::DockerConfig);
        let mut problems = Vec::new();
        for (file, config) in self.node_configs.read(kept, &mut problems) {
            ring.add(Source::DockerConfig, &shown_path(&file), &config);
        }
        for problem in problems {
            ring.problem(Source::DockerConfig, problem);
        }
        ring
    }

    async fn cloud(&self, image: &ImageRef) -> Ring {
        let mut ring = Ring::default();
        let Some((clouds, cloud)) = self.clouds.as_ref().and_then(|c| Some((c, c.cloud_of(image)?))) else {
            return ring;
        };
        ring.asked(Source::Cloud);
        let answer = clouds.lookup(image).await;
        for (written, auth) in answer.entries {
            ring.add_written(Source::Cloud, cloud, &written, auth);
        }
        for problem in answer.problems {
            // it may hold a server's words, and in them a request that was repeated
            ring.problem(Source::Cloud, error_text::clean(&problem, &[]));
        }
        ring
    }
}

/// One keyring of all plugins.
fn exec(answers: Answers) -> Ring {
    let mut ring = Ring::default();
    if answers.matched {
        ring.asked(Source::ExecPlugin);
    }
    for (plugin, logins) in answers.logins {
        for (written, auth) in logins.iter() {
            ring.add_written(Source::ExecPlugin, &shown(&plugin), written, auth.clone());
        }
    }
    for problem in answers.problems {
        ring.problem(Source::ExecPlugin, problem);
    }
    ring
}

/// One candidate in a keyring.
#[derive(Debug)]
struct Candidate {
    source: Source,
    origin: Arc<str>,
    written: Arc<str>,
    auth: Auth,
}

impl Candidate {
    /// Whether a docker config or Secret gives nothing under its key. It is tried anyway, as the kubelet does.
    fn is_empty(&self) -> bool {
        let Auth { username, password, identity_token, registry_token } = &self.auth;
        matches!(self.source, Source::PullSecret | Source::ServiceAccount | Source::DockerConfig)
            && username.is_empty()
            && password.expose_secret().is_empty()
            && identity_token.is_none()
            && registry_token.is_none()
    }
}

/// The closest near miss of each source, one line each, at most [`MAX_NEAR_MISSES`].
fn near_misses(keys: &Keyring<Candidate>, image: &str) -> Vec<String> {
    let mut closest: Vec<(&Candidate, NearMiss)> = Vec::new();
    for candidate in keys.values().filter(|candidate| candidate.source != Source::Cloud) {
        let Some(miss) = near_miss(&candidate.written, image) else { continue };
        let of_its_source = |(known, _): &&mut (&Candidate, NearMiss)| {
            known.source == candidate.source && known.origin == candidate.origin
        };
        match closest.iter_mut().find(of_its_source) {
            Some(known) => {
                if miss.difference < known.1.difference {
                    *known = (candidate, miss);
                }
            }
            None => {
                if closest.len() < MAX_NEAR_MISSES {
                    closest.push((candidate, miss));
                }
            }
        }
    }
    let line = |(candidate, NearMiss { difference: _, reason, fix }): (&Candidate, NearMiss)| {
        let (source, origin, key) = (candidate.source, &candidate.origin, shown_as_written(&candidate.written));
        format!("{source} {origin}: key `{key}` {}. Fix: {}", shown(&reason), shown(&fix))
    };
    closest.into_iter().map(line).collect()
}

/// A keyring that is being filled, with what went wrong.
#[derive(Debug, Default)]
struct Ring {
    keys: Keyring<Candidate>,
    problems: Vec<(Source, String)>,
    asked: Vec<Source>,
}

impl Ring {
    fn asked(&mut self, source: Source) {
        if !self.asked.contains(&source) {
            self.asked.push(source);
        }
    }

    fn problem(&mut self, source: Source, problem: String) {
        self.asked(source);
        self.problems.push((source, problem));
    }

    fn add(&mut self, source: Source, origin: &str, config: &DockerConfig) {
        self.asked(source);
        let origin: Arc<str> = origin.into();
        for entry in &config.entries {
            let candidate = Candidate {
                source,
                origin: Arc::clone(&origin),
                written: Arc::clone(&entry.written),
                auth: entry.auth.clone(),
            };
            self.keys.add(entry.key.clone(), candidate);
        }
    }

    fn add_secret(&mut self, source: Source, file: &str, origin: &str, config: Result<&DockerConfig, &SecretError>) {
        match config {
            Ok(config) => {
                self.add(source, origin, config);
                for problem in &config.problems {
                    self.problem(source, format!("{file}secret {origin}: {problem}"));
                }
            }
            Err(error) => self.problem(source, format!("{file}secret {origin}: {error}")),
        }
    }

    /// Adds one credential under a key as a plugin or a cloud wrote it.
    fn add_written(&mut self, source: Source, origin: &str, written: &str, auth: Auth) {
        match Key::normalise(written) {
            Ok(key) => self.keys.add(key, Candidate { source, origin: origin.into(), written: written.into(), auth }),
            Err(error) => {
                let key = shown_key(written);
                self.problem(
                    source,
                    format!("{source} {origin}: no registry has the name `{key}`: {error}; it is skipped"),
                );
            }
        }
    }

    /// Looks the image up, and adds what matches to the rest.
    fn finish(self, image: &str, lookup: &mut Lookup) {
        let found = self.keys.lookup(image);
        let mut empty: Vec<(&Arc<str>, String)> = Vec::new();
        for (_, candidate) in found.iter().filter(|(_, candidate)| candidate.is_empty()) {
            if !empty.iter().any(|(origin, _)| *origin == &candidate.origin) {
                let (origin, key) = (&candidate.origin, shown_as_written(&candidate.written));
                let problem = format!(
                    "{} {origin}: key `{key}` has no user name and no password, which may be in a credential helper. Fix: \
                     create the secret with `kubectl create secret docker-registry`",
                    candidate.source
                );
                empty.push((origin, problem));
            }
        }
        lookup.problems.extend(empty.into_iter().map(|(_, problem)| problem));
        if found.is_empty() {
            lookup.near_misses.extend(near_misses(&self.keys, image));
        }
        for source in Source::ALL.into_iter().filter(|source| self.asked.contains(source)) {
            let outcome = if found.iter().any(|(_, candidate)| candidate.source == source) {
                Outcome::Found
            } else if self.problems.iter().any(|(of, _)| *of == source) {
                Outcome::Error
            } else {
                Outcome::None
            };
            lookup.outcomes.push((source, outcome));
        }
        lookup.credentials.extend(found.into_iter().map(|(key, candidate)| Credential {
            source: candidate.source,
            origin: candidate.origin.to_string(),
            pattern: key.to_string(),
            auth: candidate.auth.clone(),
        }));
        lookup.problems.extend(self.problems.into_iter().map(|(_, problem)| problem));
    }
}
