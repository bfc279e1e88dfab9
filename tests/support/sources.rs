//! Credentials as files: docker configs, pull secrets, plugins, and the prepull command that is given them.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

/// What plugins are spoken to in.
pub const PLUGIN_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// One entry of a docker config, by user name and password.
pub fn entry(user: &str, password: &str) -> Value {
    json!({"username": user, "password": password})
}

/// A `config.json`.
pub fn docker_config(host: &str, entry: &Value) -> String {
    json!({"auths": {host: entry}}).to_string()
}

/// A `.dockercfg`.
pub fn dockercfg(host: &str, entry: &Value) -> String {
    json!({host: entry}).to_string()
}

/// A Secret of type `kubernetes.io/dockerconfigjson`, as people write it by hand: YAML, `stringData`.
pub fn secret_yaml(name: &str, config: &str) -> String {
    let config = Value::from(config);
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: team\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: {config}\n"
    )
}

/// A Secret of type `kubernetes.io/dockercfg`, as the API server gives it: JSON, `data`.
pub fn secret_json(name: &str, dockercfg: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/dockercfg",
        "data": {".dockercfg": BASE64_STANDARD.encode(dockercfg)},
    })
    .to_string()
}

/// What a plugin prints for one registry.
pub fn plugin_answer(host: &str, entry: &Value) -> String {
    json!({
        "kind": "CredentialProviderResponse", "apiVersion": PLUGIN_VERSION,
        "cacheKeyType": "Registry", "cacheDuration": "0s", "auth": {host: entry},
    })
    .to_string()
}

/// Writes a plugin, a shell script, and its configuration into `folder`; gives the flags that name them.
pub fn plugin(folder: &Path, pattern: &str, env: &Value, script: &str) -> Result<Vec<String>> {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin)?;
    let program = bin.join("helper");
    fs::write(&program, format!("#!/bin/sh\ncat > /dev/null\n{script}\n"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let config = json!({
        "kind": "CredentialProviderConfig", "apiVersion": "kubelet.config.k8s.io/v1",
        "providers": [{
            "name": "helper", "apiVersion": PLUGIN_VERSION, "defaultCacheDuration": "0s",
            "matchImages": [pattern], "env": env,
        }],
    });
    let config = write(folder, "provider.json", &config.to_string())?;
    Ok([flag("image-credential-provider-config", &config), flag("image-credential-provider-bin-dir", &bin)].concat())
}

/// A plugin that gives one credential.
pub fn good_plugin(folder: &Path, host: &str, entry: &Value) -> Result<Vec<String>> {
    let answer = write(folder, "answer.json", &plugin_answer(host, entry))?;
    plugin(folder, host, &json!([]), &format!("cat {}", answer.display()))
}

/// Writes a file, with the folders on its way.
pub fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
    fs::write(&path, text)?;
    Ok(path)
}

/// `--NAME PATH`.
pub fn flag(name: &str, path: &Path) -> Vec<String> {
    vec![format!("--{name}"), path.display().to_string()]
}

/// The command, with nothing of this machine's own credentials: every folder that is searched is `folder`.
pub fn prepull(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("HOME", folder).env("PREPULL_KUBELET_ROOT", folder);
    command.env("PREPULL_CLOUD_CREDENTIALS", "off");
    command
}

/// Runs `prepull pull -o json` for one image.
pub fn pull(program: &Path, folder: &Path, socket: &Path, flags: &[String], image: &str) -> Result<Output> {
    let mut command = prepull(program, folder);
    command.args(["pull", "-o", "json", "--runtime-endpoint"]).arg(socket).args(flags).arg(image);
    command.output().context("prepull cannot be started")
}

/// What the only image of a `prepull pull -o json` came to.
pub fn pulled(output: &Output) -> Result<Value> {
    let told = || format!("{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).with_context(told)?;
    status["images"].get(0).cloned().with_context(told)
}
