//! Credentials against the cases in `tests/vectors`, plugins as real programs.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use prepull::{
    credentials::{
        docker_config::{self, Format},
        keyring::{Key, Keyring, is_default_registry, pattern_matches},
        lookup::{Credentials, Lookup, Options, Request},
        node_search::{NodeConfigs, SearchFolders},
        plugin::{self, PluginOptions, config, protocol::ApiVersion, runner::Limits},
        secret::Secret,
    },
    image_ref::ImageRef,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

fn cases<T: serde::de::DeserializeOwned>(file: &str) -> Vec<T> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<T> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(!cases.is_empty(), "{path} has no case");
    cases
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    username: String,
    password: String,
}

fn pairs(lookup: &Lookup) -> Vec<Pair> {
    let pair = |auth: &prepull::credentials::Auth| Pair {
        username: auth.username.clone(),
        password: auth.password.expose_secret().to_owned(),
    };
    lookup.credentials.iter().map(|credential| pair(&credential.auth)).collect()
}

fn options(node_configs: NodeConfigs) -> Options {
    Options { node_configs, pull_secret_files: Vec::new(), plugins: None, clouds: None }
}

fn request<'a>(image: &'a ImageRef, pull_secrets: &'a [Secret]) -> Request<'a> {
    Request { image, pull_secrets, service_account_secrets: &[], offline: false }
}

#[derive(Deserialize)]
struct DecodeCase {
    kind: String,
    input: String,
    ok: bool,
    username: Option<String>,
    password: Option<String>,
}

#[test]
fn entries_are_decoded_as_the_kubelet_decodes_them() {
    for case in cases::<DecodeCase>("auth-decode.json") {
        let decoded = if case.kind == "authField" {
            docker_config::decode_auth(&case.input).ok()
        } else {
            let config = format!("{{\"r.example.com\":{}}}", case.input);
            let config = docker_config::decode(config.as_bytes(), Format::Legacy).unwrap();
            config.entries.into_iter().next().map(|entry| (entry.auth.username, entry.auth.password))
        };
        assert_eq!(decoded.is_some(), case.ok, "{:?}", case.input);
        let Some((username, password)) = decoded else { continue };
        assert_eq!(Some(username), case.username, "{:?}", case.input);
        assert_eq!(Some(password.expose_secret()), case.password.as_deref(), "{:?}", case.input);
    }
}

#[derive(Deserialize)]
struct MatchCase {
    pattern: String,
    target: String,
    r#match: bool,
    mode: String,
}

#[test]
fn keys_match_as_in_the_kubelet() {
    for case in cases::<MatchCase>("credential-match.json") {
        let matched = if case.mode == "matchImages" {
            pattern_matches(&case.pattern, &case.target)
        } else {
            let mut ring = Keyring::default();
            if let Ok(key) = Key::normalise(&case.pattern) {
                ring.add(key, ());
            }
            !ring.lookup(&case.target).is_empty()
        };
        assert_eq!(matched, case.r#match, "{} for {}", case.pattern, case.target);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DefaultRegistryCase {
    target: String,
    is_default_registry: bool,
}

#[test]
fn docker_hub_is_recognised_as_in_the_kubelet() {
    for case in cases::<DefaultRegistryCase>("default-registry.json") {
        assert_eq!(is_default_registry(&case.target), case.is_default_registry, "{:?}", case.target);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LookupCase {
    name: String,
    image: Option<String>,
    lookup: String,
    docker_configs: Vec<GivenConfig>,
    expected: Vec<Pair>,
    expect_error: bool,
    order: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenConfig {
    origin: String,
    format: Option<String>,
    secret_type: Option<String>,
    data_key: Option<String>,
    content: String,
}

#[tokio::test]
async fn lookups_find_what_the_kubelet_finds() {
    for case in cases::<LookupCase>("credential-lookup.json") {
        let dir = tempfile::tempdir().unwrap();
        let plugin = Plugin::new();
        let (mut files, mut secrets) = (Vec::new(), Vec::new());
        for (index, given) in case.docker_configs.iter().enumerate() {
            match given.origin.as_str() {
                "node" => {
                    let name = if given.format.as_deref() == Some("dockercfg") { ".dockercfg" } else { "config.json" };
                    let file = dir.path().join(index.to_string()).join(name);
                    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                    std::fs::write(&file, &given.content).unwrap();
                    files.push(file);
                }
                "secret" => secrets.push(Secret {
                    secret_type: given.secret_type.clone().unwrap(),
                    data: BTreeMap::from([(
                        given.data_key.clone().unwrap(),
                        Zeroizing::new(given.content.clone().into_bytes()),
                    )]),
                    ..Secret::default()
                }),
                "plugin" => {
                    let auth: Value = serde_json::from_str(&given.content).unwrap();
                    plugin.write_config(&json!({"matchImages": [case.lookup.split('/').next().unwrap()]}));
                    plugin.answer(&json!({"kind": "CredentialProviderResponse", "apiVersion": V1, "cacheKeyType": "Image", "auth": auth}).to_string(), 0);
                }
                other => panic!("{}: no such origin: {other}", case.name),
            }
        }
        let image = ImageRef::parse(case.image.as_ref().unwrap_or(&case.lookup)).unwrap();
        if case.image.is_some() {
            assert_eq!(image.lookup_key(), case.lookup, "{}", case.name);
        }
        let with_plugin = case.docker_configs.iter().any(|given| given.origin == "plugin");
        let plugins = with_plugin.then(|| plugin.options());
        let credentials = Credentials::new(Options { plugins, ..options(NodeConfigs::Named(files)) });
        let lookup = credentials.lookup(request(&image, &secrets)).await;
        let mut found = pairs(&lookup);
        let mut expected = case.expected;
        if case.order == "any" {
            found.sort();
            expected.sort();
        }
        if case.expect_error {
            // documented difference: what is malformed is told, and the rest counts
            assert!(!lookup.problems.is_empty(), "{}", case.name);
        } else {
            assert_eq!(found, expected, "{}: {:?}", case.name, lookup.problems);
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SearchCase {
    name: String,
    root_dir: String,
    cwd: String,
    home: String,
    files: BTreeMap<String, String>,
    image: String,
    expected: Vec<Pair>,
}

#[tokio::test]
async fn the_node_is_searched_as_the_kubelet_searches_it() {
    for case in cases::<SearchCase>("node-config-search.json") {
        let dir = tempfile::tempdir().unwrap();
        let under = |path: &str| dir.path().join(Path::new(path).strip_prefix("/").unwrap());
        for (path, content) in &case.files {
            std::fs::create_dir_all(under(path).parent().unwrap()).unwrap();
            std::fs::write(under(path), content).unwrap();
        }
        let folders = SearchFolders {
            kubelet_root: under(&case.root_dir),
            working: under(&case.cwd),
            home: under(&case.home),
            root: under("/"),
        };
        let credentials = Credentials::new(options(NodeConfigs::Search(folders)));
        let image = ImageRef::parse(&case.image).unwrap();
        let lookup = credentials.lookup(request(&image, &[])).await;
        assert_eq!(pairs(&lookup), case.expected, "{}: {:?}", case.name, lookup.problems);
    }
}

const V1: &str = "credentialprovider.kubelet.k8s.io/v1";

/// A plugin that records what it is sent and answers what the test tells it, with its configuration.
struct Plugin {
    dir: tempfile::TempDir,
}

impl Plugin {
    fn new() -> Self {
        let plugin = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(plugin.at("bin")).unwrap();
        let here = plugin.dir.path().display();
        let script =
            format!("#!/bin/sh\ncat >> {here}/calls\ncat {here}/answer\necho canary >&2\nexit $(cat {here}/status)\n");
        write_executable(&plugin.at("bin/fake"), &script);
        plugin
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn options(&self) -> PluginOptions {
        PluginOptions { config: self.at("config.json"), bin_dir: self.at("bin"), limits: Limits::default() }
    }

    /// Writes the configuration of one plugin; what is not given has a default.
    fn write_config(&self, provider: &Value) {
        let mut whole = json!({"name": "fake", "apiVersion": V1, "defaultCacheDuration": "0s", "matchImages": ["test.registry.io"]});
        whole.as_object_mut().unwrap().extend(provider.as_object().unwrap().clone());
        let config =
            json!({"kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1", "providers": [whole]});
        std::fs::write(self.at("config.json"), config.to_string()).unwrap();
    }

    fn answer(&self, stdout: &str, status: i32) {
        std::fs::write(self.at("answer"), stdout).unwrap();
        std::fs::write(self.at("status"), status.to_string()).unwrap();
    }

    /// What it was sent since the last time, and forgets it.
    fn take_calls(&self) -> String {
        let calls = std::fs::read_to_string(self.at("calls")).unwrap_or_default();
        let _ = std::fs::remove_file(self.at("calls"));
        calls
    }

    fn credentials(&self) -> Credentials {
        Credentials::new(Options { plugins: Some(self.options()), ..options(NodeConfigs::Named(Vec::new())) })
    }
}

fn write_executable(path: &Path, script: &str) {
    std::fs::write(path, script).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn exec_cases(kind: &str) -> Vec<Value> {
    let cases: Vec<Value> =
        cases::<Value>("exec-plugin.json").into_iter().filter(|case| case["kind"] == kind).collect();
    assert!(!cases.is_empty(), "no case of kind {kind}");
    cases
}

#[tokio::test]
async fn plugins_are_called_and_remembered_as_by_the_kubelet() {
    for case in exec_cases("call") {
        let name = &case["name"];
        let plugin = Plugin::new();
        plugin.write_config(&case["provider"]);
        let credentials = plugin.credentials();
        let mut now = 0;
        for (index, call) in case["calls"].as_array().unwrap().iter().enumerate() {
            let at = call["atSeconds"].as_u64().unwrap();
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(at - now)).await;
            tokio::time::resume();
            now = at;
            let script = &call["plugin"];
            let status = script["exitCode"].as_i64().unwrap_or(0);
            plugin.answer(script["stdout"].as_str().unwrap_or_default(), i32::try_from(status).unwrap());
            let image = ImageRef::parse(call["image"].as_str().unwrap()).unwrap();
            let lookup = credentials.lookup(request(&image, &[])).await;
            let expected: Vec<Pair> = serde_json::from_value(call["expect"]["credentials"].clone()).unwrap();
            assert_eq!(pairs(&lookup), expected, "{name}, call {index}: {:?}", lookup.problems);
            let called = !plugin.take_calls().is_empty();
            assert_eq!(Value::Bool(called), call["expect"]["execCalled"], "{name}, call {index}");
            assert!(!format!("{lookup:?}").contains("canary"), "{name}");
        }
    }
}

#[tokio::test]
async fn plugins_are_sent_what_the_kubelet_sends() {
    for case in exec_cases("wire") {
        let plugin = Plugin::new();
        plugin.write_config(&case["provider"]);
        plugin.answer("", 0);
        let text = case["podImage"].as_str().unwrap();
        // the digest of one case is shorter than any real one
        let image = ImageRef::parse(text).or_else(|_| ImageRef::parse(text.split('@').next().unwrap())).unwrap();
        let lookup = plugin.credentials().lookup(request(&image, &[])).await;
        if case["provider"]["tokenAttributes"]["requireServiceAccount"] == true {
            // a pull for the node has no pod, hence no service account
            assert_eq!(plugin.take_calls(), "", "{}", case["name"]);
            assert_eq!(lookup.problems.len(), 1, "{:?}", lookup.problems);
        } else {
            assert_eq!(Value::String(plugin.take_calls()), case["expectedStdin"], "{}", case["name"]);
        }
    }
}

#[test]
fn plugins_have_the_environment_that_the_kubelet_gives() {
    for case in exec_cases("env") {
        let list = |value: &Value| -> Vec<(String, String)> {
            let split = |v: &Value| match v.as_str() {
                Some(text) => text.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap(),
                None => (v["name"].as_str().unwrap().to_owned(), v["value"].as_str().unwrap().to_owned()),
            };
            value.as_array().unwrap().iter().map(split).collect()
        };
        let provider = config::Provider {
            name: "fake".to_owned(),
            match_images: Vec::new(),
            default_cache_duration: Duration::ZERO,
            api_version: ApiVersion::V1,
            args: Vec::new(),
            env: list(&case["providerEnv"]).into_iter().map(|(n, v)| (n, SecretString::from(v))).collect(),
            token: config::TokenUse::Never,
        };
        let system = list(&case["systemEnv"]).into_iter().map(|(n, v)| (n.into(), v.into()));
        let text = |text: std::ffi::OsString| text.into_string().unwrap();
        let env: Vec<_> = plugin::environment(system, &provider).into_iter().map(|(n, v)| (text(n), text(v))).collect();
        assert_eq!(env, list(&case["expectedEnv"]), "{}", case["name"]);
    }
}

#[tokio::test]
async fn plugin_configurations_are_judged_as_by_the_kubelet() {
    for case in exec_cases("config") {
        let plugin = Plugin::new();
        let name = &case["name"];
        std::fs::create_dir(plugin.at("conf")).unwrap();
        let mut path = plugin.at("conf");
        for (file, content) in case["files"].as_object().unwrap() {
            std::fs::write(plugin.at("conf").join(file), content.as_str().unwrap()).unwrap();
            if case["directory"] == false {
                path = plugin.at("conf").join(file);
            }
        }
        for provider in case["providers"].as_array().into_iter().flatten() {
            write_executable(&plugin.at("bin").join(provider.as_str().unwrap()), "#!/bin/sh\n");
        }
        let plugins = plugin::Plugins::new(PluginOptions { config: path, ..plugin.options() });
        let answers = plugins.ask("nobody.asks.example.com/x").await;
        assert_eq!(Value::Bool(answers.problems.is_empty()), case["valid"], "{name}: {:?}", answers.problems);
        assert_eq!(answers.problems.len(), usize::from(case["valid"] == false), "{name}");
        if case["valid"] == true {
            let files = case["files"].as_object().unwrap().values();
            let names = files.flat_map(|text| config::parse(text.as_str().unwrap().as_bytes()).unwrap());
            let names: Vec<Value> = names.map(|provider| Value::String(provider.name)).collect();
            assert_eq!(Value::Array(names), case["providers"], "{name}");
        }
    }
}
