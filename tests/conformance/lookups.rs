//! Whole lookups over random Secrets and docker configs.
//!
//! Left out, because the kubelet itself has no order there: several spellings of one key inside one config. What is
//! malformed fails the kubelet's whole lookup and is told here, so there only the telling is compared.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prepull::{
    credentials::{
        docker_config::{AuthFieldError, decode_auth},
        keyring::Key,
        lookup::{Credentials, Lookup, Options, Request},
        node_search::NodeConfigs,
        secret::Secret,
    },
    image_ref::ImageRef,
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    Plan,
    keys::{REPOSITORIES, key},
    oracle::Oracle,
    random::{Case, Random, compare_all},
};

const CASES: u64 = 3_000;
/// What a config is spoilt with.
const JSON_PIECES: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    ":",
    "null",
    "true",
    "1",
    "-",
    "1e999",
    " ",
    "\t",
    "\n",
    "\u{0}",
    "\u{e000}",
    "\\u",
    "\\ud800",
    "=",
    "x",
    "\"auths\":",
    "\"auth\":",
];
/// Stands for a byte that is not UTF-8.
const BROKEN: char = '\u{e000}';

#[derive(Clone, Debug)]
struct Config {
    legacy: bool,
    /// Keys, and entries as JSON text.
    entries: Vec<(String, String)>,
    /// What stands around the entries.
    around: (&'static str, &'static str),
    /// All of it as it was spoilt, in place of the above.
    spoilt: Option<String>,
}

impl Config {
    fn text(&self) -> Vec<u8> {
        let entry = |(key, entry): &(String, String)| format!("{}:{entry}", json!(key));
        let entries: Vec<String> = self.entries.iter().map(entry).collect();
        let (before, after) = if self.legacy { ("", "") } else { self.around };
        let whole = || format!("{before}{{{}}}{after}", entries.join(","));
        let text = self.spoilt.clone().unwrap_or_else(whole);
        let mut bytes = Vec::new();
        for c in text.chars() {
            if c == BROKEN { bytes.push(0xff) } else { bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()) }
        }
        bytes
    }
}

impl Case for Config {
    fn smaller(&self) -> Vec<Self> {
        if let Some(spoilt) = &self.spoilt {
            return spoilt.smaller().into_iter().map(|less| Self { spoilt: Some(less), ..self.clone() }).collect();
        }
        let mut smaller = Vec::new();
        for at in 0..self.entries.len() {
            let mut without = self.clone();
            without.entries.remove(at);
            smaller.push(without);
            for key in self.entries[at].0.smaller() {
                let mut with = self.clone();
                with.entries[at].0 = key;
                smaller.push(with);
            }
        }
        smaller
    }
}

#[derive(Clone, Debug)]
struct GivenSecret {
    secret_type: &'static str,
    key: &'static str,
    config: Config,
}

impl Case for GivenSecret {
    fn smaller(&self) -> Vec<Self> {
        self.config.smaller().into_iter().map(|config| Self { config, ..self.clone() }).collect()
    }
}

#[derive(Clone, Debug)]
struct Asked {
    image: String,
    secrets: Vec<GivenSecret>,
    node: Vec<Config>,
}

impl Case for Asked {
    fn smaller(&self) -> Vec<Self> {
        let secrets = self.secrets.smaller().into_iter().map(|secrets| Self { secrets, ..self.clone() });
        secrets.chain(self.node.smaller().into_iter().map(|node| Self { node, ..self.clone() })).collect()
    }
}

pub(crate) fn compare(oracle: &mut Oracle, plan: Plan) -> Result<u64, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut random = Random::new(plan.seed);
    compare_all(
        CASES * plan.multiplier,
        |_| asked(&mut random),
        |case| {
            let wanted = oracle.ask(&question(case));
            let found = runtime.block_on(ours(case));
            let pairs: Vec<Value> = found
                .credentials
                .iter()
                .map(|c| json!({"username": c.auth.username, "password": c.auth.password.expose_secret()}))
                .collect();
            if wanted["error"] != "" {
                // what a later null empties is lost in either case, and not worth telling
                let emptied = |config: &Config| String::from_utf8_lossy(&config.text()).contains("null");
                if configs(case).any(emptied) {
                    return None;
                }
                return found
                    .problems
                    .is_empty()
                    .then(|| format!("the kubelet fails with {} and nothing is told here", wanted["error"]));
            }
            let (mut pairs, mut kubelet) = (pairs, wanted["auths"].as_array().cloned().unwrap_or_default());
            if configs(case).any(|config| config.spoilt.is_some()) {
                // two keys may have become spellings of the same one
                pairs.sort_by_key(ToString::to_string);
                kubelet.sort_by_key(ToString::to_string);
                // and a credential no text any more: the kubelet finds it and cannot send it, here its entry is skipped and told
                if found.problems.iter().any(|problem| problem.contains("`auth` is not UTF-8")) {
                    let is_text = |pair: &Value| !pair.to_string().contains(char::REPLACEMENT_CHARACTER);
                    pairs.retain(is_text);
                    kubelet.retain(is_text);
                }
            }
            (pairs != kubelet)
                .then(|| format!("the kubelet finds {kubelet:?}, and here {pairs:?} ({:?})", found.problems))
        },
    )
}

fn configs(case: &Asked) -> impl Iterator<Item = &Config> {
    case.node.iter().chain(case.secrets.iter().map(|secret| &secret.config))
}

fn question(case: &Asked) -> Value {
    let secret = |s: &GivenSecret| {
        let mut data = serde_json::Map::new();
        data.insert(s.key.to_owned(), Value::String(STANDARD.encode(s.config.text())));
        json!({"type": s.secret_type, "data": data})
    };
    let node = |c: &Config| json!({"legacy": c.legacy, "data": STANDARD.encode(c.text())});
    let secrets: Vec<Value> = case.secrets.iter().map(secret).collect();
    let node: Vec<Value> = case.node.iter().map(node).collect();
    json!({"op": "lookup", "image": case.image, "secrets": secrets, "node": node})
}

async fn ours(case: &Asked) -> Lookup {
    let dir = tempfile::tempdir().unwrap();
    let secret = |given: &GivenSecret| Secret {
        secret_type: given.secret_type.to_owned(),
        data: BTreeMap::from([(given.key.to_owned(), Zeroizing::new(given.config.text()))]),
        ..Secret::default()
    };
    let file = |(index, config): (usize, &Config)| -> PathBuf {
        let folder = dir.path().join(index.to_string());
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join(if config.legacy { ".dockercfg" } else { "config.json" });
        std::fs::write(&file, config.text()).unwrap();
        file
    };
    let secrets: Vec<Secret> = case.secrets.iter().map(secret).collect();
    let files = case.node.iter().enumerate().map(file).collect();
    let credentials = Credentials::new(Options {
        node_configs: NodeConfigs::Named(files),
        pull_secret_files: Vec::new(),
        plugins: None,
        clouds: None,
    });
    let image = ImageRef::parse(&case.image).unwrap();
    assert_eq!(image.lookup_key(), case.image);
    let request = Request { image: &image, pull_secrets: &secrets, service_account_secrets: &[], offline: false };
    credentials.lookup(request).await
}

fn asked(random: &mut Random) -> Asked {
    let image = loop {
        let image = random.pick(&REPOSITORIES);
        // one of them is another spelling of Docker Hub, which no lookup ever sees
        if ImageRef::parse(image).is_ok_and(|parsed| parsed.lookup_key() == image) {
            break image.to_owned();
        }
    };
    let secrets = (0..random.below(4)).map(|_| secret(random, &image)).collect();
    let node = (0..random.below(3)).map(|_| config(random, &image)).collect();
    Asked { image, secrets, node }
}

fn secret(random: &mut Random, image: &str) -> GivenSecret {
    let (json_type, json_key) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
    let (legacy_type, legacy_key) = ("kubernetes.io/dockercfg", ".dockercfg");
    let mut config = config(random, image);
    let (secret_type, key) = match random.below(20) {
        0 => ("Opaque", json_key),
        1 => (json_type, legacy_key),
        2 => (legacy_type, json_key),
        _ if config.legacy => (legacy_type, legacy_key),
        _ => (json_type, json_key),
    };
    if random.one_in(30) {
        config.legacy = !config.legacy;
    }
    GivenSecret { secret_type, key, config }
}

fn config(random: &mut Random, image: &str) -> Config {
    let mut entries: Vec<(String, String)> = Vec::new();
    for _ in 0..random.below(6) {
        let key = key(random, image);
        let same = |(written, _): &(String, String)| {
            *written != key && Key::normalise(written).ok() == Key::normalise(&key).ok()
        };
        if !entries.iter().any(same) {
            let entry = entry(random);
            entries.push((key, entry));
        }
    }
    let plain = ("{\"auths\":", "}");
    let around = match random.below(24) {
        0 => ("{\"AUTHS\":", "}"),
        1 => ("{\"auth\u{17f}\":", "}"),
        2 => ("{\"credsStore\":\"x\",\"auths\":", ",\"HttpHeaders\":{\"a\":\"b\"},\"other\":[1,{\"a\":[]}]}"),
        3 => ("{\"auths\":{\"r.example.com\":{\"username\":\"first\"}},\"Auths\":", "}"),
        4 => (" \n{\"auths\":", ",\"auths\":null}\n"),
        5 => ("{\"auths\":null,\"auths\":", "}"),
        6 if random.one_in(4) => ("{\"auths\":", ""),
        7 if random.one_in(4) => ("{\"auths\":[", "]}"),
        8 if random.one_in(4) => ("[", "]"),
        _ => plain,
    };
    let again = |(written, _): &(String, String)| {
        *written != "r.example.com" && Key::normalise(written).is_ok_and(|key| key.to_string() == "r.example.com")
    };
    let around = if around.0.contains("first") && entries.iter().any(again) { plain } else { around };
    let mut config = Config { legacy: random.one_in(3), entries, around, spoilt: None };
    if random.one_in(8) {
        let text = String::from_utf8_lossy(&config.text()).into_owned();
        config.spoilt = Some(random.spoil(&text, &JSON_PIECES, 3));
    }
    config
}

/// An entry as JSON; about one in forty is malformed.
fn entry(random: &mut Random) -> String {
    let user = random.text(&["a", "b", "ü", "-", " "], 0, 4);
    let password = random.text(&["x", "y", ":", "=", "é", "\n", "\""], 0, 6);
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    match random.below(16) {
        0 => "{}".to_owned(),
        1 => "null".to_owned(),
        2 => json!({"auth": encoded, "username": "other", "password": "other"}).to_string(),
        3 => json!({"auth": encoded.trim_end_matches('=')}).to_string(),
        4 => auth(&format!("{}\r\n", random.spoil(&encoded, &["\n", "\r"], 1))),
        5 => json!({"auth": "", "username": user, "password": password}).to_string(),
        6 => json!({"UserName": user, "PASSWORD": password, "Email": "e"}).to_string(),
        7 => json!({"identitytoken": "t", "username": user, "registrytoken": "r"}).to_string(),
        8 => format!("{{\"username\":\"a\",\"username\":{},\"password\":\"p\",\"password\":null}}", json!(user)),
        9 => format!(
            "{{\"username\":\"{BROKEN}\\ud800\\u0061\\ud83d\\ude00\",\"other\":{{\"a\":1e400}},\"pa\u{17f}sword\":\"k\"}}"
        ),
        10 if random.one_in(4) => malformed(random, &encoded),
        _ => json!({"username": user, "password": password}).to_string(),
    }
}

/// What is not UTF-8 cannot be sent over CRI: the kubelet fails there, and here the entry counts as malformed.
fn auth(field: &str) -> String {
    match decode_auth(field) {
        Err(AuthFieldError::NotUtf8) => "{}".to_owned(),
        Ok(_) | Err(_) => json!({"auth": field}).to_string(),
    }
}

fn malformed(random: &mut Random, encoded: &str) -> String {
    match random.below(7) {
        0 => auth(&random.spoil(encoded, &["=", "-", "_", " ", "\t"], 2)),
        1 => json!({"auth": STANDARD.encode("no colon")}).to_string(),
        2 => json!({"username": 1}).to_string(),
        3 => json!({"email": false, "username": "u"}).to_string(),
        4 => json!({"auth": null, "password": ["x"]}).to_string(),
        5 => "\"x\"".to_owned(),
        _ => "[]".to_owned(),
    }
}
