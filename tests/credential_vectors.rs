//! The cases in `tests/vectors` through the commands themselves: who is tried, with what, in which order and how often
//! is seen by the runtime, which refuses everybody. The runtime is one that knows `ImageStatus` and `PullImage` alone.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use prepull::image_ref::ImageRef;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use support::{
    fake_cri::FakeCri,
    journal::{Login, Method},
    script::Rule,
    sources::{docker_config, dockercfg, entry, flag, plugin, prepull, secret_json, secret_yaml, write},
};
use tonic::Code;

fn cases<T: DeserializeOwned>(file: &str) -> Vec<T> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<T> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(!cases.is_empty(), "{path} has no case");
    cases
}

#[derive(Debug, Clone, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    username: String,
    password: String,
}

/// How a command is told where credentials are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Flags with whole paths, Secrets as the API server gives them.
    Flags,
    /// Variables with paths from the working directory, Secrets as people write them.
    Variables,
}

/// A runtime that refuses every pull.
struct Runtime(FakeCri);

impl Runtime {
    fn start() -> Self {
        let fake = FakeCri::start().unwrap();
        fake.script().add(Rule::fail(Method::PullImage, Code::Unknown, "401 Unauthorized"));
        for method in [Method::Version, Method::Status, Method::ListImages, Method::ImageFsInfo] {
            fake.script().add(Rule::fail(method, Code::Unimplemented, "unknown method"));
        }
        Self(fake)
    }

    /// Pulls, and gives what the runtime was sent.
    fn pull(&self, folder: &Path, flags: &[String], variables: &[(&str, String)], image: &str) -> Vec<Option<Login>> {
        self.0.journal().clear();
        let mut command = prepull(env!("CARGO_BIN_EXE_prepull").as_ref(), folder);
        command.args(["pull", "-o", "json", "--runtime-endpoint"]).arg(self.0.socket());
        let output = command.args(flags).envs(variables.iter().cloned()).arg(image).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{image}: {output:?}");
        let calls = self.0.journal().calls(Method::PullImage);
        let sent = ImageRef::parse(image).unwrap().cri_image();
        assert!(calls.iter().all(|call| call.image == sent), "{image}: {calls:?}");
        calls.into_iter().map(|call| call.login).collect()
    }
}

fn explain(folder: &Path, flags: &[String], images: &[&str]) -> Value {
    let mut command = prepull(env!("CARGO_BIN_EXE_prepull").as_ref(), folder);
    let output = command.args(["explain", "-o", "json"]).args(flags).args(images).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn pairs(logins: &[Option<Login>]) -> Vec<Pair> {
    let pair = |login: &Login| {
        assert_eq!((login.auth.as_str(), login.server_address.as_str()), ("", ""), "the kubelet leaves them empty");
        Pair { username: login.username.clone(), password: login.password.clone() }
    };
    logins.iter().flatten().map(pair).collect()
}

/// No candidate is one anonymous pull; otherwise each is tried once, and nobody else.
fn check(name: &str, logins: &[Option<Login>], expected: &[Pair]) {
    if expected.is_empty() {
        assert_eq!(logins, [None], "{name}");
    } else {
        assert_eq!(pairs(logins), expected, "{name}");
        assert_eq!(logins.len(), expected.len(), "{name}: no anonymous pull is added");
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LookupCase {
    name: String,
    image: Option<String>,
    lookup: String,
    docker_configs: Vec<Given>,
    expected: Vec<Pair>,
    expect_error: bool,
    order: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    origin: String,
    format: Option<String>,
    secret_type: Option<String>,
    data_key: Option<String>,
    content: String,
}

/// Writes a case's credentials into a folder: flags and variables that name them.
fn plant(case: &LookupCase, folder: &Path, by: By) -> (Vec<String>, Vec<(&'static str, String)>) {
    let mut flags = Vec::new();
    let mut variables: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (index, given) in case.docker_configs.iter().enumerate() {
        let (name, variable, path, text) = match given.origin.as_str() {
            "node" => {
                let legacy = given.format.as_deref() == Some("dockercfg");
                let path = format!("{index}/{}", if legacy { ".dockercfg" } else { "docker,config.json" });
                ("docker-config", "PREPULL_DOCKER_CONFIG", path, given.content.clone())
            }
            "secret" => {
                let yaml = secret_yaml("name", &given.content);
                let json = secret_json("name", &given.content);
                let text = if by == By::Variables { yaml } else { json };
                let kind = given.secret_type.as_deref().unwrap();
                let key = given.data_key.as_deref().unwrap();
                let text =
                    text.replace("kubernetes.io/dockerconfigjson", "TYPE").replace("kubernetes.io/dockercfg", "TYPE");
                let text = text.replace(".dockerconfigjson", "KEY").replace(".dockercfg", "KEY");
                let path = format!("{index}.secret");
                ("pull-secret", "PREPULL_PULL_SECRET", path, text.replace("TYPE", kind).replace("KEY", key))
            }
            "plugin" => {
                let auth: Value = serde_json::from_str(&given.content).unwrap();
                let answer = json!({
                    "kind": "CredentialProviderResponse", "apiVersion": support::sources::PLUGIN_VERSION,
                    "cacheKeyType": "Image", "auth": auth,
                });
                let answer = write(folder, "answer", &answer.to_string()).unwrap();
                let host = case.lookup.split('/').next().unwrap();
                flags.extend(plugin(folder, host, &json!([]), &format!("cat {}", answer.display())).unwrap());
                continue;
            }
            other => panic!("{}: no such origin: {other}", case.name),
        };
        // a list in a variable is split at its commas
        let path = if by == By::Variables { path.replace(',', "-") } else { path };
        let whole = write(folder, &path, &text).unwrap();
        match by {
            By::Flags => flags.extend(flag(name, &whole)),
            By::Variables => variables.entry(variable).or_default().push(path),
        }
    }
    (flags, variables.into_iter().map(|(name, paths)| (name, paths.join(","))).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn lookups_are_tried_as_the_kubelet_tries_them() {
    let runtime = Runtime::start();
    let mut left_out = Vec::new();
    for case in cases::<LookupCase>("credential-lookup.json") {
        let image = case.image.as_ref().unwrap_or(&case.lookup);
        if ImageRef::parse(image).unwrap().lookup_key() != case.lookup {
            left_out.push(case.name);
            continue;
        }
        for by in [By::Flags, By::Variables] {
            let folder = tempfile::tempdir().unwrap();
            let (flags, variables) = plant(&case, folder.path(), by);
            let mut logins = runtime.pull(folder.path(), &flags, &variables, image);
            let mut expected = case.expected.clone();
            if case.order == "any" {
                logins.sort_by_key(|login| pairs(std::slice::from_ref(login)));
                expected.sort();
            }
            if case.expect_error {
                // documented difference: what is malformed is told, and the rest is tried
                let explained = explain(folder.path(), &plant(&case, folder.path(), By::Flags).0, &[image]);
                assert_ne!(explained[0]["problems"], json!([]), "{}", case.name);
                continue;
            }
            check(&case.name, &logins, &expected);
        }
    }
    assert_eq!(left_out.len(), 1, "only what is no image's name is left out: {left_out:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_passed_on() {
    let runtime = Runtime::start();
    let folder = tempfile::tempdir().unwrap();
    let tokens = json!({"auth": "dTpw", "identitytoken": "an-identity", "registrytoken": "a-token"});
    let expected = Login {
        username: "u".into(),
        password: "p".into(),
        identity_token: "an-identity".into(),
        registry_token: "a-token".into(),
        ..Login::default()
    };
    for (name, text) in [("c.json", docker_config("r.test", &tokens)), (".dockercfg", dockercfg("r.test", &tokens))] {
        let flags = flag("docker-config", &write(folder.path(), name, &text).unwrap());
        assert_eq!(runtime.pull(folder.path(), &flags, &[], "r.test/app"), [Some(expected.clone())]);
    }
}

#[derive(Deserialize)]
struct MatchCase {
    pattern: String,
    target: String,
    r#match: bool,
    mode: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_match_as_in_the_kubelet() {
    let runtime = Runtime::start();
    let mut tried = 0;
    for case in cases::<MatchCase>("credential-match.json") {
        let name = format!("{} for {}", case.pattern, case.target);
        // a command is given images only
        if !ImageRef::parse(&case.target).is_ok_and(|image| image.lookup_key() == case.target) {
            continue;
        }
        tried += 1;
        let folder = tempfile::tempdir().unwrap();
        if case.mode == "matchImages" {
            let called = folder.path().join("called");
            let flags =
                plugin(folder.path(), &case.pattern, &json!([]), &format!("touch {}", called.display())).unwrap();
            explain(folder.path(), &flags, &[&case.target]);
            assert_eq!(called.exists(), case.r#match, "{name}");
        } else {
            let text = docker_config(&case.pattern, &entry("user", "password"));
            let flags = flag("docker-config", &write(folder.path(), "config.json", &text).unwrap());
            let expected = case.r#match.then(|| Pair { username: "user".into(), password: "password".into() });
            let expected: Vec<_> = expected.into_iter().collect();
            check(&name, &runtime.pull(folder.path(), &flags, &[], &case.target), &expected);
        }
    }
    assert!(tried > 20, "{tried} cases are images");
}

#[derive(Deserialize)]
struct DecodeCase {
    kind: String,
    input: String,
    ok: bool,
    username: Option<String>,
    password: Option<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_decoded_as_in_the_kubelet() {
    let runtime = Runtime::start();
    for case in cases::<DecodeCase>("auth-decode.json") {
        let folder = tempfile::tempdir().unwrap();
        let entry = if case.kind == "authField" { json!({"auth": case.input}).to_string() } else { case.input.clone() };
        let text = format!("{{\"auths\":{{\"r.test\":{entry}}}}}");
        let secret = write(folder.path(), "secret.yaml", &secret_yaml("name", &text)).unwrap();
        let pair = Pair { username: case.username.unwrap_or_default(), password: case.password.unwrap_or_default() };
        let expected: Vec<_> = case.ok.then_some(pair).into_iter().collect();
        check(&case.input, &runtime.pull(folder.path(), &flag("pull-secret", &secret), &[], "r.test/app:1"), &expected);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SearchCase {
    name: String,
    files: BTreeMap<String, String>,
    image: String,
    expected: Vec<Pair>,
}

/// What a case has in `/` cannot be there in a test.
#[tokio::test(flavor = "multi_thread")]
async fn the_node_is_searched_as_by_the_kubelet() {
    let runtime = Runtime::start();
    let mut tried = 0;
    for case in cases::<SearchCase>("node-config-search.json") {
        let (kubelet, home, working) = ("/var/lib/kubelet/", "/root/", "/cwd/");
        if !case.files.keys().all(|file| [kubelet, home, working].iter().any(|folder| file.starts_with(folder))) {
            continue;
        }
        tried += 1;
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("cwd")).unwrap();
        for (path, content) in &case.files {
            write(folder.path(), path.strip_prefix('/').unwrap(), content).unwrap();
        }
        let at = |name: &str| folder.path().join(name.trim_matches('/')).display().to_string();
        let variables = [("PREPULL_KUBELET_ROOT", at(kubelet)), ("HOME", at(home))];
        let logins = runtime.pull(&PathBuf::from(at(working)), &[], &variables, &case.image);
        check(&case.name, &logins, &case.expected);
    }
    assert!(tried >= 2, "{tried} cases can be tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_called_as_by_the_kubelet() {
    let runtime = Runtime::start();
    let calls = cases::<Value>("exec-plugin.json").into_iter().filter(|case| case["kind"] == "call");
    for case in calls {
        let name = case["name"].as_str().unwrap();
        let folder = tempfile::tempdir().unwrap();
        // the answers in turn; a call that is not expected finds none
        let calls = case["calls"].as_array().unwrap();
        let expected_calls = calls.iter().filter(|call| call["expect"]["execCalled"] == true);
        let mut count = 0;
        for call in expected_calls {
            count += 1;
            let stdout = call["plugin"]["stdout"].as_str().unwrap_or_default();
            write(folder.path(), &format!("answer-{count}"), stdout).unwrap();
            write(
                folder.path(),
                &format!("exit-{count}"),
                &call["plugin"]["exitCode"].as_i64().unwrap_or(0).to_string(),
            )
            .unwrap();
        }
        let here = folder.path().display();
        let script = format!("cd {here}; echo >> calls; n=$(wc -l < calls); cat answer-$n; exit $(cat exit-$n)");
        let flags = plugin(folder.path(), "unused.test", &json!([]), &script).unwrap();
        let mut provider = case["provider"].clone();
        provider["name"] = "helper".into();
        let config = json!({"kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1", "providers": [provider]});
        write(folder.path(), "provider.json", &config.to_string()).unwrap();

        let images: Vec<_> = calls.iter().map(|call| call["image"].as_str().unwrap()).collect();
        let explained = explain(folder.path(), &flags, &images);
        for (call, explained) in calls.iter().zip(explained.as_array().unwrap()) {
            let users =
                |list: &Value| list.as_array().unwrap().iter().map(|c| c["username"].clone()).collect::<Vec<_>>();
            assert_eq!(users(&explained["credentials"]), users(&call["expect"]["credentials"]), "{name}");
        }
        let called = || fs::read_to_string(folder.path().join("calls")).unwrap_or_default().lines().count();
        assert_eq!(called(), count, "{name}");

        fs::remove_file(folder.path().join("calls")).unwrap();
        let expected: Vec<Pair> = serde_json::from_value(calls[0]["expect"]["credentials"].clone()).unwrap();
        check(name, &runtime.pull(folder.path(), &flags, &[], images[0]), &expected);
        assert_eq!(called(), 1, "{name}: once for one pull");
    }
}
