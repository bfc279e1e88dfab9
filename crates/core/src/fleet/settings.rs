//! What an agent was told at its start, as its pod says it: which lists it follows, and when it counts as ready.

use std::collections::BTreeMap;

/// The port that the manifests give it.
const DEFAULT_PORT: u16 = 9797;

/// What of an agent's flags and variables matters to people who ask it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Settings {
    /// ConfigMaps that it follows by name, `namespace/name`.
    pub configmaps: Vec<String>,
    /// Namespace and selector of those that it follows by label.
    pub selected: Option<(String, String)>,
    /// Its pod is ready as soon as it runs: being ready says nothing of warmth.
    pub ready_when_running: bool,
    /// Where it serves HTTP.
    pub port: u16,
}

impl Settings {
    /// Whether it follows no ConfigMap at all: its list is a file, and what is in there now is not known to anybody else.
    pub fn follow_a_file(&self) -> bool {
        self.configmaps.is_empty() && self.selected.is_none()
    }

    /// Reads a container's arguments, in which `$(NAME)` stands for a variable as in a Pod, and its variables. A flag
    /// goes before its twin in the environment, as in the agent.
    pub fn of(args: &[String], variables: &BTreeMap<String, String>) -> Self {
        let args: Vec<String> = args.iter().map(|arg| expanded(arg, variables)).collect();
        let all = |flag: &str| -> Vec<String> {
            let given: Vec<String> = values(&args, flag).collect();
            if given.is_empty() { twin(variables, flag).into_iter().collect() } else { given }
        };
        let last = |flag: &str| all(flag).pop();
        let mut configmaps: Vec<String> = values(&args, "configmap").collect();
        if configmaps.is_empty() {
            let several = twin(variables, "configmap").unwrap_or_default();
            configmaps = several.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect();
        }
        let port = last("listen").and_then(|address| address.rsplit_once(':')?.1.parse().ok());
        Self {
            configmaps,
            selected: last("configmap-namespace").zip(last("configmap-selector")),
            ready_when_running: last("ready-when").is_some_and(|when| when == "running"),
            port: port.unwrap_or(DEFAULT_PORT),
        }
    }
}

/// The values of a flag, in either way of writing it.
fn values<'a>(args: &'a [String], flag: &'a str) -> impl Iterator<Item = String> + 'a {
    args.iter().enumerate().filter_map(move |(at, arg)| {
        let rest = arg.strip_prefix("--")?.strip_prefix(flag)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value.to_owned()),
            None if rest.is_empty() => args.get(at + 1).cloned(),
            None => None,
        }
    })
}

/// The variable of a flag; an empty one is none.
fn twin(variables: &BTreeMap<String, String>, flag: &str) -> Option<String> {
    let name = format!("PREPULL_{}", flag.replace('-', "_").to_ascii_uppercase());
    variables.get(&name).filter(|value| !value.is_empty()).cloned()
}

/// `$(NAME)` is the variable of this name where there is one; else it stays.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(") {
        out.push_str(before);
        if let Some((value, after)) =
            after.split_once(')').and_then(|(name, after)| Some((variables.get(name)?, after)))
        {
            out.push_str(value);
            rest = after;
        } else {
            out.push_str("$(");
            rest = after;
        }
    }
    out + rest
}
