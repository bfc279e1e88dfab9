//! Exec plugins: sequences of calls with every cache type, configurations, and answers.
//!
//! Both sides run the same script from folders of their own. Cache durations are zero, negative, absent or so long that
//! no outcome depends on how fast this machine is. Left out: plain words that only YAML 1.1 takes for something else than
//! text (`yes`, `1_000`, `2001-01-01`), which the kubelet refuses where it wants text, and this takes as text. The kubelet registers plugins for good, so every case brings a
//! domain and plugin names that no other case has.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use prepull::{
    credentials::{
        lookup::{Credentials, Options, Request},
        node_search::NodeConfigs,
        plugin::{PluginOptions, Plugins, runner::Limits},
    },
    image_ref::ImageRef,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::{
    Plan,
    oracle::Oracle,
    random::{Case, Random, compare_all},
};

const SEQUENCES: u64 = 150;
const CONFIGURATIONS: u64 = 400;
const ANSWERS: u64 = 300;
const V1: &str = "credentialprovider.kubelet.k8s.io/v1";
const VERSIONS: [&str; 3] =
    [V1, "credentialprovider.kubelet.k8s.io/v1beta1", "credentialprovider.kubelet.k8s.io/v1alpha1"];
/// Stands for what is special to a case in the texts of a case.
const OWN: &str = "OWN";

/// A configuration, and what to exchange in it: things that people and editors do to YAML and JSON.
const GOOD: &str = "\
kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
- name: aOWN
  matchImages: [nobody.example]
  defaultCacheDuration: 1h
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  args: [x]
";
const WRITTEN: [(&str, &str); 47] = [
    ("", ""),
    ("kind", "---\nkind"),
    ("kind", "# comment\n--- # comment\nkind"),
    ("kind", "---\n---\nkind"),
    ("kind", "\u{feff}kind"),
    ("kind", "%YAML 1.1\n---\nkind"),
    ("kind", " kind"),
    ("kind", "\tkind"),
    ("kind", "Kind"),
    ("kind", "kind: CredentialProviderConfig\nkind"),
    ("kind: CredentialProviderConfig", "\"kind\": 'CredentialProviderConfig' # x"),
    ("kind: CredentialProviderConfig", "kind: !!str CredentialProviderConfig"),
    ("kind: CredentialProviderConfig", "kind: |\n  CredentialProviderConfig"),
    ("kind: CredentialProviderConfig", "kind: >-\n  CredentialProviderConfig"),
    ("kind: CredentialProviderConfig\n", ""),
    ("kind: CredentialProviderConfig\n", "kind: CredentialProviderConfig\r\n"),
    ("args: [x]\n", "args: [x]\n---\nkind: other\n"),
    ("args: [x]\n", "args: [x]\n---\n: [\n"),
    ("args: [x]\n", "args: [x]\n...\n"),
    ("args: [x]", "tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: yes}"),
    ("args: [x]", "tokenAttributes: {serviceAccountTokenAudience: a, cacheType: Token, requireServiceAccount: Off}"),
    ("args: [x]", "args: [1.5]"),
    ("args: [x]", "args: ['1.5', \"yes\"]"),
    ("args: [x]", "args: [~]"),
    ("args: [x]", "args: ~"),
    ("args: [x]", "args:"),
    ("args: [x]", "args: x"),
    ("args: [x]", "args: {}"),
    ("args: [x]", "args: [2001-01-01]"),
    ("args: [x]", "args: [&a x, *a]"),
    ("args: [x]", "args: [*a]"),
    ("args: [x]", "args: [[x]]"),
    ("args: [x]", "env: [{name: a, value: 1}]"),
    ("args: [x]", "env: [{name: a, value: ''}, {name: a}]"),
    ("args: [x]", "env: [{name: a, name: a}]"),
    ("args: [x]", "env: {}"),
    ("args: [x]", "1: x"),
    ("args: [x]", "args: [x"),
    ("args: [x]", "args: [\"\\x\"]"),
    ("args: [x]", "args: [x]\n  tokenAttributes: {}"),
    ("args: [x]", "args: [x]\n  tokenAttributes:"),
    ("- name: aOWN\n", "-\n  name: aOWN\n"),
    ("- name: aOWN\n", "- # x\n  name: \"aOWN\"\n"),
    ("nobody.example", "\"*\", nobody.example"),
    ("nobody.example", "*x"),
    ("1h", "\"1h\""),
    ("1h", "0"),
];

/// Numbers the runs, shrinking included.
static RUNS: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Debug)]
struct Plugin {
    provider: Value,
    /// What it writes and its exit status, call by call; the last one stands for all later ones.
    answers: Vec<(String, u8)>,
}

#[derive(Clone, Debug)]
struct Sequence {
    plugins: Vec<Plugin>,
    images: Vec<String>,
}

impl Case for Sequence {
    fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        for at in 0..self.images.len() {
            let mut less = self.clone();
            less.images.remove(at);
            smaller.push(less);
        }
        for at in 0..self.plugins.len() {
            if self.plugins.len() > 1 {
                let mut less = self.clone();
                less.plugins.remove(at);
                smaller.push(less);
            }
            for answer in 0..self.plugins[at].answers.len() {
                if self.plugins[at].answers.len() > 1 {
                    let mut less = self.clone();
                    less.plugins[at].answers.remove(answer);
                    smaller.push(less);
                }
            }
        }
        smaller
    }
}

pub(crate) fn compare_sequences(oracle: &mut Oracle, plan: Plan) -> Result<u64, String> {
    let mut random = Random::new(plan.seed);
    compare_all(SEQUENCES * plan.multiplier, |_| sequence(&mut random), |case| differs(oracle, case))
}

pub(crate) fn compare_answers(oracle: &mut Oracle, plan: Plan) -> Result<u64, String> {
    let mut random = Random::new(plan.seed);
    let make = |_| {
        let version = random.pick(&VERSIONS);
        let provider = provider(&mut random, version, 0);
        let good = answer(&mut random, version);
        let spoiled = if random.one_in(2) { spoil(&mut random, &good) } else { good };
        let image = format!("r.{OWN}/app");
        Sequence { plugins: vec![Plugin { provider, answers: vec![(spoiled, 0)] }], images: vec![image.clone(), image] }
    };
    compare_all(ANSWERS * plan.multiplier, make, |case| differs(oracle, case))
}

pub(crate) fn compare_configurations(oracle: &mut Oracle, plan: Plan) -> Result<u64, String> {
    let mut random = Random::new(plan.seed);
    compare_all(
        CONFIGURATIONS * plan.multiplier,
        |index| {
            let written = usize::try_from(index).ok().and_then(|index| WRITTEN.get(index));
            written.map_or_else(|| configuration(&mut random), |(from, to)| GOOD.replacen(from, to, 1))
        },
        |text| {
            let run = RUNS.fetch_add(1, Ordering::Relaxed);
            let dir = tempfile::tempdir().unwrap();
            for name in ["a", "b"] {
                executable(&dir.path().join(format!("{name}{run}")), "#!/bin/sh\n");
            }
            let config = dir.path().join("config");
            fs::write(&config, text.replace(OWN, &run.to_string())).unwrap();
            let answer = oracle.ask(&json!({"op": "plugins", "config": config, "binDir": dir.path(), "images": []}));
            let kubelet = answer["error"] == "";
            let plugins =
                Plugins::new(PluginOptions { config, bin_dir: dir.path().to_owned(), limits: Limits::default() });
            let told = runtime().block_on(plugins.ask("nobody.asks/app")).problems;
            (kubelet != told.is_empty()).then(|| format!("the kubelet says {}, and here {told:?}", answer["error"]))
        },
    )
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn executable(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// One side's folder: plugins that count their calls, record what they are sent, and answer by number.
struct Side {
    dir: tempfile::TempDir,
}

impl Side {
    fn new(case: &Sequence, run: u64) -> Self {
        let own = |text: &str| text.replace(OWN, &format!("o{run}.example"));
        let side = Self { dir: tempfile::tempdir().unwrap() };
        let mut providers = Vec::new();
        for (index, plugin) in case.plugins.iter().enumerate() {
            let name = format!("p{index}-{run}");
            let at = side.dir.path().join(&name);
            let script = format!(
                "#!/bin/sh\nread -r n < {at}.count\necho $((n + 1)) > {at}.count\nread -r request\necho \"$request\" >> {at}.calls\n\
                 [ -e {at}.answer.$n ] || n=last\nread -r status < {at}.status.$n\ncat {at}.answer.$n\nexit $status\n",
                at = at.display()
            );
            executable(&at, &script);
            let write = |ending: &str, text: &str| fs::write(format!("{}.{ending}", at.display()), text).unwrap();
            write("count", "0\n");
            for (number, (stdout, status)) in plugin.answers.iter().enumerate() {
                let last = number + 1 == plugin.answers.len();
                let number = if last { "last".to_owned() } else { number.to_string() };
                write(&format!("answer.{number}"), &own(stdout));
                write(&format!("status.{number}"), &format!("{status}\n"));
            }
            let mut provider = plugin.provider.clone();
            provider["name"] = Value::String(name);
            providers.push(provider);
        }
        let config = json!({"kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1", "providers": providers});
        fs::write(side.config(), own(&config.to_string())).unwrap();
        side
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.json")
    }

    /// What each plugin was sent.
    fn calls(&self, case: &Sequence, run: u64) -> Vec<String> {
        let calls =
            |index| fs::read_to_string(self.dir.path().join(format!("p{index}-{run}.calls"))).unwrap_or_default();
        (0..case.plugins.len()).map(calls).collect()
    }
}

fn differs(oracle: &mut Oracle, case: &Sequence) -> Option<String> {
    let run = RUNS.fetch_add(1, Ordering::Relaxed);
    let images: Vec<String> = case.images.iter().map(|image| image.replace(OWN, &format!("o{run}.example"))).collect();
    let (theirs, ours) = (Side::new(case, run), Side::new(case, run));
    let answer =
        oracle.ask(&json!({"op": "plugins", "config": theirs.config(), "binDir": theirs.dir.path(), "images": images}));
    assert_eq!(answer["error"], "", "{case:?}");
    let credentials = Credentials::new(Options {
        node_configs: NodeConfigs::Named(Vec::new()),
        pull_secret_files: Vec::new(),
        plugins: Some(PluginOptions {
            config: ours.config(),
            bin_dir: ours.dir.path().to_owned(),
            limits: Limits::default(),
        }),
        clouds: None,
    });
    let mut found = Vec::new();
    let mut problems = Vec::new();
    runtime().block_on(async {
        for image in &images {
            let image = ImageRef::parse(image).unwrap();
            let request = Request { image: &image, pull_secrets: &[], service_account_secrets: &[], offline: false };
            let lookup = credentials.lookup(request).await;
            let pair = |c: &prepull::credentials::Credential| json!({"username": c.auth.username, "password": c.auth.password.expose_secret()});
            found.push(Value::Array(lookup.credentials.iter().map(pair).collect()));
            problems.push(lookup.problems);
        }
    });
    let kubelet = answer["calls"].as_array().cloned().unwrap_or_default();
    if found != kubelet {
        return Some(format!("the kubelet finds {kubelet:?}, and here {found:?} ({problems:?})"));
    }
    let (theirs, ours) = (theirs.calls(case, run), ours.calls(case, run));
    (theirs != ours).then(|| format!("the kubelet calls {theirs:?}, and here {ours:?}"))
}

fn sequence(random: &mut Random) -> Sequence {
    let plugins = (0..=random.below(2))
        .map(|index| {
            let version = random.pick(&VERSIONS);
            let answers = (0..=random.below(4)).map(|_| {
                let status = u8::from(random.one_in(10));
                let good = answer(random, version);
                (if random.one_in(12) { spoil(random, &good) } else { good }, status)
            });
            let answers = answers.collect();
            Plugin { provider: provider(random, version, index), answers }
        })
        .collect();
    let image = |random: &mut Random| {
        let host = random.pick(&["r.OWN", "r.OWN:5000", "s.OWN", "t.u.OWN"]);
        format!("{host}/{}", random.pick(&["app", "team/app", "team/other"]))
    };
    let images = (0..=random.below(6)).map(|_| image(random)).collect();
    Sequence { plugins, images }
}

fn provider(random: &mut Random, version: &str, index: usize) -> Value {
    let all = ["*.OWN", "*.OWN:5000", "*.*.OWN"];
    let some = [random.pick(&["r.OWN", "s.OWN/team", "*.OWN:5000", "*.u.OWN"])];
    let patterns: &[&str] = if index == 0 || random.one_in(2) { &all } else { &some };
    let env: Value =
        serde_json::from_str(random.pick(&["null", "[]", "[{}]", "[null]", "[{\"name\":\"A\"}]"])).unwrap();
    let duration = random.pick(&["0s", "1h", "10h"]);
    json!({"apiVersion": version, "matchImages": patterns, "defaultCacheDuration": duration, "env": env})
}

fn answer(random: &mut Random, version: &str) -> String {
    let mut auth = serde_json::Map::new();
    for _ in 0..random.below(4) {
        let key = random.pick(&[
            "r.OWN",
            "*.OWN",
            "r.OWN/team",
            "s.OWN",
            "*.OWN:5000",
            "t.*.OWN",
            "https://index.docker.io/v1/",
            "a b",
            "r.OWN:5000/team/app",
        ]);
        let login =
            json!({"username": random.text(&["a", "b", "c"], 0, 2), "password": random.text(&["x", "y"], 0, 3)});
        auth.insert(key.to_owned(), if random.one_in(12) { Value::Null } else { login });
    }
    let mut answer = json!({
        "kind": "CredentialProviderResponse", "apiVersion": version,
        "cacheKeyType": random.pick(&["Image", "Registry", "Global"]), "auth": auth,
    });
    match random.below(6) {
        0 => answer["cacheDuration"] = Value::Null,
        1 => {}
        _ => {
            let duration = random.pick(&["0s", "1h", "1h", "1.5h0.5m", "-1m", "-1ns", "2562047h", "0"]);
            answer["cacheDuration"] = Value::String(duration.to_owned());
        }
    }
    answer.to_string()
}

fn spoil(random: &mut Random, answer: &str) -> String {
    match random.below(18) {
        0 => answer.replacen("\"auth\"", "\"Auth\"", 1),
        1 => answer.replacen("CredentialProviderResponse", "CredentialProviderRequest", 1),
        2 => answer.replacen("/v1", "/v1beta1", 1),
        3 => answer.replacen("Image", "image", 1),
        4 => answer.replacen('{', "{\"metadata\":{},", 1),
        5 => answer.replacen('{', "{\"kind\":\"CredentialProviderResponse\",", 1),
        6 => answer.replacen("\"username\"", "\"userName\"", 1),
        7 => answer.replacen("\"username\":", "\"username\":null,\"x\":", 1),
        8 => answer.replacen("\"username\":\"", "\"username\":\"\\ud800", 1),
        9 => answer.replacen("1h", "1d", 1),
        10 => answer.replacen("\"1h\"", "3600", 1),
        11 => format!("{answer} {answer}"),
        12 => format!(" \n{answer}\n\n"),
        13 => answer.replacen("\"auth\":{", "\"auth\":{\"r.OWN\":{\"username\":\"twice\"},", 1),
        14 => answer.replacen("\"auth\":{", "\"auth\":null,\"x\":{", 1),
        15 => answer[..random.below(answer.len())].to_owned(),
        16 => random.pick(&["", "null", "[]", "{}", "kind: CredentialProviderResponse", "\u{feff}{}"]).to_owned(),
        _ => random.spoil(answer, &["\"", "{", "}", ",", "x", "\\"], 1),
    }
}

/// A configuration that is often wrong in one place, as JSON or as YAML.
fn configuration(random: &mut Random) -> String {
    let mut names = vec!["aOWN"];
    if random.one_in(3) {
        names.push(random.pick(&["bOWN", "bOWN", "aOWN", "cOWN"]));
    }
    let provider = |name: &&str| json!({"name": name, "matchImages": ["nobody.example"], "defaultCacheDuration": "1h", "apiVersion": V1, "args": ["a"], "env": [{"name": "A", "value": "b"}]});
    let mut config = json!({
        "kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1",
        "providers": names.iter().map(provider).collect::<Vec<_>>(),
    });
    if random.one_in(3) {
        config["providers"][0]["tokenAttributes"] = json!({
            "serviceAccountTokenAudience": "a", "cacheType": "Token", "requireServiceAccount": true,
            "requiredServiceAccountAnnotationKeys": ["example.com/a"], "optionalServiceAccountAnnotationKeys": ["b"],
        });
    }
    for _ in 0..random.below(3) {
        change(random, &mut config);
    }
    if random.one_in(2) { serde_yaml::to_string(&config).unwrap() } else { config.to_string() }
}

fn change(random: &mut Random, config: &mut Value) {
    let values = [
        "null",
        "\"\"",
        "\"x\"",
        "5",
        "true",
        "false",
        "[]",
        "{}",
        "[\"a\"]",
        "[null]",
        "[5]",
        "\"0s\"",
        "\"-1s\"",
        "\"1d\"",
        "\"a/b\"",
        "\"a b\"",
        "\"..\"",
        "[\"*.io:*\"]",
        "[\"a b\"]",
        "[\"a:b:5\"]",
        "[\"\"]",
        "[\"*\"]",
        "[\"example.com/A\"]",
        "[\"a/b/c\"]",
        "[\"-a\"]",
        "[\"b\"]",
        "[{\"name\":\"\"}]",
        "[{\"value\":5}]",
        "[{\"x\":\"\"}]",
        "\"Token\"",
        "\"ServiceAccount\"",
        "\"kubelet.config.k8s.io/v1beta1\"",
        "\"kubelet.config.k8s.io/v1alpha1\"",
        "\"v1\"",
        "\"credentialprovider.kubelet.k8s.io/v1beta1\"",
        "\"credentialprovider.kubelet.k8s.io/v1alpha1\"",
        "\"CredentialProviderConfig\"",
    ];
    let value = if random.one_in(6) {
        Value::String(random.text(
            &["1", "0", "9", "99999999", ".", "-", "+", "ns", "us", "µs", "ms", "s", "m", "h", "d", " "],
            0,
            6,
        ))
    } else {
        serde_json::from_str(random.pick(&values)).unwrap()
    };
    let place = match random.below(8) {
        0 => config,
        1 | 2 if config["providers"][0]["tokenAttributes"].is_object() => {
            &mut config["providers"][0]["tokenAttributes"]
        }
        _ if config["providers"][0].is_object() => &mut config["providers"][0],
        _ => config,
    };
    let fields = place.as_object_mut().unwrap();
    let mut known: Vec<String> = fields.keys().cloned().collect();
    known.push("unknown".to_owned());
    let field = known[random.below(known.len())].clone();
    if random.one_in(4) {
        fields.remove(&field);
    } else {
        fields.insert(field, value);
    }
}
