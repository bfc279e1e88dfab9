//! Rules, alerts, dashboard and PodMonitor without a cluster: Prometheus' own checks and unit tests of the rules, the
//! names and labels that they speak of, the operator's definitions, and the runbook. What a real Prometheus makes of
//! them on a real cluster is in tests/cluster.

#[path = "monitoring/names.rs"]
mod names;
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Arguments;
use serde_json::{Value, json};
use support::{
    monitoring::{self, COMPONENT, Query, Use},
    operator::{self, Definitions},
    parts::{Missing, find},
    trials::trial,
};

type Prometheus = (PathBuf, PathBuf);

fn main() -> ExitCode {
    let python = || {
        find("python3").map(drop).ok_or_else(|| Missing {
            part: "python3".to_owned(),
            sentence: "python3 is not installed: install the package python3".to_owned(),
        })
    };
    let trials = vec![
        trial("rules::promtool_accepts_them", monitoring::prometheus(), accepted),
        trial("rules::each_alert_fires_and_does_not", monitoring::prometheus(), fire),
        trial("rules::each_alert_has_its_section_of_the_runbook", Ok(()), runbook),
        trial("names::everything_that_is_asked_for_is_exposed", monitoring::prometheus(), names::exposed),
        trial("names::what_is_not_exposed_is_found", Ok(()), names::not_exposed),
        trial("files::are_what_their_script_writes", python(), generated),
        trial("operator::its_definitions_take_the_objects", operator::definitions(), defined),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs a program in a folder and wants it to end well.
fn run(program: &Path, arguments: &[&str], folder: &Path) -> Result<()> {
    let out = Command::new(program).args(arguments).current_dir(folder).output()?;
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{} {arguments:?}: {said}", program.display());
    Ok(())
}

/// The groups as a file, beside which unit tests may lie.
fn write_rules(folder: &Path) -> Result<()> {
    fs::write(folder.join("rules.yaml"), serde_yaml::to_string(&monitoring::groups()?)?)?;
    Ok(())
}

async fn accepted((promtool, _): Prometheus) -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_rules(folder.path())?;
    run(&promtool, &["check", "rules", "--lint-fatal", "rules.yaml"], folder.path())
}

async fn fire((promtool, _): Prometheus) -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_rules(folder.path())?;
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/monitoring/alerts");
    let (mut fires, mut does_not) = (Vec::new(), Vec::new());
    let mut files = 0;
    for entry in fs::read_dir(tests)? {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())?;
        let cases: Value = serde_yaml::from_str(&text)?;
        for case in cases["tests"].as_array().into_iter().flatten() {
            for expected in case["alert_rule_test"].as_array().into_iter().flatten() {
                let none = expected["exp_alerts"].as_array().is_none_or(Vec::is_empty);
                let of = if none { &mut does_not } else { &mut fires };
                of.push(expected["alertname"].clone());
            }
        }
        let name = entry.file_name();
        fs::write(folder.path().join(&name), text)?;
        run(&promtool, &["test", "rules", &name.to_string_lossy()], folder.path())?;
        files += 1;
    }
    ensure!(files >= 5, "only {files} files of tests were found");
    for rule in monitoring::rules()?.iter().filter(|rule| !rule["alert"].is_null()) {
        ensure!(fires.contains(&rule["alert"]), "no test lets {} fire", rule["alert"]);
        ensure!(does_not.contains(&rule["alert"]), "no test keeps {} from firing", rule["alert"]);
    }
    Ok(())
}

async fn runbook((): ()) -> Result<()> {
    let runbook = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md"))?;
    let mut alerts = 0;
    for rule in monitoring::rules()?.iter().filter(|rule| !rule["alert"].is_null()) {
        let name = rule["alert"].as_str().context("an alert without a name")?;
        for text in ["summary", "description"] {
            ensure!(
                rule["annotations"][text].as_str().is_some_and(|t| t.ends_with(['.', '}'])),
                "{name} has no {text}"
            );
        }
        let link = format!("https://github.com/prepull/prepull/blob/main/docs/runbook.md#{}", name.to_lowercase());
        ensure!(rule["annotations"]["runbook_url"] == link, "{name} links to {}", rule["annotations"]["runbook_url"]);
        let begins = runbook.find(&format!("\n## {name}\n")).with_context(|| format!("no section about {name}"))?;
        let section = &runbook[begins + 4..];
        let section = &section[..section.find("\n## ").unwrap_or(section.len())];
        for part in ["**Means.**", "**Look first.**", "**Mend.**", "**Silence.**", "kubectl "] {
            ensure!(section.contains(part), "the section about {name} has no {part}");
        }
        alerts += 1;
    }
    let sections = runbook.lines().filter(|line| line.starts_with("## Prepull")).count();
    ensure!(sections == alerts, "{sections} sections about {alerts} alerts");
    Ok(())
}

async fn generated((): ()) -> Result<()> {
    run(Path::new("hack/monitoring-files"), &["--check"], Path::new(env!("CARGO_MANIFEST_DIR")))
}

/// Both objects are taken, and neither with a field more or a value of another type.
async fn defined(definitions: Definitions) -> Result<()> {
    for (plural, file) in [("podmonitors", "pod-monitor.yaml"), ("prometheusrules", "prometheus-rule.yaml")] {
        let object = monitoring::object(file)?;
        definitions.check(plural, &object).with_context(|| format!("{COMPONENT}/{file}"))?;
        let mut unknown = object.clone();
        unknown["spec"]["intervall"] = json!("30s");
        let refused = definitions.check(plural, &unknown).err().map(|e| e.to_string()).unwrap_or_default();
        ensure!(refused == "spec.intervall is not defined", "{refused}");
        let list = if plural == "podmonitors" { "podMetricsEndpoints" } else { "groups" };
        let mut deeper = object.clone();
        deeper["spec"][list][0]["intervall"] = json!("30s");
        ensure!(definitions.check(plural, &deeper).is_err(), "an unknown field of {list} is taken");
        let mut wrong = object.clone();
        wrong["spec"][list] = json!("none");
        ensure!(definitions.check(plural, &wrong).is_err(), "{list} may be a text");
    }
    Ok(())
}
