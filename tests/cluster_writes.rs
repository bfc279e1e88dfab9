//! What the agent writes in a cluster, and what it does not: its Node, its Pod's readiness, Events.

#![expect(clippy::print_stderr, reason = "what was measured stands beside the results")]

mod support;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    core::v1::{Node, NodeCondition, Pod, PodCondition},
    events::v1::Event,
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use libtest_mimic::Arguments;
use serde_json::json;
use support::{
    cluster::{Place, Servers, image, list},
    fake_cri::{FakeCri, Offer},
    policies,
    tenant::{Tenant, wait_for},
};
use tokio::time::{Instant, sleep};

/// Long enough for a busy machine, and never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_mins(1);
const TAINT: &str = "prepull.dev/not-warm";

fn main() -> ExitCode {
    let servers = Servers::default();
    let trials = vec![
        servers.shared("condition_and_label_follow_the_node", condition_and_label),
        servers.shared("nothing_is_written_without_a_policy", no_policy),
        servers.shared("an_absent_right_to_write_is_named", no_right),
        servers.shared("the_condition_is_unknown_until_the_store_was_looked_at", unknown),
        servers.shared("the_taint_goes_when_warm", taint_warm),
        servers.shared("the_taint_goes_at_the_deadline", taint_deadline),
        servers.shared("an_agent_that_is_killed_again_and_again_removes_the_taint", taint_of_the_dying),
        servers.shared("a_policy_that_guards_a_part_only_is_no_guard", half_policy),
        servers.shared("the_readiness_gate_follows_the_node", gate),
        servers.shared("no_gate_is_set_without_a_policy", no_gate),
        servers.shared("a_gate_that_is_expected_waits_for_its_right", expected_gate),
        servers.shared("an_edit_whose_images_are_there_closes_no_gate", open_gate),
        servers.shared("a_gate_is_open_where_running_is_enough", running_gate),
        servers.shared("events_tell_failures_recoveries_and_bad_lists", events),
        servers.shared("an_event_fits_whatever_a_registry_says", long_event),
        servers.shared("a_right_to_events_that_comes_late_is_used", late_right),
        servers.shared("cleanup_leaves_nothing", cleanup),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_prepull").into()
}

async fn may_write(tenant: &Tenant<'_>) -> Result<()> {
    tenant
        .grant_everywhere(json!([
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch", "patch"]},
            {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
        ]))
        .await?;
    let events = json!([{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}]);
    tenant.grant_in("default", events).await
}

async fn taint(tenant: &Tenant<'_>) -> Result<()> {
    // one that is not ours stands before it, one with another effect behind it
    let taints = json!([
        {"key": "other.dev/taint", "effect": "NoSchedule"},
        {"key": TAINT, "effect": "NoSchedule"},
        {"key": TAINT, "effect": "NoExecute"},
    ]);
    tenant.patch_node(json!({"spec": {"taints": taints}})).await
}

fn keys(node: &Node) -> Vec<String> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten()).map(|t| t.key.clone()).collect()
}

fn condition(node: &Node) -> Option<NodeCondition> {
    let all = node.status.as_ref()?.conditions.as_ref()?;
    all.iter().find(|c| c.type_ == "ImagesPrepulled").cloned()
}

fn warm_label(node: &Node) -> Option<String> {
    node.metadata.labels.as_ref()?.get("prepull.dev/warm").cloned()
}

async fn until_condition(tenant: &Tenant<'_>, status: &str) -> Result<NodeCondition> {
    wait_for(PATIENCE, &format!("the condition is {status}"), async || {
        Ok(condition(&tenant.node().await?).filter(|c| c.status == status))
    })
    .await
}

async fn condition_and_label(place: Place) -> Result<()> {
    let tenant = place.tenant("condition").await?;
    may_write(&tenant).await?;
    policies::own_node(&tenant).await?;
    let fake = FakeCri::start()?;
    fake.put([image("a").as_str()])?;
    tenant.list(&list(&["a"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "condition,label"])?;
    let first = until_condition(&tenant, "True").await.with_context(|| agent.log())?;
    ensure!(first.reason.as_deref() == Some("AllImagesPresent") && first.last_transition_time.is_some(), "{first:?}");
    let node = tenant.node().await?;
    ensure!(warm_label(&node).as_deref() == Some("true"), "{node:?}");
    let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "Ready");
    ensure!(ready, "the conditions of others stay: {node:?}");
    // an edit that takes longer than the jitter
    fake.offer(&image("b"), Offer { takes: Duration::from_secs(14), ..Offer::default() });
    let began = Instant::now();
    tenant.list(&list(&["a", "b"])).await?;
    let cold = until_condition(&tenant, "False").await.with_context(|| agent.log())?;
    ensure!(began.elapsed() < Duration::from_secs(11), "the jitter is ten seconds: {:?}", began.elapsed());
    ensure!(cold.reason.as_deref() == Some("ImagesMissing"), "{cold:?}");
    ensure!(cold.message.as_deref().is_some_and(|m| m.contains(&image("b"))), "{cold:?}");
    ensure!(warm_label(&tenant.node().await?).as_deref() == Some("false"));
    until_condition(&tenant, "True").await?;
    let version = tenant.node().await?.metadata.resource_version;
    drop(agent);
    let _again = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "condition,label"])?;
    sleep(Duration::from_secs(6)).await;
    let node = tenant.node().await?;
    ensure!(node.metadata.resource_version == version, "neither time nor a restart is worth a write: {node:?}");
    Ok(())
}

async fn no_policy(place: Place) -> Result<()> {
    let tenant = place.tenant("no-policy").await?;
    may_write(&tenant).await?;
    taint(&tenant).await?;
    let before = tenant.node().await?;
    let fake = FakeCri::start()?;
    tenant.list("images: []").await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "condition,label,taint"])?;
    agent.until_warm(PATIENCE).await?;
    let said = |log: &str| log.lines().filter(|l| l.contains("no admission policy keeps")).count();
    wait_for(PATIENCE, "it is said", async || Ok((said(&agent.log()) > 0).then_some(()))).await?;
    sleep(Duration::from_secs(7)).await;
    ensure!(said(&agent.log()) == 1, "said once: {}", agent.log());
    let after = tenant.node().await?;
    ensure!(before.metadata.resource_version == after.metadata.resource_version, "{after:?}");
    // a policy that comes later is noticed
    policies::own_node(&tenant).await?;
    until_condition(&tenant, "True").await.with_context(|| agent.log())?;
    Ok(())
}

async fn no_right(place: Place) -> Result<()> {
    let tenant = place.tenant("no-right").await?;
    tenant.grant_everywhere(json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}])).await?;
    let fake = FakeCri::start()?;
    tenant.list("images: []").await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "label"])?;
    agent.until_warm(PATIENCE).await?;
    for absent in ["patch on nodes; component node-writes", "events.events.k8s.io in namespace default"] {
        let count = || agent.log().lines().filter(|l| l.contains(absent)).count();
        wait_for(PATIENCE, &format!("{absent} is said"), async || Ok((count() > 0).then_some(()))).await?;
        sleep(Duration::from_secs(1)).await;
        ensure!(count() == 1, "said once: {}", agent.log());
    }
    ensure!(agent.get("/readyz").await?.0 == 200, "only what needs the right does not work");
    Ok(())
}

async fn unknown(place: Place) -> Result<()> {
    let tenant = place.tenant("unknown").await?;
    may_write(&tenant).await?;
    policies::own_node(&tenant).await?;
    let mut fake = FakeCri::start()?;
    fake.close();
    tenant.list("images: []").await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "condition"])?;
    let condition = until_condition(&tenant, "Unknown").await.with_context(|| agent.log())?;
    ensure!(condition.reason.as_deref() == Some("StoreNotLookedAt"), "{condition:?}");
    ensure!(warm_label(&tenant.node().await?).is_none(), "only what was asked for is written");
    fake.open()?;
    until_condition(&tenant, "True").await?;
    Ok(())
}

async fn taint_warm(place: Place) -> Result<()> {
    let tenant = place.tenant("taint-warm").await?;
    may_write(&tenant).await?;
    policies::own_node(&tenant).await?;
    taint(&tenant).await?;
    let fake = FakeCri::start()?;
    fake.offer(&image("a"), Offer { takes: Duration::from_secs(4), ..Offer::default() });
    tenant.list(&list(&["a"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "taint"])?;
    agent.until_image(PATIENCE, &image("a"), "Pulling").await?;
    while agent.status().await?["warm"] == false {
        ensure!(keys(&tenant.node().await?).len() == 3 || agent.status().await?["warm"] == true, "too early");
        sleep(Duration::from_millis(100)).await;
    }
    let gone = async || Ok((keys(&tenant.node().await?) == ["other.dev/taint"]).then_some(()));
    wait_for(PATIENCE, "the taint is gone", gone).await.with_context(|| agent.log())?;
    let node = tenant.node().await?;
    ensure!(condition(&node).is_none() && warm_label(&node).is_none(), "only the taint was asked for: {node:?}");
    Ok(())
}

async fn taint_deadline(place: Place) -> Result<()> {
    let tenant = place.tenant("taint-deadline").await?;
    may_write(&tenant).await?;
    policies::own_node(&tenant).await?;
    taint(&tenant).await?;
    let fake = FakeCri::start()?;
    fake.offer(&image("a"), Offer { logins: vec![("nobody".into(), "knows".into())], ..Offer::default() });
    tenant.list(&list(&["a"])).await?;
    let timeout = age(&tenant.node().await?)? + Duration::from_secs(6);
    let flags = ["--node-writes", "taint", "--startup-taint-timeout", &format!("{}s", timeout.as_secs())];
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &flags)?;
    let gone = async || {
        let node = tenant.node().await?;
        Ok((keys(&node) == ["other.dev/taint"]).then_some(age(&node)?))
    };
    let went = wait_for(PATIENCE, "the taint is gone", gone).await.with_context(|| agent.log())?;
    // times of the API server are whole seconds
    ensure!(went + Duration::from_secs(1) >= timeout, "it went {went:?} after the node's creation, not {timeout:?}");
    ensure!(agent.status().await?["warm"] == false);
    ensure!(agent.log().contains("removed at its deadline"), "{}", agent.log());
    Ok(())
}

/// How long ago a Node was created. The API server of these tests has the same clock.
fn age(node: &Node) -> Result<Duration> {
    let created = node.metadata.creation_timestamp.as_ref().context("a node that was never created")?;
    let created = u64::try_from(created.0.as_second())?;
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH + Duration::from_secs(created))?)
}

/// No agent here lives as long as the deadline, which counts from the Node's creation.
async fn taint_of_the_dying(place: Place) -> Result<()> {
    let tenant = place.tenant("taint-dying").await?;
    may_write(&tenant).await?;
    policies::own_node(&tenant).await?;
    taint(&tenant).await?;
    let fake = FakeCri::start()?;
    fake.offer(&image("a"), closed(""));
    tenant.list(&list(&["a"])).await?;
    let timeout = age(&tenant.node().await?)? + Duration::from_secs(8);
    let flags = ["--node-writes", "taint", "--startup-taint-timeout", &format!("{}s", timeout.as_secs())];
    let mut log = String::new();
    while age(&tenant.node().await?)? < timeout + Duration::from_secs(15) {
        let agent = tenant.agent_on_list(&program(), &fake.socket(), &flags)?;
        // half of the deadline
        let killed = Instant::now() + Duration::from_secs(4);
        while Instant::now() < killed {
            let node = tenant.node().await?;
            if keys(&node) == ["other.dev/taint"] {
                let went = age(&node)?;
                ensure!(went + Duration::from_secs(1) >= timeout, "it went {went:?} after the node's creation");
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        log = agent.log();
        // dropping it kills it
    }
    anyhow::bail!("the taint is still there; the last agent said:\n{log}")
}

/// Waits until a policy refuses another label, which every policy of these tests does.
async fn in_force(tenant: &Tenant<'_>) -> Result<()> {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(tenant.kubeconfig())?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await?;
    let nodes: Api<Node> = Api::all(kube::Client::try_from(config)?);
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let label = Patch::Merge(json!({"metadata": {"labels": {"other.dev/label": "true"}}}));
    wait_for(PATIENCE, "the policy is in force", async || {
        Ok(nodes.patch(&tenant.name, &params, &label).await.is_err().then_some(()))
    })
    .await
}

/// Of the policy only what keeps taints, or other Nodes, is missing.
async fn half_policy(place: Place) -> Result<()> {
    for (name, part) in [("half-taints", "variables.newTaints"), ("half-nodes", "request.name == variables.node")] {
        let tenant = place.tenant(name).await?;
        may_write(&tenant).await?;
        policies::own_node_without(&tenant, part).await?;
        taint(&tenant).await?;
        in_force(&tenant).await?;
        let fake = FakeCri::start()?;
        tenant.list("images: []").await?;
        let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "condition,label,taint"])?;
        let said = async || Ok(agent.log().contains("no admission policy keeps").then_some(()));
        wait_for(PATIENCE, "it is said", said).await.with_context(|| agent.log())?;
        let node = tenant.node().await?;
        ensure!(condition(&node).is_none() && warm_label(&node).is_none() && keys(&node).len() == 3, "{node:?}");
    }
    Ok(())
}

async fn until_gate(tenant: &Tenant<'_>, status: &str) -> Result<PodCondition> {
    let pods: Api<Pod> = tenant.api();
    wait_for(PATIENCE, &format!("the gate is {status}"), async || {
        let pod = pods.get("agent").await?;
        let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
        Ok(conditions.into_iter().find(|c| c.type_ == "prepull.dev/Warm" && c.status == status))
    })
    .await
}

async fn gate(place: Place) -> Result<()> {
    let tenant = place.tenant("gate").await?;
    tenant.grant(json!([{"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}])).await?;
    policies::own_pod(&tenant).await?;
    let fake = FakeCri::start()?;
    tenant.list("images: []").await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    until_gate(&tenant, "True").await.with_context(|| agent.log())?;
    fake.offer(&image("a"), Offer { takes: Duration::from_secs(3), ..Offer::default() });
    let began = Instant::now();
    tenant.list(&list(&["a"])).await?;
    let cold = until_gate(&tenant, "False").await?;
    eprintln!("edit to a gate that is closed: {:?}", began.elapsed());
    ensure!(began.elapsed() < Duration::from_secs(1), "the gate took {:?}", began.elapsed());
    ensure!(cold.reason.as_deref() == Some("ImagesMissing") && cold.last_transition_time.is_some(), "{cold:?}");
    until_gate(&tenant, "True").await?;
    Ok(())
}

async fn may_set_gate(tenant: &Tenant<'_>) -> Result<()> {
    tenant.grant(json!([{"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}])).await?;
    policies::own_pod(tenant).await
}

/// Without the gate the pod would never be ready: a right that comes late is not missed.
async fn expected_gate(place: Place) -> Result<()> {
    let tenant = place.tenant("expected-gate").await?;
    let fake = FakeCri::start()?;
    tenant.list("images: []").await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--readiness-gate"])?;
    let absent = "patch on pods/status in namespace expected-gate; component readiness-gate grants it";
    let said = || agent.log().lines().filter(|line| line.contains(absent)).count();
    wait_for(PATIENCE, "the absent right is said", async || Ok((said() > 0).then_some(()))).await?;
    sleep(Duration::from_secs(3)).await;
    ensure!(said() == 1, "said once: {}", agent.log());
    may_set_gate(&tenant).await?;
    until_gate(&tenant, "True").await.with_context(|| agent.log()).map(drop)
}

async fn open_gate(place: Place) -> Result<()> {
    let tenant = place.tenant("open-gate").await?;
    may_set_gate(&tenant).await?;
    let fake = FakeCri::start()?;
    fake.put([image("a").as_str(), image("b").as_str()])?;
    tenant.list(&list(&["a"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--readiness-gate"])?;
    until_gate(&tenant, "True").await.with_context(|| agent.log())?;
    let pods: Api<Pod> = tenant.api();
    let before = pods.get("agent").await?.metadata.resource_version;
    tenant.list(&list(&["a", "b"])).await?;
    agent.until_image(PATIENCE, &image("b"), "Present").await?;
    sleep(Duration::from_secs(1)).await;
    ensure!(pods.get("agent").await?.metadata.resource_version == before, "the pod was written to: {}", agent.log());
    Ok(())
}

async fn running_gate(place: Place) -> Result<()> {
    let tenant = place.tenant("running-gate").await?;
    may_set_gate(&tenant).await?;
    let fake = FakeCri::start()?;
    fake.offer(&image("a"), Offer { logins: vec![("nobody".into(), "knows".into())], ..Offer::default() });
    tenant.list(&list(&["a"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--ready-when", "running"])?;
    let open = until_gate(&tenant, "True").await.with_context(|| agent.log())?;
    ensure!(open.reason.as_deref() == Some("AgentRuns"), "it says that it is not about warmth: {open:?}");
    ensure!(agent.status().await?["warm"] == false);
    let (code, said) = agent.get("/readyz").await?;
    ensure!(code == 200 && said.starts_with("running; not warm: 0 of 1 required"), "{code} {said}");
    Ok(())
}

async fn no_gate(place: Place) -> Result<()> {
    let tenant = place.tenant("no-gate").await?;
    tenant.grant(json!([{"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]}])).await?;
    let fake = FakeCri::start()?;
    tenant.list("images: []").await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    agent.until_warm(PATIENCE).await?;
    let said = async || {
        Ok(agent.log().contains("no admission policy keeps this service account to its own Pod").then_some(()))
    };
    wait_for(PATIENCE, "it is said", said).await?;
    let pod = tenant.api::<Pod>().get("agent").await?;
    let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
    ensure!(conditions.iter().all(|c| c.type_ != "prepull.dev/Warm"), "{conditions:?}");
    Ok(())
}

async fn events(place: Place) -> Result<()> {
    let tenant = place.tenant("events").await?;
    may_write(&tenant).await?;
    policies::own_node(&tenant).await?;
    let fake = FakeCri::start()?;
    fake.offer(&image("a"), Offer { logins: vec![("nobody".into(), "knows".into())], ..Offer::default() });
    tenant.list(&list(&["a"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "label"])?;
    let on = |namespace: &str, kind: &'static str, uid: String| {
        let events: Api<Event> = Api::namespaced(tenant.admin.clone(), namespace);
        async move |reason: &str, part: &str| {
            let about = format!("{kind}: {reason} with {part}");
            wait_for(PATIENCE, &about, async || {
                let all = events.list(&ListParams::default()).await?.items;
                Ok(all.into_iter().find(|e| {
                    let regarding = e.regarding.clone().unwrap_or_default();
                    regarding.kind.as_deref() == Some(kind)
                        && regarding.uid.as_deref() == Some(&uid)
                        && e.reason.as_deref() == Some(reason)
                        && e.note.as_deref().is_some_and(|n| n.contains(part))
                }))
            })
            .await
        }
    };
    let node_uid = tenant.node().await?.metadata.uid.context("no uid")?;
    let pod = on("events", "Pod", tenant.pod_uid.clone());
    let node = on("default", "Node", node_uid);
    let failure = pod("ErrImagePull", &image("a")).await.with_context(|| agent.log())?;
    ensure!(failure.type_.as_deref() == Some("Warning"), "{failure:?}");
    ensure!(failure.reporting_controller.as_deref() == Some("prepull.dev/agent"), "{failure:?}");
    node("ErrImagePull", &image("a")).await.with_context(|| agent.log())?;
    fake.offer(&image("a"), Offer::default());
    // an edit of the entry ends its back-off
    tenant.list(&format!("images: [{{image: '{}', priority: 1}}]", image("a"))).await?;
    let recovery = pod("Pulled", &image("a")).await?;
    ensure!(recovery.type_.as_deref() == Some("Normal"), "{recovery:?}");
    tenant.list("images: [").await?;
    pod("InvalidList", "not YAML").await?;
    tenant.list("images: [Bad//]").await?;
    let again = wait_for(PATIENCE, "the same event counts", async || {
        let all = tenant.api::<Event>().list(&ListParams::default()).await?.items;
        let lists: Vec<_> = all.into_iter().filter(|e| e.reason.as_deref() == Some("InvalidList")).collect();
        Ok(lists.into_iter().find(|e| e.series.as_ref().is_some_and(|s| s.count >= 2)))
    })
    .await?;
    ensure!(again.series.is_some());
    Ok(())
}

/// The first Event with a reason about an object of this kind in a namespace.
async fn event_on(tenant: &Tenant<'_>, namespace: &str, kind: &str, reason: &str) -> Result<Event> {
    let events: Api<Event> = Api::namespaced(tenant.admin.clone(), namespace);
    wait_for(PATIENCE, &format!("{kind}: {reason}"), async || {
        let all = events.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().find(|event| {
            let regarding = event.regarding.clone().unwrap_or_default();
            let own = [Some(tenant.name.as_str()), Some("agent")].contains(&regarding.name.as_deref());
            own && regarding.kind.as_deref() == Some(kind) && event.reason.as_deref() == Some(reason)
        }))
    })
    .await
}

/// Nobody may pull it.
fn closed(refusal: &str) -> Offer {
    Offer { logins: vec![("nobody".into(), "knows".into())], refusal: refusal.to_owned(), ..Offer::default() }
}

/// The API server counts bytes, and takes none of 1024.
async fn long_event(place: Place) -> Result<()> {
    let tenant = place.tenant("long-event").await?;
    let fake = FakeCri::start()?;
    fake.offer(&image("a"), closed(&": \u{62d2}\u{7edd}\u{8bbf}\u{95ee}".repeat(200)));
    tenant.list(&list(&["a"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    let event = event_on(&tenant, "long-event", "Pod", "ErrImagePull").await.with_context(|| agent.log())?;
    let note = event.note.unwrap_or_default();
    ensure!(note.contains(&image("a")) && note.contains('\u{62d2}') && note.len() > 900, "{note}");
    Ok(())
}

async fn late_right(place: Place) -> Result<()> {
    let tenant = place.tenant("late-right").await?;
    let nodes = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}]);
    tenant.grant_everywhere(nodes).await?;
    let fake = FakeCri::start()?;
    tenant.list("images: []").await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "label"])?;
    let said = async || Ok(agent.log().contains("no Events in namespace default").then_some(()));
    wait_for(PATIENCE, "the absent right is said", said).await?;
    let events = json!([{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}]);
    tenant.grant_in("default", events).await?;
    sleep(Duration::from_secs(10)).await;
    fake.offer(&image("a"), closed(""));
    tenant.list(&list(&["a"])).await?;
    event_on(&tenant, "default", "Node", "ErrImagePull").await.with_context(|| agent.log()).map(drop)
}

async fn cleanup(place: Place) -> Result<()> {
    let tenant = place.tenant("cleanup").await?;
    may_write(&tenant).await?;
    policies::own_node(&tenant).await?;
    let fake = FakeCri::start()?;
    tenant.list("images: []").await?;
    {
        let agent = tenant.agent_on_list(&program(), &fake.socket(), &["--node-writes", "condition,label,taint"])?;
        until_condition(&tenant, "True").await.with_context(|| agent.log())?;
    }
    taint(&tenant).await?;
    let agent = tenant.agent(&program(), &fake.socket(), &["--cleanup"])?;
    let ready = async || Ok(agent.get("/readyz").await.is_ok_and(|(code, _)| code == 200).then_some(()));
    wait_for(PATIENCE, "cleanup is ready", ready).await.with_context(|| agent.log())?;
    let node = tenant.node().await?;
    ensure!(condition(&node).is_none() && warm_label(&node).is_none(), "{node:?}");
    ensure!(keys(&node) == ["other.dev/taint"], "{node:?}");
    let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == "Ready");
    ensure!(ready, "the conditions of others stay: {node:?}");
    ensure!(agent.get("/healthz").await?.0 == 200);
    let calls = fake.journal().calls(support::journal::Method::PullImage);
    ensure!(calls.is_empty(), "it does nothing else: {calls:?}");
    // then it asks for nothing any more
    let mark = tenant.server.audit_mark()?;
    sleep(Duration::from_secs(3)).await;
    let asked = tenant.server.requests_since(mark, &tenant.user())?;
    ensure!(asked.iter().all(|a| a.stage == "ResponseComplete" && a.verb == "watch"), "{asked:?}");
    Ok(())
}
