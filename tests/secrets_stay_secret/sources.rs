//! Every source that is a file or a program.

use std::path::Path;

use anyhow::{Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tonic::Code;

use super::{
    canaries::{basic, canary, echoes, token},
    shown::{Seen, Setting},
    support::{
        fake_cri::{FakeCri, Offer},
        journal::Method,
        script::Rule,
        sources::{docker_config, dockercfg, entry, flag, plugin, plugin_answer, secret_json, secret_yaml, write},
    },
};

/// The images, and for each the secrets that its registry is sent.
const IMAGES: [(&str, [&str; 3]); 7] = [
    ("plain.test/app:1", ["plain", "", ""]),
    ("encoded.test/app:1", ["encoded", "", ""]),
    ("identity.test/app:1", ["identity-password", "identity", ""]),
    ("registry.test/app:1", ["registry-password", "", "registry"]),
    ("secret.test/app:1", ["secret", "", ""]),
    ("old.test/app:1", ["old", "", ""]),
    ("plugin.test/app:1", ["plugin", "", ""]),
];

fn images() -> Vec<&'static str> {
    IMAGES.iter().map(|(image, _)| *image).collect()
}

/// Writes all of them into a folder, and gives the flags that name them.
fn plant(folder: &Path) -> Result<Vec<String>> {
    let config = json!({
        "HttpHeaders": {"X-Meta": canary("header")},
        "credsStore": canary("store"),
        "credHelpers": {"plain.test": canary("helper")},
        "auths": {
            "https://someone:canary-in-a-key@plain.test": entry("robot", &canary("plain")),
            "encoded.test": {"auth": basic("robot", &canary("encoded"))},
            "identity.test": {
                "username": "robot", "password": canary("identity-password"), "identitytoken": token("identity"),
            },
            "registry.test": {
                "username": "robot", "password": canary("registry-password"), "registrytoken": token("registry"),
            },
        },
    });
    let secret = secret_yaml("new", &docker_config("secret.test", &entry("robot", &canary("secret"))));
    let old = secret_json("old", &dockercfg("old.test", &entry("robot", &canary("old"))));
    let answer = write(folder, "answer.json", &plugin_answer("plugin.test", &entry("robot", &canary("plugin"))))?;
    let env = json!([{"name": "HELPER_KEY", "value": canary("variable")}]);
    let script = format!("echo \"$HELPER_KEY\" >&2; env >&2; cat {0} >&2; cat {0}", answer.display());
    Ok([
        flag("docker-config", &write(folder, "config.json", &config.to_string())?),
        flag("pull-secret", &write(folder, "secret.yaml", &secret)?),
        flag("pull-secret", &write(folder, "old.json", &old)?),
        plugin(folder, "plugin.test", &env, &script)?,
    ]
    .concat())
}

pub(crate) async fn that_work() -> Result<()> {
    let fake = FakeCri::start()?;
    for (image, [password, ..]) in IMAGES {
        let logins = vec![("robot".to_owned(), canary(password))];
        fake.offer(image, Offer { logins, ..Offer::default() });
    }
    let folder = tempfile::tempdir()?;
    let flags = plant(folder.path())?;
    let images = images();
    let socket = fake.socket();
    let setting = Setting {
        socket: &socket,
        folder: folder.path(),
        images: &images,
        flags,
        environment: vec![],
        state: "Present",
    };
    let seen = setting.look().await?;
    for explained in seen.explained.as_array().into_iter().flatten() {
        ensure!(explained["credentials"][0]["username"] == "robot", "{explained:#}");
    }
    let tokens = |login: &super::support::journal::Login| [login.identity_token.clone(), login.registry_token.clone()];
    let sent: Vec<_> =
        fake.journal().calls(Method::PullImage).iter().filter_map(|c| c.login.as_ref().map(tokens)).collect();
    ensure!(sent.contains(&[token("identity"), String::new()]) && sent.contains(&[String::new(), token("registry")]));
    Ok(())
}

pub(crate) async fn that_are_refused() -> Result<()> {
    let fake = FakeCri::start()?;
    for (image, [password, identity, registry]) in IMAGES {
        let password = canary(password);
        let pair = format!("robot:{password}");
        let tokens = [identity, registry].into_iter().filter(|t| !t.is_empty()).map(token);
        let echoes: Vec<_> = [password, pair].into_iter().chain(tokens).flat_map(|secret| echoes(&secret)).collect();
        // the words decide the class, and a registry may put anything around them
        let text = format!("401 Unauthorized: you sent {}", echoes.join(" and\n"));
        fake.script().add(Rule::fail(Method::PullImage, Code::Unknown, &text).image(image));
    }
    let folder = tempfile::tempdir()?;
    let flags = plant(folder.path())?;
    let images = images();
    let socket = fake.socket();
    let setting = Setting {
        socket: &socket,
        folder: folder.path(),
        images: &images,
        flags,
        environment: vec![],
        state: "BackOff",
    };
    let seen = setting.look().await?;
    ensure!(seen.all.contains("401 Unauthorized: you sent [redacted] and"), "the servers' words are gone");
    for image in seen.status["images"].as_array().into_iter().flatten() {
        ensure!(image["class"] == "Unauthorized", "{image:#}");
    }
    Ok(())
}

/// A plugin that prints what it should keep, wherever it can, and in the end fails.
fn indiscreet_plugin(folder: &Path, name: &str, stdout: &str, exit: u8) -> Result<Vec<String>> {
    let folder = folder.join(name);
    let answer = write(&folder, "answer", stdout)?;
    let env = json!([{"name": "HELPER_KEY", "value": canary("variable")}]);
    let script = format!("echo \"$HELPER_KEY\" >&2; cat {0} >&2; cat {0}; exit {exit}", answer.display());
    plugin(&folder, "plain.test", &env, &script)
}

pub(crate) async fn that_are_malformed() -> Result<()> {
    let secret = canary("malformed");
    let encoded = STANDARD.encode(&secret);
    let config = json!({"auths": {
        "a.test": {"auth": format!("{secret}:")},
        "b.test": {"auth": encoded},
        "c.test": {"auth": [secret]},
        "d.test": secret,
        "e.test": {"username": "robot", "password": {"value": secret}},
        "f.test": {"identitytoken": [secret]},
        format!("robot:{secret}@g.test"): {},
        format!("https://robot:{secret}@h.test:port"): {},
    }});
    let folder = tempfile::tempdir()?;
    let at = |name: &str, text: &str| write(folder.path(), name, text);
    let in_a_secret = |text: &str| secret_yaml("bad", text);
    let files = [
        flag("docker-config", &at("1.json", &config.to_string())?),
        flag("docker-config", &at("2.json", &config.to_string()[..config.to_string().len() - 9])?),
        flag("docker-config", &at("3.json", &secret)?),
        flag("docker-config", &at("4.json", &format!("\"{encoded}\""))?),
        flag("docker-config", &at("old/.dockercfg", &json!([secret]).to_string())?),
        flag("pull-secret", &at("1.yaml", &in_a_secret(&config.to_string()))?),
        flag("pull-secret", &at("2.yaml", &in_a_secret(&secret))?),
        flag(
            "pull-secret",
            &at("3.yaml", &in_a_secret("{}").replace("dockerconfigjson\n", "tls\n").replace("{}", &encoded))?,
        ),
        flag("pull-secret", &at("4.yaml", &format!("kind: Secret\ndata: {{.dockerconfigjson: \"{encoded}!\"}}\n"))?),
        flag("pull-secret", &at("5.yaml", &format!("kind: Secret\n  stringData: [{encoded}\n"))?),
        flag("pull-secret", &at("6.yaml", &format!("{encoded}: 1\n"))?),
        flag("pull-secret", &at("7.json", &config.to_string())?),
    ];
    let response = plugin_answer("plain.test", &entry("robot", &secret));
    let plugins = [
        ("fails", response.clone(), 1),
        ("garbage", secret.clone(), 0),
        ("cut", response[..response.len() - 4].to_owned(), 0),
        ("version", response.replace("credentialprovider.kubelet.k8s.io/v1", &encoded), 0),
        ("kind", response.replace("CredentialProviderResponse", &encoded), 0),
        ("field", response.replace("cacheKeyType", &encoded), 0),
        ("cache", response.replace("Registry", &encoded), 0),
        ("duration", response.replace("0s", &encoded), 0),
        ("key", plugin_answer(&format!("robot:{encoded}@x:y"), &entry("robot", &secret)), 0),
        ("huge", secret.repeat(100_000), 0),
    ];
    let mut problems = Vec::new();
    for (name, stdout, exit) in plugins {
        let flags = [files.concat(), indiscreet_plugin(folder.path(), name, &stdout, exit)?].concat();
        let seen = look_at_a_failure(folder.path(), flags).await?;
        let all = seen.explained[0]["problems"].as_array().cloned().unwrap_or_default();
        let of_plugin = |p: &&Value| p.as_str().is_some_and(|p| p.contains("helper"));
        ensure!(all.iter().filter(of_plugin).count() == 1, "{name}: {all:#?}");
        problems = all;
    }
    ensure!(problems.len() > 20, "not everything is told: {problems:#?}");

    // and a configuration of plugins with the secret where none belongs
    let flags = indiscreet_plugin(folder.path(), "config", "", 0)?;
    let path = folder.path().join("config/provider.json");
    let good = std::fs::read_to_string(&path)?;
    for bad in [
        good.replace("\"env\"", "\"evn\""),
        good.replace("\"value\":", "\"value\":1,\"x\":"),
        good[..good.len() - 5].to_owned(),
    ] {
        ensure!(bad != good);
        std::fs::write(&path, bad)?;
        let seen = look_at_a_failure(folder.path(), flags.clone()).await?;
        ensure!(
            seen.explained[0]["problems"][0].as_str().is_some_and(|p| p.contains("provider.json")),
            "{:#}",
            seen.explained
        );
    }
    Ok(())
}

async fn look_at_a_failure(folder: &Path, flags: Vec<String>) -> Result<Seen> {
    let fake = FakeCri::start()?;
    fake.offer("plain.test/app:1", Offer { logins: vec![("nobody".into(), "knows".into())], ..Offer::default() });
    let socket = fake.socket();
    let images = ["plain.test/app:1"];
    Setting { socket: &socket, folder, images: &images, flags, environment: vec![], state: "BackOff" }.look().await
}
