//! A real Prometheus that scrapes what a PodMonitor selects and evaluates what a PrometheusRule says, without the
//! operator that would translate them. Debian's build knows no discovery by Kubernetes, so it finds all pods of the
//! cluster in a file, described as that discovery would, and what the PodMonitor selects is left to its relabeling.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{http, process, registry::free_port};

/// How many times faster the rules live here. An hour is twelve seconds, and a minute a fifth of one.
const FASTER: u64 = 300;
/// Between two scrapes: shorter than any time that rules speak of.
const SCRAPE: &str = "500ms";
/// Between two points of a range of time.
const STEP: Duration = Duration::from_secs(1);

/// A running Prometheus.
pub(crate) struct Prometheus {
    process: process::Running,
    address: String,
    folder: TempDir,
    began: SystemTime,
}

impl Prometheus {
    /// Starts one beside the cluster, with all its pods to choose from.
    pub(crate) fn start(program: &Path, pods: &Value, monitor: &Value, rule: &Value) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("prepull-prometheus-").tempdir()?;
        let mut groups = json!({"groups": rule["spec"]["groups"]});
        faster(&mut groups);
        fs::write(folder.path().join("rules.yaml"), groups.to_string())?;
        let config = json!({
            "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
            "rule_files": ["rules.yaml"],
            "scrape_configs": scrape_configs(monitor)?,
        });
        fs::write(folder.path().join("pods.json"), Value::from(discovered(pods)).to_string())?;
        fs::write(folder.path().join("prometheus.yaml"), config.to_string())?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = process::command(program);
        command
            .arg(format!("--config.file={}", folder.path().join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"));
        let process = process::Running::start("prometheus", command, folder.path())?;
        Ok(Self { process, address, folder, began: SystemTime::now() })
    }

    /// What it said.
    pub(crate) fn log(&mut self) -> String {
        let ended = self.process.ended().map_or(String::new(), |status| format!("Prometheus ended: {status}\n"));
        ended + &fs::read_to_string(self.folder.path().join("prometheus.err")).unwrap_or_default()
    }

    /// The series that an expression has now.
    pub(crate) async fn now(&self, expression: &str) -> Result<Vec<Value>> {
        self.ask("query", &[("query", expression)]).await
    }

    /// The series that an expression has had since this Prometheus began. The last step lies after now: between two steps
    /// nothing is seen, and what has just begun would not have been.
    pub(crate) async fn until_now(&self, expression: &str) -> Result<Vec<Value>> {
        let seconds = |time: SystemTime| -> Result<String> {
            Ok(time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64().to_string())
        };
        let (start, end) = (seconds(self.began)?, seconds(SystemTime::now() + STEP)?);
        let query = [("query", expression), ("start", &start), ("end", &end), ("step", &STEP.as_secs().to_string())];
        self.ask("query_range", &query).await
    }

    async fn ask(&self, what: &str, query: &[(&str, &str)]) -> Result<Vec<Value>> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let answer = http::get(&self.address, &format!("/api/v1/{what}?{query}")).await?;
        let body: Value = serde_json::from_slice(&answer.body).context("Prometheus gave no JSON")?;
        ensure!(body["status"] == "success", "{body}");
        Ok(body["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

fn label_name(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// Every port of every running container, with the labels that Prometheus' discovery of pods gives it.
fn discovered(pods: &Value) -> Vec<Value> {
    let mut targets = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten().filter(|pod| pod["status"]["podIP"].is_string()) {
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            for port in container["ports"].as_array().into_iter().flatten() {
                let mut labels = json!({
                    "__meta_kubernetes_namespace": pod["metadata"]["namespace"],
                    "__meta_kubernetes_pod_name": pod["metadata"]["name"],
                    "__meta_kubernetes_pod_phase": pod["status"]["phase"],
                    "__meta_kubernetes_pod_node_name": pod["spec"]["nodeName"],
                    "__meta_kubernetes_pod_container_name": container["name"],
                    "__meta_kubernetes_pod_container_port_name": port["name"],
                });
                for (name, value) in pod["metadata"]["labels"].as_object().into_iter().flatten() {
                    labels[format!("__meta_kubernetes_pod_label_{}", label_name(name))] = value.clone();
                }
                targets.push(json!({"targets": [format!("{address}:{}", port["containerPort"])], "labels": labels}));
            }
        }
    }
    targets
}

/// The scrape configuration that the operator makes of a PodMonitor, as far as this one uses its fields; one with others
/// is refused.
fn scrape_configs(monitor: &Value) -> Result<Vec<Value>> {
    let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("{value} is no text"));
    let (namespace, name) = (text(&monitor["metadata"]["namespace"])?, text(&monitor["metadata"]["name"])?);
    let spec = &monitor["spec"];
    only(spec, &["jobLabel", "selector", "podMetricsEndpoints"])?;
    only(&spec["selector"], &["matchLabels"])?;
    // without a namespaceSelector, those of its own namespace
    let own = json!({"action": "keep", "source_labels": ["__meta_kubernetes_namespace"], "regex": namespace});
    let mut common = vec![
        own,
        json!({"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"}),
    ];
    for (key, value) in spec["selector"]["matchLabels"].as_object().context("no matchLabels")? {
        let source = format!("__meta_kubernetes_pod_label_{}", label_name(key));
        common.push(json!({"action": "keep", "source_labels": [source], "regex": value}));
    }
    let mut configs = Vec::new();
    for (number, endpoint) in spec["podMetricsEndpoints"].as_array().into_iter().flatten().enumerate() {
        only(endpoint, &["port", "path", "interval", "relabelings"])?;
        let mut relabel = common.clone();
        let copied = [("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod")];
        relabel.push(json!({"action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": endpoint["port"]}));
        relabel.extend(
            copied
                .map(|(meta, to)| json!({"source_labels": [format!("__meta_kubernetes_{meta}")], "target_label": to})),
        );
        relabel.push(json!({"target_label": "job", "replacement": format!("{namespace}/{name}")}));
        let job = format!("__meta_kubernetes_pod_label_{}", label_name(&text(&spec["jobLabel"])?));
        relabel.push(json!({"source_labels": [job], "target_label": "job", "regex": "(.+)", "replacement": "${1}"}));
        relabel.push(json!({"target_label": "endpoint", "replacement": endpoint["port"]}));
        for own in endpoint["relabelings"].as_array().into_iter().flatten() {
            only(own, &["action", "sourceLabels", "targetLabel"])?;
            relabel.push(json!({"action": own["action"], "source_labels": own["sourceLabels"], "target_label": own["targetLabel"]}));
        }
        configs.push(json!({
            "job_name": format!("podMonitor/{namespace}/{name}/{number}"),
            "metrics_path": endpoint["path"],
            "file_sd_configs": [{"files": ["pods.json"]}],
            "relabel_configs": relabel,
        }));
    }
    Ok(configs)
}

/// An object has no other fields than these, and all of them.
fn only(object: &Value, fields: &[&str]) -> Result<()> {
    let has: Vec<&str> = object.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let same = has.len() == fields.len() && has.iter().all(|field| fields.contains(field));
    ensure!(same, "this translation knows {fields:?}, and the object has {has:?}");
    Ok(())
}

fn faster(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str().filter(|_| ["for", "interval", "expr"].contains(&name.as_str())) {
                    Some(text) => *field = hurried(text).into(),
                    None => faster(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(faster),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// An expression or a duration with its times in minutes and hours divided.
pub(crate) fn hurried(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(at);
        let (number, after) = from.split_at(from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len()));
        out.push_str(before);
        let seconds = match after.chars().next() {
            Some('m') => Some(60),
            Some('h') => Some(3600),
            _ => None,
        };
        // a name may end with a digit, and a unit with nothing but itself
        let alone = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && !after.chars().nth(1).is_some_and(|c| c.is_alphanumeric() || c == '_');
        if let Some((seconds, number)) = seconds.filter(|_| alone).zip(number.parse::<u64>().ok()) {
            // writing into a String cannot fail
            let _ = write!(out, "{}ms", number * seconds * 1000 / FASTER);
            rest = &after[1..];
        } else {
            out.push_str(number);
            rest = after;
        }
    }
    out + rest
}
