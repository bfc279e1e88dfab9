//! The prometheus-operator's own CustomResourceDefinitions, from its Go module, and objects compared with them.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::parts::Missing;

const MODULE: &str = "github.com/prometheus-operator/prometheus-operator@v0.88.0";
/// Of the module's content, as in a go.sum.
const SUM: &str = "h1:3T/dCQdk7CUVRqVfwRHoC5g66fC/ML6XQQLtQVL6Q5o=";

/// The folder of the definitions.
#[derive(Debug, Clone)]
pub struct Definitions(PathBuf);

/// The definitions, downloaded once into Go's own cache.
pub fn definitions() -> Result<Definitions, Missing> {
    let missing = |why: String| Missing {
        part: "prometheus-operator".to_owned(),
        sentence: format!("the prometheus-operator's definitions come from the Go module {MODULE}, and {why}"),
    };
    let said = Command::new("go")
        .args(["mod", "download", "-json", MODULE])
        .env("GOFLAGS", "-mod=mod")
        .current_dir(std::env::temp_dir())
        .output()
        .map_err(|error| missing(format!("Go cannot be run: {error}")))?;
    let answer: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    if answer["Sum"] != SUM {
        let why = String::from_utf8_lossy(&said.stderr);
        return Err(missing(format!("go mod download says: {} {}", answer["Error"], why.trim())));
    }
    let folder = PathBuf::from(answer["Dir"].as_str().unwrap_or_default());
    Ok(Definitions(folder.join("example/prometheus-operator-crd")))
}

impl Definitions {
    /// The file that defines a kind, by its plural.
    pub fn file(&self, plural: &str) -> PathBuf {
        self.0.join(format!("monitoring.coreos.com_{plural}.yaml"))
    }

    /// Compares an object with the definition of its kind, strictly: a field that is not defined is refused. Patterns
    /// and rules in CEL are left to an API server.
    pub fn check(&self, plural: &str, object: &Value) -> Result<()> {
        let file = self.file(plural);
        let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let definition: Value = serde_yaml::from_str(&text)?;
        ensure!(definition["spec"]["names"]["kind"] == object["kind"], "{plural} is another kind");
        let group = definition["spec"]["group"].as_str().context("a definition without a group")?;
        let version = object["apiVersion"].as_str().and_then(|v| v.strip_prefix(&format!("{group}/")));
        let versions = definition["spec"]["versions"].as_array().context("a definition without versions")?;
        let found = versions.iter().find(|v| v["name"].as_str() == version && v["served"] == true);
        let schema = &found.with_context(|| format!("{group} has no {}", object["apiVersion"]))?["schema"];
        ensure!(object["spec"].is_object(), "the object has no spec");
        for (field, value) in object.as_object().into_iter().flatten() {
            // the API server's own
            if field != "metadata" {
                compare(field, value, &schema["openAPIV3Schema"]["properties"][field])?;
            }
        }
        Ok(())
    }
}

fn compare(path: &str, value: &Value, schema: &Value) -> Result<()> {
    if schema.is_null() {
        bail!("{path} is not defined");
    }
    if schema["x-kubernetes-int-or-string"] == true {
        ensure!(value.is_string() || value.is_i64(), "{path} is neither a number nor a text");
        return Ok(());
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        _ => schema["x-kubernetes-preserve-unknown-fields"] == true,
    };
    ensure!(fits, "{path} is {value}, and should be of the type {}", schema["type"]);
    if let Some(allowed) = schema["enum"].as_array() {
        ensure!(allowed.contains(value), "{path} is {value}, and should be one of {allowed:?}");
    }
    if let Some(least) = schema["minLength"].as_u64() {
        ensure!(value.as_str().is_some_and(|text| text.len() as u64 >= least), "{path} is too short");
    }
    for (field, inner) in value.as_object().into_iter().flatten() {
        let defined = &schema["properties"][field];
        let any = &schema["additionalProperties"];
        compare(&format!("{path}.{field}"), inner, if defined.is_null() { any } else { defined })?;
    }
    for (at, inner) in value.as_array().into_iter().flatten().enumerate() {
        compare(&format!("{path}[{at}]"), inner, &schema["items"])?;
    }
    for field in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        ensure!(!value[field].is_null(), "{path} lacks {field}");
    }
    Ok(())
}
