//! Every metric and label that a rule or a panel speaks of is one that an agent exposes, a rule records, or Prometheus
//! adds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context, Result, bail, ensure};
use prepull::{
    metrics::{
        Metrics,
        families::{self, Kind, Values},
    },
    status::Status,
};
use serde_json::{Value, json};

use super::{
    Prometheus, Query, Use, monitoring, run,
    support::promql::{Mentions, mentions},
};

/// What the operator gives every target of a PodMonitor.
const OF_THE_TARGET: [&str; 6] = ["job", "namespace", "pod", "container", "endpoint", "instance"];
/// What many installations add.
const OF_THE_CLUSTER: &str = "cluster";

/// Metrics by name, each with its labels but those of the target.
type Known = BTreeMap<String, BTreeSet<String>>;

fn known(queries: &[Query]) -> Result<Known> {
    let mut known = Known::new();
    for family in families::ALL {
        let name = family.full_name();
        let labels: BTreeSet<String> = family.label_names().into_iter().map(str::to_owned).collect();
        if matches!(family.kind, Kind::Histogram(_)) {
            let mut with_bound = labels.clone();
            with_bound.insert("le".to_owned());
            known.insert(format!("{name}_bucket"), with_bound);
            known.insert(format!("{name}_sum"), labels.clone());
            known.insert(format!("{name}_count"), labels);
        } else {
            known.insert(name, labels);
        }
    }
    let page = Metrics::new()?.page(&Status::default())?;
    let of_the_process = page.lines().filter(|line| line.starts_with("process_"));
    known.extend(of_the_process.filter_map(|line| Some((line.split_once(' ')?.0.to_owned(), BTreeSet::new()))));
    known.insert("up".to_owned(), BTreeSet::new());
    for record in queries.iter().filter(|q| q.used == Use::Record) {
        // all of them aggregate, so what they are grouped by is what they have
        known.insert(record.name.clone(), mentions(&record.expression).grouping);
    }
    Ok(known)
}

fn of_the_target() -> Result<BTreeSet<String>> {
    let monitor = monitoring::object("pod-monitor.yaml")?;
    let relabelings = monitor["spec"]["podMetricsEndpoints"][0]["relabelings"].as_array().cloned();
    let added = relabelings.into_iter().flatten().filter_map(|r| Some(r["targetLabel"].as_str()?.to_owned()));
    Ok(OF_THE_TARGET.into_iter().chain([OF_THE_CLUSTER]).map(str::to_owned).chain(added).collect())
}

fn check(spoken: &Mentions, known: &Known, target: &BTreeSet<String>) -> Result<()> {
    let mut all = target.clone();
    for (metric, labels) in &spoken.metrics {
        let Some(has) = known.get(metric) else { bail!("nobody exposes {metric}") };
        if let Some(label) = labels.iter().find(|l| !has.contains(*l) && !target.contains(*l)) {
            bail!("{metric} has no label {label}");
        }
        all.extend(has.iter().cloned());
    }
    if let Some(label) = spoken.grouping.iter().find(|label| !all.contains(*label)) {
        bail!("no metric of the expression has the label {label}");
    }
    Ok(())
}

pub(super) async fn exposed((promtool, _): Prometheus) -> Result<()> {
    let queries = monitoring::queries()?;
    let (known, target) = (known(&queries)?, of_the_target()?);
    let mut panels = 0;
    let mut rules = Vec::new();
    for query in &queries {
        let expression = query.filled("5m", "6h");
        ensure!(!expression.contains('$'), "a variable is left in {expression}");
        check(&mentions(&expression), &known, &target).with_context(|| format!("{}: {expression}", query.name))?;
        rules.push(json!({"record": format!("query:{}", rules.len()), "expr": expression}));
        panels += usize::from(matches!(query.used, Use::Panel { .. }));
    }
    ensure!(panels > 30, "only {panels} queries of panels were found");
    // that all of them are PromQL, by Prometheus' own parser
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("all.yaml"), json!({"groups": [{"name": "all", "rules": rules}]}).to_string())?;
    run(&promtool, &["check", "rules", "--lint=none", "all.yaml"], folder.path())?;
    values_of_labels(&queries)
}

/// A value that a label is compared with is one that it may have.
fn values_of_labels(queries: &[Query]) -> Result<()> {
    let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for label in families::ALL.iter().flat_map(|family| family.labels) {
        if let Values::Known(values) = label.values {
            known.entry(label.name).or_default().extend(values());
        }
    }
    let mut compared = 0;
    for query in queries {
        // label, sign and value of each matcher: the values of these labels have no sign of their own in them
        for part in query.expression.split([',', '{']).map(str::trim) {
            let Some((matched, wanted)) = part.split_once('"') else { continue };
            let Some(values) = known.get(matched.trim_end_matches(['=', '~', '!'])) else { continue };
            for value in wanted.split('"').next().unwrap_or_default().split('|') {
                ensure!(values.contains(&value), "{}: {matched}{value} never is", query.name);
                compared += 1;
            }
        }
    }
    ensure!(compared > 5, "only {compared} values were compared");
    Ok(())
}

/// The check itself, on expressions that are wrong, and on what they speak of.
pub(super) async fn not_exposed((): ()) -> Result<()> {
    let known = known(&monitoring::queries()?)?;
    let target = of_the_target()?;
    for (expression, wrong) in [
        ("prepull_node_warn == 0", "nobody exposes prepull_node_warn"),
        ("sum by (node) (prepull_node_warm) / on (pod) up_time", "nobody exposes up_time"),
        ("rate(prepull_pull_duration_seconds[5m])", "nobody exposes prepull_pull_duration_seconds"),
        ("prepull_images{status=\"Present\"}", "prepull_images has no label status"),
        ("sum by (class) (prepull_images)", "no metric of the expression has the label class"),
        ("prepull_images{state=\"le,image{\", image=~\"x\"} offset 5m", "prepull_images has no label image"),
    ] {
        let found = check(&mentions(expression), &known, &target).err().map(|e| e.to_string()).unwrap_or_default();
        ensure!(found == wrong, "{expression}: {found:?}");
    }
    let spoken = mentions(
        "topk(3, sum by (a, le) (rate(x_total{b!~\"c{d}\", e='f'}[5m:1m] offset 1h))) > bool 0.5 or vector(1e3)",
    );
    let expected: Value = json!([["x_total", ["b", "e"]]]);
    ensure!(json!(spoken.metrics) == expected && json!(spoken.grouping) == json!(["a", "le"]), "{spoken:?}");
    Ok(())
}
