use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    workload::{Kind, Object},
    *,
};
use crate::{
    image_ref::PullPolicy,
    list::{EntrySpec, ImageList},
};

fn object(value: Value) -> Object {
    serde_json::from_value(value).unwrap()
}

fn container(image: &str) -> Value {
    let policy = PullPolicy::default_for(image).as_str();
    json!({"name": "c", "image": image, "imagePullPolicy": policy})
}

#[expect(clippy::needless_pass_by_value, reason = "what is made at the place of use reads better without a mark")]
fn pod(namespace: &str, spec: Value) -> (Kind, Value) {
    let owner = json!([{"kind": "ReplicaSet", "name": "r", "controller": true}]);
    let metadata = json!({"name": "p", "namespace": namespace, "ownerReferences": owner});
    (Kind::Pod, json!({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}))
}

#[expect(clippy::needless_pass_by_value, reason = "what is made at the place of use reads better without a mark")]
fn deployment(namespace: &str, name: &str, replicas: u64, spec: Value) -> (Kind, Value) {
    let metadata = json!({"name": name, "namespace": namespace});
    (Kind::Deployment, json!({"metadata": metadata, "spec": {"replicas": replicas, "template": {"spec": spec}}}))
}

fn found_with(home: Option<&str>, objects: Vec<(Kind, Value)>, accounts: &BTreeMap<String, Vec<String>>) -> Found {
    let mut tally = Tally::new(home.map(str::to_owned));
    for (kind, value) in objects {
        tally.add(kind, &object(value));
    }
    tally.into_found(accounts)
}

fn found(home: Option<&str>, objects: Vec<(Kind, Value)>) -> Found {
    found_with(home, objects, &BTreeMap::new())
}

fn counts(found: &Found) -> Vec<(&str, u64)> {
    found.images.iter().map(|i| (i.image.as_str(), i.pods)).collect()
}

/// What the list says of its only image.
fn only(found: &Found) -> EntrySpec {
    only_with(found, false)
}

fn only_with(found: &Found, required: bool) -> EntrySpec {
    let text = ListText::of(found, "a", Detail::Stable, required).unwrap().text;
    let list = ImageList::parse(&text).unwrap();
    assert!(list.problems.is_empty() && list.entries.len() == 1, "{text}{:?}", list.problems);
    list.entries[0].spec.clone().unwrap()
}

#[test]
fn every_place_of_a_pod_that_has_an_image_counts_once_for_each_pod() {
    let spec = json!({
        "initContainers": [container("r.io/init:1")],
        "containers": [container("r.io/main:1"), container("r.io/main:1")],
        "ephemeralContainers": [container("r.io/debug:1")],
        "volumes": [{"name": "v", "image": {"reference": "r.io/model:1", "pullPolicy": "IfNotPresent"}}, {"name": "w"}],
    });
    let found = found(None, vec![pod("a", spec.clone()), pod("b", spec)]);
    assert_eq!(counts(&found), [("r.io/debug:1", 2), ("r.io/init:1", 2), ("r.io/main:1", 2), ("r.io/model:1", 2)]);
}

#[test]
fn a_workload_and_its_pods_do_not_count_twice_and_what_is_not_there_yet_counts_too() {
    let spec = |image| json!({"containers": [container(image)]});
    let job = |spec: Value| json!({"spec": {"parallelism": 4, "template": {"spec": spec}}});
    let ended = |kind: &str| json!({"conditions": [{"type": kind, "status": "True"}]});
    let mut objects = vec![
        deployment("a", "web", 3, spec("r.io/web:1")),
        deployment("a", "idle", 0, spec("r.io/idle:1")),
        (
            Kind::DaemonSet,
            json!({"metadata": {"name": "d", "namespace": "a"}, "status": {"desiredNumberScheduled": 9},
            "spec": {"template": {"spec": spec("r.io/each:1")}}}),
        ),
        (Kind::StatefulSet, json!({"metadata": {"name": "s"}, "spec": {"template": {"spec": spec("r.io/one:1")}}})),
        (Kind::CronJob, json!({"metadata": {"name": "c"}, "spec": {"jobTemplate": job(spec("r.io/nightly:1"))}})),
        (
            Kind::CronJob,
            json!({"metadata": {"name": "c"}, "spec": {"suspend": true, "jobTemplate": job(spec("r.io/off:1"))}}),
        ),
        (Kind::Job, job(spec("r.io/job:1"))),
    ];
    for kind in ["Complete", "Failed"] {
        let mut done = job(spec("r.io/done:1"));
        done["status"] = ended(kind);
        objects.push((Kind::Job, done));
    }
    let mut of_cron = job(spec("r.io/nightly:1"));
    of_cron["metadata"] = json!({"ownerReferences": [{"kind": "CronJob", "controller": true}]});
    objects.push((Kind::Job, of_cron));
    objects.extend((0..5).map(|_| pod("a", spec("r.io/web:1"))));
    for (phase, owner) in [("Succeeded", "Job"), ("Failed", "Job"), ("Running", "Node")] {
        let metadata = json!({"name": "p", "ownerReferences": [{"kind": owner, "controller": true}]});
        let gone = json!({"metadata": metadata, "spec": spec("r.io/gone:1"), "status": {"phase": phase}});
        objects.push((Kind::Pod, gone));
    }
    assert_eq!(
        counts(&found(None, objects)),
        [
            ("r.io/each:1", 9),
            ("r.io/web:1", 5),
            ("r.io/job:1", 4),
            ("r.io/nightly:1", 4),
            ("r.io/one:1", 1),
            ("r.io/idle:1", 0),
            ("r.io/off:1", 0)
        ]
    );
}

#[test]
fn one_image_under_several_names_is_one_entry_under_the_usual_one() {
    let spec = |image| json!({"containers": [container(image)]});
    let found = found(
        None,
        vec![
            deployment("a", "x", 1, spec("docker.io/library/nginx:1")),
            deployment("a", "y", 3, spec("index.docker.io/nginx:1")),
            deployment("a", "z", 9, spec("nginx:1")),
        ],
    );
    // a short name may mean something else to a runtime
    assert_eq!(counts(&found), [("nginx:1", 9), ("index.docker.io/nginx:1", 4)]);
    assert_eq!(found.images[1].used_by, ["a/deployment/x", "a/deployment/y"]);
}

#[test]
fn a_list_names_only_the_secrets_that_it_may_use() {
    let spec =
        |secret: &str| json!({"containers": [container("r.io/x:1")], "imagePullSecrets": [{"name": secret}, {}]});
    let objects = || vec![pod("a", spec("ours")), pod("a", spec("also")), pod("b", spec("theirs"))];
    let at_home = found(Some("a"), objects());
    assert_eq!(*only(&at_home).image_pull_secrets, ["ours", "also"]);
    assert_eq!(at_home.images[0].secrets_elsewhere, ["b/theirs"]);
    let elsewhere = found(None, objects());
    assert!(only(&elsewhere).image_pull_secrets.is_empty());
    let text = ListText::of(&elsewhere, "a and b", Detail::Stable, false).unwrap().text;
    assert!(
        text.contains("# its pods have pull secrets that this list cannot use: a/also, a/ours, b/theirs\n"),
        "{text}"
    );
}

#[test]
fn a_service_account_counts_where_no_pod_has_told_its_secrets() {
    let spec = json!({"containers": [container("r.io/x:1")], "serviceAccountName": "runner"});
    let plain = json!({"containers": [container("r.io/x:1")]});
    let secrets = |names: &[(&str, &[&str])]| -> BTreeMap<String, Vec<String>> {
        names.iter().map(|(a, s)| ((*a).to_owned(), s.iter().map(|s| (*s).to_owned()).collect())).collect()
    };
    let waiting = vec![deployment("a", "x", 0, spec.clone()), deployment("a", "y", 0, plain)];
    let mut tally = Tally::new(Some("a".to_owned()));
    for (kind, value) in waiting.clone() {
        tally.add(kind, &object(value));
    }
    assert_eq!(tally.accounts_to_ask().into_iter().collect::<Vec<_>>(), ["default", "runner"]);
    let one = secrets(&[("runner", &["acme"]), ("default", &[])]);
    assert_eq!(only(&found_with(Some("a"), waiting.clone(), &one)).service_account_name.as_deref(), Some("runner"));
    let both = secrets(&[("runner", &["acme"]), ("default", &["hub", "acme"])]);
    let both = only(&found_with(Some("a"), waiting.clone(), &both));
    assert_eq!(
        (&*both.image_pull_secrets, both.service_account_name),
        (&["hub".to_owned(), "acme".to_owned()][..], None)
    );
    let running = [waiting, vec![pod("a", spec)]].concat();
    let one = secrets(&[("runner", &["acme"])]);
    assert!(only(&found_with(Some("a"), running, &one)).service_account_name.is_none());
}

#[test]
fn a_policy_stands_in_the_list_where_it_is_not_the_default() {
    let digest = format!("r.io/x:1@sha256:{}", "a".repeat(64));
    let case = |image: &str, policies: &[&str]| {
        let pods = policies.iter().map(|p| pod("a", json!({"containers": [{"image": image, "imagePullPolicy": p}]})));
        let found = found(None, pods.collect());
        let entry = only(&found);
        assert!(!entry.required, "nothing is required by default");
        (found.images[0].image_pull_policy, entry.policy, only_with(&found, true).required)
    };
    assert_eq!(case("r.io/x:1", &["IfNotPresent"]), (None, PullPolicy::IfNotPresent, true));
    assert_eq!(case("r.io/x:1", &["IfNotPresent", "Always"]), (Some("Always"), PullPolicy::Always, true));
    assert_eq!(case("r.io/x", &["Always"]), (None, PullPolicy::Always, true));
    assert_eq!(case("r.io/x", &["IfNotPresent", "Never"]), (Some("IfNotPresent"), PullPolicy::IfNotPresent, true));
    assert_eq!(case("r.io/x:1", &["Never"]), (Some("Never"), PullPolicy::Never, false));
    assert_eq!(case(&digest, &["Always"]), (None, PullPolicy::IfNotPresent, true));
}

#[test]
fn an_image_goes_where_its_pods_may_run() {
    let with = |more: Value| {
        let mut spec = json!({"containers": [container("r.io/x:1")]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let required = |terms: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}});
    let gpu = with(json!({"nodeSelector": {"gpu": "h100"}}));
    let entry = |specs: &[Value]| only(&found(None, specs.iter().map(|s| pod("a", s.clone())).collect()));
    let one = entry(&[gpu.clone(), gpu.clone()]);
    assert_eq!(one.node_selector.iter().collect::<Vec<_>>(), [(&"gpu".to_owned(), &"h100".to_owned())]);
    // a term that demands more adds nothing
    let one = entry(&[with(json!({"nodeSelector": {"gpu": "h100", "zone": "a"}})), gpu.clone()]);
    assert_eq!((one.node_selector.len(), one.node_selector_terms.len()), (1, 0));
    let two = entry(&[gpu.clone(), with(json!({"nodeSelector": {"gpu": "a100"}}))]);
    assert_eq!((two.node_selector.len(), two.node_selector_terms.len()), (0, 2));
    let mut narrow = required(json!([{"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}]));
    narrow["nodeSelector"] = json!({"gpu": "h100"});
    assert_eq!(entry(&[with(narrow)]).node_selector_terms[0].match_expressions.len(), 2);
    // a daemon's pod names its node; that is not where the image is wanted
    let daemon =
        with(required(json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}])));
    for everywhere in [vec![gpu.clone(), with(json!({}))], vec![gpu.clone(), daemon.clone()], vec![daemon, gpu]] {
        let everywhere = entry(&everywhere);
        assert!(everywhere.node_selector.is_empty() && everywhere.node_selector_terms.is_empty());
    }
}

#[test]
fn what_is_no_image_name_is_told_and_not_listed() {
    let spec =
        json!({"containers": [container("r.io/UPPER:1"), container("a\n- image: evil"), container("r.io/x:1"), {}]});
    let found = found(None, vec![deployment("a", "web", 1, spec)]);
    assert_eq!(counts(&found), [("r.io/x:1", 1)]);
    assert_eq!(found.problems.len(), 2);
    assert!(found.problems.iter().all(|p| p.contains("a/deployment/web") && !p.contains('\n')), "{:?}", found.problems);
}

#[test]
fn a_list_in_a_configmap_changes_with_its_entries_alone() {
    let spec = |image| json!({"containers": [container(image)]});
    let text = |web, db| {
        let objects = vec![deployment("a", "w", web, spec("r.io/web:1")), deployment("a", "d", db, spec("r.io/db:1"))];
        ListText::of(&found(None, objects), "a", Detail::Stable, false).unwrap().text
    };
    assert_eq!(text(3, 1), text(7, 2));
    assert_ne!(text(3, 1), text(1, 3));
    assert!(same_but_for_order(&text(3, 1), &text(1, 3)));
    assert!(!same_but_for_order(&text(3, 1), &text(3, 1).replace("db", "dc")));
    assert!(!same_but_for_order(&text(3, 1), &format!("{}limits: {{spread: 3s}}\n", text(3, 1))));
    assert!(!same_but_for_order("[", "["));
}

#[test]
fn a_discovered_image_makes_no_node_cold_unless_it_is_required() {
    let found = found(None, vec![deployment("a", "w", 1, json!({"containers": [container("r.io/gone:1")]}))]);
    let text = |detail, required| ListText::of(&found, "a", detail, required).unwrap().text;
    for detail in [Detail::Counts, Detail::Stable] {
        assert!(text(detail, false).contains("- image: r.io/gone:1\n  required: false\n"));
        assert!(!text(detail, true).contains("required"));
    }
    // so the next run writes what an earlier version required
    assert!(!same_but_for_order(&text(Detail::Stable, false), &text(Detail::Stable, true)));
}

#[test]
fn what_does_not_fit_into_a_configmap_is_what_the_fewest_pods_use() {
    let name = |n: usize| format!("r.io/{}/{n}:1", "x".repeat(200));
    let found = found(
        None,
        (0..6000)
            .map(|n| deployment("a", "w", 6000 - n as u64, json!({"containers": [container(&name(n))]})))
            .collect(),
    );
    let list = ListText::of(&found, "a", Detail::Stable, false).unwrap();
    assert!(list.text.len() <= 1_000_000 && list.left_out > 0);
    let kept = ImageList::parse(&list.text).unwrap().entries;
    assert_eq!(kept.len() + list.left_out, 6000);
    assert_eq!(*kept[0].image, *name(0));
    assert_eq!(ListText::of(&found, "a", Detail::Counts, false).unwrap().left_out, 0);
}

#[test]
fn nothing_is_an_empty_list() {
    let text = ListText::of(&found(None, vec![]), "a", Detail::Counts, false).unwrap().text;
    assert!(ImageList::parse(&text).unwrap().entries.is_empty());
}

proptest! {
    /// Whatever stands in a workload, what comes out is a list without problems.
    #[test]
    fn the_list_is_always_valid(images in proptest::collection::vec("\\PC{0,20}|[a-z\\[\\]:#&*!|>'\"%@`{},? -]{1,12}|(true|null|1:30|0x1F|1e3|~|[0-9.]{1,5})", 0..6),
        secret in "[a-z0-9.-]{0,9}", key in "[a-zA-Z]{1,8}", value in "(true|null|[0-9]{0,4}|[a-z]{0,4})") {
        let containers: Vec<_> = images.iter().map(|image| container(image)).collect();
        let secret = if secret.split('.').all(|l| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-')) { secret } else { "s".to_owned() };
        let spec = json!({"containers": containers, "imagePullSecrets": [{"name": secret}], "nodeSelector": {key: value}});
        let found = found(Some("a"), vec![pod("a", spec)]);
        for detail in [Detail::Counts, Detail::Stable] {
            let text = ListText::of(&found, "a", detail, false).unwrap().text;
            let list = ImageList::parse(&text).unwrap();
            prop_assert!(list.problems.is_empty(), "{text}{:?}", list.problems);
            let written: Vec<_> = list.entries.iter().map(|e| &*e.image).collect();
            prop_assert_eq!(written, found.images.iter().map(|i| i.image.as_str()).collect::<Vec<_>>());
        }
    }
}
