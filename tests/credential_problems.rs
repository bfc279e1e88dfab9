//! Bad input: each gives one clear problem that names its source, the other credentials are still found, nothing hangs,
//! and nothing secret is told.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use prepull::{
    credentials::{
        Source,
        lookup::{Credentials, Lookup, Options, Outcome, Request},
        node_search::NodeConfigs,
        plugin::{PluginOptions, runner::Limits},
    },
    image_ref::ImageRef,
};

/// Stands for every secret; must never be told.
const CANARY: &str = "hunter2";
const GOOD: &str = r#"{"auths":{"r.example.com":{"username":"good","password":"hunter2"}}}"#;
const GOOD_SECRET: &str = r#"
kind: Secret
metadata: {name: good, namespace: ns}
type: kubernetes.io/dockerconfigjson
stringData: {.dockerconfigjson: '{"auths":{"r.example.com":{"username":"secret","password":"hunter2"}}}'}
"#;

struct Node {
    dir: tempfile::TempDir,
    configs: Vec<PathBuf>,
    pull_secrets: Vec<PathBuf>,
    limits: Limits,
    plugins: Vec<String>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        let limits = Limits { time: Duration::from_secs(5), ..Limits::default() };
        Self { dir, configs: Vec::new(), pull_secrets: Vec::new(), limits, plugins: Vec::new() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&mut self, name: &str, content: &[u8]) -> &mut Self {
        std::fs::write(self.at(name), content).unwrap();
        self.configs.push(self.at(name));
        self
    }

    fn pull_secret(&mut self, name: &str, content: &str) -> &mut Self {
        std::fs::write(self.at(name), content).unwrap();
        self.pull_secrets.push(self.at(name));
        self
    }

    fn plugin(&mut self, name: &str, script: &str) -> &mut Self {
        let path = self.at("bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.plugins.push(name.to_owned());
        self
    }

    fn options(&self) -> Options {
        let provider = |name: &String| {
            format!(
                "- {{name: {name}, matchImages: [r.example.com], defaultCacheDuration: 1h, \
                 apiVersion: credentialprovider.kubelet.k8s.io/v1}}\n"
            )
        };
        let providers: String = self.plugins.iter().map(provider).collect();
        let header = "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n";
        let config = self.at("plugins.yaml");
        std::fs::write(&config, format!("{header}{providers}")).unwrap();
        let plugins = PluginOptions { config, bin_dir: self.at("bin"), limits: self.limits };
        Options {
            node_configs: NodeConfigs::Named(self.configs.clone()),
            pull_secret_files: self.pull_secrets.clone(),
            plugins: (!self.plugins.is_empty()).then_some(plugins),
            clouds: None,
        }
    }

    async fn lookup(&self) -> Lookup {
        let lookup = lookup(&Credentials::new(self.options())).await;
        let shown = lookup.problems.join("\n");
        assert!(!shown.contains(CANARY) && !format!("{lookup:?}").contains(CANARY), "{shown}");
        lookup
    }

    /// The one problem, with the folder's name cut off, and who would be tried.
    async fn only_problem(&self) -> (String, Vec<String>) {
        let lookup = self.lookup().await;
        assert_eq!(lookup.problems.len(), 1, "{:?}", lookup.problems);
        let problem = lookup.problems[0].replace(&format!("{}/", self.dir.path().display()), "");
        assert!(!problem.contains('\n'));
        (problem, users(&lookup))
    }
}

async fn lookup(credentials: &Credentials) -> Lookup {
    let image = ImageRef::parse("r.example.com/team/app:1").unwrap();
    let request = Request { image: &image, pull_secrets: &[], service_account_secrets: &[], offline: false };
    credentials.lookup(request).await
}

fn users(lookup: &Lookup) -> Vec<String> {
    lookup.credentials.iter().map(|credential| credential.auth.username.clone()).collect()
}

fn answer(user: &str) -> String {
    format!(
        r#"echo '{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Image","auth":{{"r.example.com":{{"username":"{user}","password":"{CANARY}"}}}}}}'"#
    )
}

#[tokio::test]
async fn bad_docker_configs() {
    let large = format!(r#"{{"auths":{{"x":{{"password":"{}"}}}}}}"#, CANARY.repeat(10 << 17));
    assert!(large.len() > 8 << 20);
    for (content, wanted) in [
        (r#"{"auths":{"bad":{"auth":"aHVudGVyMjpodW50ZXI"}}}"#, ""),
        (r#"{"auths":{"bad":{"auth":"aHVudGVyMjpodW50ZXIy="}}}"#, "bad: entry `bad`: `auth` is not valid base64"),
        (r#"{"auths":{"bad":{"auth":"aHVudGVyMg=="}}}"#, "bad: entry `bad`: `auth` has no colon"),
        (r#"{"auths":{"bad":{"username":["hunter2"]}}}"#, "bad: entry `bad`: `username` must be a string, not a list"),
        (r#"{"auths":"hunter2"}"#, "bad: `auths` must be an object of registries, not a string"),
        (r#"["hunter2"]"#, "bad: a JSON object is wanted, not a list"),
        (r#"{"auths":{"bad":{"password":"hunter2"#, "bad: the JSON breaks off in line 1"),
        (r#"{"auths":{"u:hunter2@x y":{}}}"#, "bad: entry `x y`: no registry has this name: its host"),
        (&large, "bad: it is larger than 1 MiB"),
    ] {
        let mut node = Node::new();
        node.config("bad", content.as_bytes()).config("good", GOOD.as_bytes());
        if wanted.is_empty() {
            // cut at a place where it is still base64: nothing can tell that
            assert_eq!(users(&node.lookup().await), ["good"]);
            continue;
        }
        let (problem, users) = node.only_problem().await;
        assert!(problem.starts_with(wanted), "{problem}");
        assert_eq!(users, ["good"], "{problem}");
    }
}

#[tokio::test]
async fn a_directory_or_nothing_in_place_of_a_file() {
    let mut node = Node::new();
    std::fs::create_dir(node.at("folder")).unwrap();
    node.configs.push(node.at("folder"));
    node.config("good", GOOD.as_bytes());
    let (problem, who) = node.only_problem().await;
    assert!(problem.starts_with("folder: it is a directory"), "{problem}");
    assert_eq!(who, ["good"]);

    node.configs.remove(0);
    node.pull_secrets.push(node.at("absent"));
    let (problem, who) = node.only_problem().await;
    assert_eq!(problem, "absent: no such file");
    assert_eq!(who, ["good"]);
}

#[tokio::test]
async fn bad_pull_secrets() {
    let secret =
        |secret_type: &str, data: &str| format!("kind: Secret\nmetadata: {{name: bad}}\ntype: {secret_type}\n{data}\n");
    let (json, legacy) = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg");
    for (content, wanted) in [
        (secret("Opaque", "stringData: {.dockerconfigjson: hunter2}"), "bad: secret bad: its type is `Opaque`"),
        (secret(json, "stringData: {.dockercfg: hunter2}"), "bad: secret bad: it has no key `.dockerconfigjson`"),
        (secret(legacy, "data: {.dockercfg: ''}"), "bad: secret bad: its key `.dockercfg` is empty"),
        (
            secret(json, "data: {.dockerconfigjson: hunter2}"),
            "bad: secret bad: `data` key `.dockerconfigjson` is not valid base64",
        ),
        (
            secret(json, "stringData: {.dockerconfigjson: hunter2}"),
            "bad: secret bad: its key `.dockerconfigjson` holds no docker config: not valid JSON",
        ),
        (
            secret(json, r#"stringData: {.dockerconfigjson: '{"auths":{"x":{"auth":"hunter!2"}}}'}"#),
            "bad: secret bad: entry `x`: `auth` is not valid base64",
        ),
        ("hunter2: [".to_owned(), "bad: not valid YAML or JSON"),
        ("kind: ConfigMap".to_owned(), "bad: an object of kind `ConfigMap` is no Secret"),
    ] {
        let mut node = Node::new();
        node.pull_secret("bad", &content).pull_secret("good", GOOD_SECRET).config("config", GOOD.as_bytes());
        let (problem, users) = node.only_problem().await;
        assert!(problem.starts_with(wanted), "{problem}");
        assert_eq!(users, ["secret", "good"], "{problem}");
    }
}

#[tokio::test]
async fn bad_plugins() {
    let other_version = answer("x").replace("k8s.io/v1", "k8s.io/v1beta1");
    for (script, wanted) in [
        ("sleep 60", "plugin bad: it did not end within 0.4 s and was killed"),
        ("sleep 60 & sleep 60; echo hunter2", "plugin bad: it did not end within 0.4 s and was killed"),
        ("yes hunter2 | head -c 100000000", "plugin bad: it answered more than 1024 KiB and was killed"),
        ("echo hunter2", "plugin bad: its answer is no CredentialProviderResponse: not valid JSON"),
        ("true", "plugin bad: it answered nothing"),
        ("echo hunter2; echo hunter2 >&2; exit 1", "plugin bad: it ended with exit status 1"),
        (&other_version, "plugin bad: it answered in version `credentialprovider.kubelet.k8s.io/v1beta1`"),
    ] {
        let mut node = Node::new();
        node.plugin("bad", script).plugin("good", &answer("plugin")).config("config", GOOD.as_bytes());
        if script.starts_with("sleep") {
            node.limits.time = Duration::from_millis(400);
        }
        let started = tokio::time::Instant::now().into_std();
        let (problem, users) = node.only_problem().await;
        assert!(problem.starts_with(wanted), "{problem}");
        assert_eq!(users, ["good", "plugin"], "{problem}");
        assert!(elapsed(started) < Duration::from_secs(4), "{problem}");
    }
}

fn elapsed(since: Instant) -> Duration {
    tokio::time::Instant::now().into_std() - since
}

#[tokio::test]
async fn bad_plugin_configurations() {
    let mut node = Node::new();
    node.plugin("gone", "true").plugin("good", &answer("plugin"));
    std::fs::remove_file(node.at("bin/gone")).unwrap();
    let (problem, who) = node.only_problem().await;
    assert!(problem.starts_with("plugin gone: bin/gone: no such file"), "{problem}");
    assert_eq!(who, ["plugin"]);

    let mut node = Node::new();
    node.plugin("good", &answer("plugin")).config("config", GOOD.as_bytes());
    let credentials = Credentials::new(node.options());
    let config = std::fs::read_to_string(node.at("plugins.yaml")).unwrap();
    for (content, wanted) in [
        (config.replace("1h", "hunter2"), "`providers[0].defaultCacheDuration` is no duration"),
        (config.replace("matchImages", "matchimages"), "`providers[0].matchimages` is unknown here"),
        ("hunter2".to_owned(), "a map is wanted at the top"),
    ] {
        std::fs::write(node.at("plugins.yaml"), content).unwrap();
        let found = lookup(&credentials).await;
        assert_eq!(found.problems.len(), 1, "{:?}", found.problems);
        assert!(found.problems[0].contains(wanted) && !found.problems[0].contains(CANARY), "{:?}", found.problems);
        assert!(found.problems[0].starts_with(&node.at("plugins.yaml").display().to_string()));
        assert_eq!(users(&found), ["good"]);
        assert!(found.outcomes.contains(&(Source::ExecPlugin, Outcome::Error)));
    }
    // and a correction counts at once
    std::fs::write(node.at("plugins.yaml"), config).unwrap();
    assert_eq!(users(&lookup(&credentials).await), ["good", "plugin"]);
}

#[tokio::test]
async fn calls_for_the_same_image_are_one() {
    let mut node = Node::new();
    let calls = node.at("calls");
    node.plugin("slow", &format!("echo x >> {}; sleep 0.3; {}", calls.display(), answer("plugin")));
    let options = node.options();
    let credentials = Credentials::new(options);
    let all = futures::future::join_all((0..8).map(|_| lookup(&credentials))).await;
    assert!(all.iter().all(|found| users(found) == ["plugin"]));
    assert_eq!(std::fs::read_to_string(&calls).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn offline_leaves_plugins_out() {
    let mut node = Node::new();
    node.plugin("bad", "exit 1").config("config", GOOD.as_bytes());
    let credentials = Credentials::new(node.options());
    let image = ImageRef::parse("r.example.com/app").unwrap();
    let request = Request { image: &image, pull_secrets: &[], service_account_secrets: &[], offline: true };
    let found = credentials.lookup(request).await;
    assert_eq!(users(&found), ["good"]);
    assert!(found.problems.is_empty());
    assert_eq!(found.outcomes, [(Source::DockerConfig, Outcome::Found)]);
}

#[tokio::test]
async fn origins_and_patterns_are_told() {
    let mut node = Node::new();
    node.pull_secret("secret.yaml", GOOD_SECRET).config("config", GOOD.as_bytes()).plugin("p", &answer("plugin"));
    let found = node.lookup().await;
    let told: Vec<_> = found.credentials.iter().map(|c| (c.source, c.origin.as_str(), c.pattern.as_str())).collect();
    let config = node.at("config");
    let wanted = [
        (Source::PullSecret, "ns/good", "r.example.com"),
        (Source::DockerConfig, Path::new(&config).to_str().unwrap(), "r.example.com"),
        (Source::ExecPlugin, "p", "r.example.com"),
    ];
    assert_eq!(told, wanted);
}

async fn problems_of(content: &str, image: &str) -> Lookup {
    let mut node = Node::new();
    node.config("config.json", content.as_bytes());
    let image = ImageRef::parse(image).unwrap();
    let request = Request { image: &image, pull_secrets: &[], service_account_secrets: &[], offline: true };
    let lookup = Credentials::new(node.options()).lookup(request).await;
    assert!(!lookup.problems.join("").contains(CANARY), "{:?}", lookup.problems);
    lookup
}

#[tokio::test]
async fn a_key_that_almost_matches_is_named_with_its_fix() {
    for (key, image, wanted, fix) in [
        ("reg.example.com:443", "reg.example.com/a/b:1", "has a port and the image has none", "`reg.example.com`"),
        ("reg.example.com", "reg.example.com:443/a/b:1", "has no port", "`reg.example.com:443`"),
        ("registry-1.docker.io", "nginx", "is not the key of Docker Hub", "`https://index.docker.io/v1/`"),
        ("reg.example.com/team-a", "reg.example.com/team-b/x", "is for another path", "`reg.example.com/team-b`"),
        ("HTTPS://quay.io", "quay.io/a/b", "has its scheme in upper case", "`quay.io`"),
    ] {
        let content = format!(r#"{{"auths":{{"{key}":{{"username":"u","password":"hunter2"}},"other.test":{{}}}}}}"#);
        let lookup = problems_of(&content, image).await;
        assert!(lookup.credentials.is_empty(), "{key} is used for {image}");
        assert_eq!(lookup.problems.len(), 1, "{:?}", lookup.problems);
        let problem = &lookup.problems[0];
        assert!(problem.contains(&format!("config.json: key `{key}` {wanted}")), "{problem}");
        assert!(problem.ends_with(&format!("key {fix}.")), "{problem}");
    }
}

#[tokio::test]
async fn one_near_miss_is_reported_for_each_source_and_few_for_an_image() {
    let mut node = Node::new();
    for n in 0..6 {
        let keys = r#"{"auths":{"r.example.com:443":{},"r.example.com:80":{},"r.example.com/other":{}}}"#;
        node.config(&format!("{n}.json"), keys.as_bytes());
    }
    let lookup = node.lookup().await;
    assert_eq!(lookup.problems.len(), 4, "{:?}", lookup.problems);
    assert!(lookup.problems.iter().enumerate().all(|(n, problem)| problem.contains(&format!("{n}.json: key"))));

    node.config("good.json", GOOD.as_bytes());
    let lookup = node.lookup().await;
    assert!(lookup.problems.is_empty() && lookup.near_misses.is_empty(), "{:?}", lookup.problems);
}

#[tokio::test]
async fn unrelated_registries_cause_no_message() {
    let entries: Vec<String> = (0..30).map(|n| format!(r#""reg{n}.example.net":{{"auth":"dTpw"}}"#)).collect();
    let lookup = problems_of(&format!(r#"{{"auths":{{{}}}}}"#, entries.join(",")), "r.example.com/a:1").await;
    assert!(lookup.problems.is_empty(), "{:?}", lookup.problems);
}

#[tokio::test]
async fn an_empty_entry_of_a_laptop_is_tried_and_named() {
    let content = r#"{"auths":{"https://index.docker.io/v1/":{}},"credsStore":"desktop"}"#;
    let lookup = problems_of(content, "nginx").await;
    assert_eq!(users(&lookup), [""]);
    let named = |problem: &String| problem.contains("`https://index.docker.io/v1/` has no user name and no password");
    assert_eq!(lookup.problems.iter().filter(|problem| named(problem)).count(), 1, "{:?}", lookup.problems);
}

#[tokio::test]
async fn a_docker_credential_helper_is_named() {
    let mut node = Node::new();
    node.plugin("docker-credential-test", "echo usage; exit 1");
    let (problem, _) = node.only_problem().await;
    assert!(problem.contains("looks like a Docker credential helper"), "{problem}");
}
