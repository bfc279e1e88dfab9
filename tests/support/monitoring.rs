//! The rules, the alerts and the dashboard as they lie in the manifests, and Prometheus' own programs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::parts::{Missing, find};

/// Where the component lies.
pub const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/components/monitoring");

/// What the expression is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// A panel of the dashboard, over a range of time or at its end.
    Panel { instant: bool },
    /// A recording rule.
    Record,
    /// An alert.
    Alert,
}

/// An expression of PromQL.
#[derive(Debug, Clone)]
pub struct Query {
    /// The panel's title, or the rule's name.
    pub name: String,
    /// As it stands in the file, Grafana's variables included.
    pub expression: String,
    /// What for.
    pub used: Use,
}

/// promtool and Prometheus, which come in one package.
pub fn prometheus() -> Result<(PathBuf, PathBuf), Missing> {
    let part = |program| {
        find(program).ok_or_else(|| Missing {
            part: program.to_owned(),
            sentence: format!(
                "{program} is not installed: run hack/install-parts --optional, or install the package prometheus"
            ),
        })
    };
    Ok((part("promtool")?, part("prometheus")?))
}

/// An object of the component.
pub fn object(file: &str) -> Result<Value> {
    let path = Path::new(COMPONENT).join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_yaml::from_str(&text).with_context(|| format!("{} is no YAML", path.display()))
}

/// The rule groups, as Prometheus reads them from a file.
pub fn groups() -> Result<Value> {
    Ok(json!({"groups": object("prometheus-rule.yaml")?["spec"]["groups"]}))
}

/// The rules, those of all groups one after the other.
pub fn rules() -> Result<Vec<Value>> {
    let groups = groups()?;
    let groups = groups["groups"].as_array().context("there are no groups")?;
    Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
}

/// Every expression of the rules and of the dashboard.
pub fn queries() -> Result<Vec<Query>> {
    let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("{value} is no text"));
    let mut queries = Vec::new();
    for rule in rules()? {
        let (name, used) = match &rule["alert"] {
            Value::Null => (text(&rule["record"])?, Use::Record),
            alert => (text(alert)?, Use::Alert),
        };
        queries.push(Query { name, expression: text(&rule["expr"])?, used });
    }
    let dashboard = object("dashboard.json")?;
    for panel in dashboard["panels"].as_array().context("the dashboard has no panels")? {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let used = Use::Panel { instant: target["instant"] == true };
            queries.push(Query { name: text(&panel["title"])?, expression: text(&target["expr"])?, used });
        }
    }
    Ok(queries)
}

impl Query {
    /// With Grafana's variables filled in: everything of the job `prepull`, rates over `interval`, sums over `range`.
    pub fn filled(&self, interval: &str, range: &str) -> String {
        self.expression
            .replace("$__rate_interval", interval)
            .replace("$__range", range)
            .replace("$cluster", ".*")
            .replace("$job", "prepull")
    }
}
