//! The agent in a cluster: a real API server, a real service account with the rights of the manifests, and a runtime
//! in memory.

#![expect(clippy::print_stderr, reason = "what was measured stands beside the results")]

mod support;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use libtest_mimic::Arguments;
use serde_json::{Value, json};
use support::{
    api_proxy::{ApiFault, ApiProxy},
    apiserver::{ApiServer, ApiServerPart},
    cluster::{Place, Servers, image, list},
    fake_cri::{FakeCri, Offer},
    journal::Method,
    tenant::{Tenant, create, wait_for},
};
use tokio::time::{Instant, sleep};

/// Long enough for a busy machine, and never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let servers = Servers::default();
    let trials = vec![
        servers.shared("an_edit_reaches_the_runtime_at_once", edit),
        servers.shared("deleted_and_made_again", deleted),
        servers.shared("an_unparsable_edit_is_told_and_ignored", unparsable),
        servers.shared("selected_lists_come_and_go", selected),
        servers.shared("a_label_flips_an_entry", label),
        servers.shared("labels_that_are_old_select_nothing", old_labels),
        servers.shared("a_missing_right_is_named", missing_right),
        servers.shared("a_rotated_secret_ends_the_back_off", rotated),
        servers.shared("a_service_account_brings_its_secrets", account),
        servers.shared("only_secrets_of_the_lists_own_namespace", foreign_secret),
        servers.shared("thousands_of_secrets_make_few_requests", many_secrets),
        servers.shared("pull_timeout_covers_the_search_for_credentials", hanging_secrets),
        servers.shared("an_idle_agent_holds_one_watch", idle),
        Servers::own("an_outage_of_the_api_server", outage),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The binary that cargo built, or the one that `PREPULL_BIN` names, such as that of a release.
fn program() -> PathBuf {
    std::env::var_os("PREPULL_BIN").map_or_else(|| env!("CARGO_BIN_EXE_prepull").into(), PathBuf::from)
}

fn problems(status: &Value) -> String {
    status["lists"].to_string()
}

async fn edit(place: Place) -> Result<()> {
    let tenant = place.tenant("edit").await?;
    let fake = FakeCri::start()?;
    tenant.list(&list(&["first"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    let status = agent.until_warm(PATIENCE).await?;
    ensure!(status["lists"][0]["source"] == "edit/prepull" && status["lists"][0]["revision"] != "", "{status:#}");
    let mut took = Vec::new();
    for n in 0..9 {
        let name = format!("edit-{n}");
        let began = Instant::now();
        tenant.list(&list(&["first", &name])).await?;
        let pulled = image(&name);
        fake.journal().wait_until(PATIENCE, |j| j.of(Method::PullImage).any(|c| c.image == pulled)).await?;
        took.push(began.elapsed());
    }
    took.sort();
    eprintln!("edit to first PullImage: median {:?}, worst {:?}", took[4], took[8]);
    ensure!(took[4] < Duration::from_millis(500), "the median is {:?}", took[4]);
    Ok(())
}

async fn deleted(place: Place) -> Result<()> {
    let tenant = place.tenant("deleted").await?;
    let fake = FakeCri::start()?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    let absent = |s: &Value| problems(s).contains("does not exist") && s["warm"] == false;
    agent.until(PATIENCE, "the list's absence is told", absent).await?;
    tenant.list(&list(&["a"])).await?;
    agent.until_warm(PATIENCE).await?;
    tenant.delete_list("prepull").await?;
    let gone = |s: &Value| problems(s).contains("was deleted");
    let status = agent.until(PATIENCE, "the deletion is told", gone).await?;
    ensure!(status["warm"] == true && status["images"][0]["image"] == image("a"), "the last list stays: {status:#}");
    tenant.list(&list(&["b"])).await?;
    let back = |s: &Value| s["images"][0]["image"] == image("b") && s["warm"] == true;
    let status = agent.until(PATIENCE, "the new list is in force", back).await?;
    ensure!(status["lists"][0]["problems"] == json!([]), "{status:#}");
    Ok(())
}

async fn unparsable(place: Place) -> Result<()> {
    let tenant = place.tenant("unparsable").await?;
    let fake = FakeCri::start()?;
    tenant.list(&list(&["a"])).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    let before = agent.until_warm(PATIENCE).await?;
    tenant.list("images: [").await?;
    let told = |s: &Value| problems(s).contains("not YAML");
    let status = agent.until(PATIENCE, "the problem is told", told).await?;
    ensure!(status["images"] == before["images"] || status["warm"] == true, "{status:#}");
    ensure!(status["lists"][0]["revision"] == before["lists"][0]["revision"], "the revision is that in force");
    tenant.list("images: [Bad//, 'registry.example.com/c:1']").await?;
    let status = agent.until(PATIENCE, "the good entry counts", |s| s["images"][1]["state"] == "Present").await?;
    ensure!(status["images"][0]["state"] == "Invalid" && !problems(&status).contains("YAML"), "{status:#}");
    Ok(())
}

async fn selected(place: Place) -> Result<()> {
    let tenant = place.tenant("selected").await?;
    let fake = FakeCri::start()?;
    tenant.grant(json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}])).await?;
    tenant.list(&list(&["own"])).await?;
    let label = json!({"prepull.dev/list": "true"});
    tenant.list_in("selected", "team-b", &list(&["b"]), label.clone()).await?;
    tenant.list_in("selected", "team-a", &list(&["a"]), label.clone()).await?;
    tenant.list_in("selected", "other", &list(&["other"]), json!({})).await?;
    let flags = ["--configmap-selector", "prepull.dev/list=true", "--configmap-namespace", "selected"];
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &flags)?;
    let images = |s: &Value| -> Vec<String> {
        let rows = s["images"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|i| Some(i["image"].as_str()?.to_owned())).collect()
    };
    let status = agent.until_warm(PATIENCE).await?;
    ensure!(images(&status) == [image("own"), image("a"), image("b")], "{status:#}");
    tenant.list_in("selected", "team-c", &list(&["c"]), label.clone()).await?;
    agent.until(PATIENCE, "a new list counts", |s| images(s).contains(&image("c"))).await?;
    // one leaves by its label, one by its end
    tenant.list_in("selected", "team-b", &list(&["b"]), json!({"prepull.dev/list": "false"})).await?;
    tenant.delete_list("team-a").await?;
    let left = |s: &Value| images(s) == [image("own"), image("c")] && s["warm"] == true;
    agent.until(PATIENCE, "lists that left count no more", left).await?;
    tenant.list_in("selected", "team-c", "- nonsense", label).await?;
    let told = |s: &Value| problems(s).contains("must be a mapping");
    let status = agent.until(PATIENCE, "the problem is told", told).await?;
    ensure!(images(&status).contains(&image("c")), "{status:#}");
    Ok(())
}

async fn label(place: Place) -> Result<()> {
    let tenant = place.tenant("label").await?;
    let fake = FakeCri::start()?;
    let text = format!(
        "images:\n  - {}\n  - {{image: '{}', nodeSelector: {{accelerator: h100}}}}\n",
        image("plain"),
        image("gpu")
    );
    tenant.list(&text).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    let waits = |s: &Value| s["images"][1]["reason"] == "labels" && s["images"][0]["state"] == "Present";
    let status = agent.until(PATIENCE, "the entry waits for the labels", waits).await?;
    ensure!(status["warm"] == false, "{status:#}");
    let why = |s: &Value| s["notWarmReason"].as_str().is_some_and(|r| r.contains("component node-selection"));
    agent.until(PATIENCE, "the missing right is named", why).await?;
    tenant.grant_everywhere(json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}])).await?;
    let elsewhere = |s: &Value| s["images"][1]["state"] == "NotForThisNode" && s["warm"] == true;
    agent.until(PATIENCE, "the labels are known", elsewhere).await?;
    let began = Instant::now();
    tenant.patch_node(json!({"metadata": {"labels": {"accelerator": "h100"}}})).await?;
    agent.until_image(PATIENCE, &image("gpu"), "Present").await?;
    ensure!(began.elapsed() < Duration::from_secs(1), "the label took {:?}", began.elapsed());
    tenant.patch_node(json!({"metadata": {"labels": {"accelerator": null}}})).await?;
    agent.until_image(PATIENCE, &image("gpu"), "NotForThisNode").await?;
    // the node is watched no longer than an entry needs it
    tenant.list(&list(&["plain"])).await?;
    agent.until(PATIENCE, "the entry is gone", |s| s["images"].as_array().is_some_and(|i| i.len() == 1)).await?;
    let user = tenant.user();
    let asked = tenant.server.requests_since(0, &user)?;
    let nodes: Vec<_> = asked.iter().filter(|a| a.uri.contains("/nodes")).collect();
    ensure!(nodes.iter().all(|a| a.uri.contains("metadata.name%3Dlabel")), "only the own node: {nodes:?}");
    no_watch_on(&tenant, "/nodes").await
}

/// While no entry selects nodes the node is not watched, and its labels may change unseen.
async fn old_labels(place: Place) -> Result<()> {
    let tenant = place.tenant("old-labels").await?;
    let fake = FakeCri::start()?;
    tenant.grant_everywhere(json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}])).await?;
    tenant.patch_node(json!({"metadata": {"labels": {"accelerator": "h100"}}})).await?;
    let gpu = image("gpu");
    let selecting = format!("images: [{{image: '{gpu}', nodeSelector: {{accelerator: h100}}}}]");
    tenant.list(&selecting).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    agent.until_image(PATIENCE, &gpu, "Present").await?;
    tenant.list(&list(&["plain"])).await?;
    agent.until_image(PATIENCE, &image("plain"), "Present").await?;
    no_watch_on(&tenant, "/nodes").await?;
    tenant.patch_node(json!({"metadata": {"labels": {"accelerator": null}}})).await?;
    fake.take(&gpu);
    tenant.list(&selecting).await?;
    agent.until_image(PATIENCE, &gpu, "NotForThisNode").await?;
    let pulls = fake.journal().calls(Method::PullImage);
    ensure!(
        pulls.iter().filter(|call| call.image == gpu).count() == 1,
        "it was pulled by labels of the past: {pulls:?}"
    );
    Ok(())
}

async fn missing_right(place: Place) -> Result<()> {
    let tenant = place.tenant("missing-right").await?;
    let fake = FakeCri::start()?;
    tenant.list_in("missing-right", "another", &list(&["a"]), json!({})).await?;
    let agent = tenant.agent(&program(), &fake.socket(), &["--configmap", "missing-right/another"])?;
    let told = |s: &Value| problems(s).contains("grant list and watch on this ConfigMap");
    let status = agent.until(PATIENCE, "the right is named", told).await?;
    ensure!(status["warm"] == false, "{status:#}");
    let (code, why) = agent.get("/readyz").await?;
    ensure!(code == 503 && why.contains("the list missing-right/another was not read yet: configmaps"), "{why}");
    sleep(Duration::from_secs(3)).await;
    let lines = agent.log().lines().filter(|l| l.contains("forbidden") || l.contains("403")).count();
    ensure!(lines == 1, "told once, not for each try:\n{}", agent.log());
    Ok(())
}

/// An image that only this user may pull.
fn private(fake: &FakeCri, name: &str, password: &str) {
    let logins = vec![("user".to_owned(), password.to_owned())];
    fake.offer(&image(name), Offer { logins, ..Offer::default() });
}

fn may_read(secrets: &[&str], accounts: &[&str]) -> Value {
    let verbs = ["get", "list", "watch"];
    json!([
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": verbs},
        {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": accounts, "verbs": verbs},
    ])
}

async fn rotated(place: Place) -> Result<()> {
    let tenant = place.tenant("rotated").await?;
    let fake = FakeCri::start()?;
    private(&fake, "app", "new");
    tenant.list(&format!("images: [{{image: '{}', imagePullSecrets: [{{name: login}}]}}]", image("app"))).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    let row = agent.until_image(PATIENCE, &image("app"), "BackOff").await?;
    let text = row["problems"].to_string();
    ensure!(
        text.contains("secret rotated/login may not be read") && text.contains("component team-lists"),
        "the missing right is named: {row:#}"
    );
    // the right comes, and the secret is not there yet
    tenant.grant(may_read(&["login"], &[])).await?;
    let absent = |s: &Value| s["images"][0]["problems"].to_string().contains("secret rotated/login does not exist");
    agent.until(PATIENCE, "its absence is told", absent).await?;
    // both of what follows come at once, although a back-off of at least 10 s began
    agent.until_image(PATIENCE, &image("app"), "BackOff").await?;
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    tenant.pull_secret("rotated", "login", "registry.example.com", ("user", "old")).await?;
    let tried = |s: &Value| s["images"][0]["problems"] == json!([]) && s["images"][0]["state"] == "BackOff";
    agent.until(PATIENCE, "the new secret was tried", tried).await?;
    ensure!(began.elapsed() < Duration::from_secs(2), "the creation took {:?}", began.elapsed());
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    tenant.pull_secret("rotated", "login", "registry.example.com", ("user", "new")).await?;
    let row = agent.until_image(PATIENCE, &image("app"), "Present").await?;
    eprintln!("rotation to presence: {:?}", began.elapsed());
    ensure!(began.elapsed() < Duration::from_secs(2), "the rotation took {:?}", began.elapsed());
    ensure!(row["credential"].as_str().is_some_and(|c| c.contains("rotated/login")), "{row:#}");
    no_watch_on(&tenant, "/secrets").await
}

/// Waits until the agent watches nothing of a kind.
async fn no_watch_on(tenant: &Tenant<'_>, kind: &str) -> Result<()> {
    wait_for(PATIENCE, &format!("no watch on {kind} stands"), async || {
        let asked = tenant.server.requests_since(0, &tenant.user())?;
        let watches: Vec<_> = asked.iter().filter(|a| a.verb == "watch" && a.uri.contains(kind)).collect();
        let count = |stage: &str| watches.iter().filter(|a| a.stage == stage && a.code == 200).count();
        ensure!(watches.iter().all(|a| a.uri.contains("metadata.name%3D")), "by name only: {watches:?}");
        Ok((count("ResponseStarted") == count("ResponseComplete")).then_some(()))
    })
    .await
}

async fn account(place: Place) -> Result<()> {
    let tenant = place.tenant("account").await?;
    let fake = FakeCri::start()?;
    private(&fake, "app", "right");
    tenant.grant(may_read(&["login"], &["runner"])).await?;
    tenant.pull_secret("account", "login", "registry.example.com", ("user", "right")).await?;
    tenant.list(&format!("images: [{{image: '{}', serviceAccountName: runner}}]", image("app"))).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    let absent =
        |s: &Value| s["images"][0]["problems"].to_string().contains("service account account/runner does not exist");
    agent.until(PATIENCE, "the account's absence is told", absent).await?;
    agent.until_image(PATIENCE, &image("app"), "BackOff").await?;
    let runner = json!({"metadata": {"name": "runner"}, "imagePullSecrets": [{"name": "login"}]});
    let began = Instant::now();
    create::<ServiceAccount>(&tenant.api(), runner).await?;
    let row = agent.until_image(PATIENCE, &image("app"), "Present").await?;
    ensure!(began.elapsed() < Duration::from_secs(3), "the account took {:?}", began.elapsed());
    ensure!(row["credential"].as_str().is_some_and(|c| c.contains("account/login")), "{row:#}");
    Ok(())
}

async fn foreign_secret(place: Place) -> Result<()> {
    let tenant = place.tenant("foreign").await?;
    let other = place.tenant("foreign-team").await?;
    let fake = FakeCri::start()?;
    private(&fake, "app", "right");
    // the agent may read the secret of its own namespace, but the list is the team's
    tenant.grant(may_read(&["login"], &[])).await?;
    tenant.pull_secret("foreign", "login", "registry.example.com", ("user", "right")).await?;
    let lists = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]}]);
    tenant.grant_in("foreign-team", lists).await?;
    tenant.grant_in("foreign-team", may_read(&["login"], &[])).await?;
    let text = format!("images: [{{image: '{}', imagePullSecrets: [{{name: login}}]}}]", image("app"));
    other.list_in("foreign-team", "team", &text, json!({"list": "yes"})).await?;
    tenant.list("images: []").await?;
    let flags = ["--configmap-selector", "list=yes", "--configmap-namespace", "foreign-team"];
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &flags)?;
    let row = agent.until_image(PATIENCE, &image("app"), "BackOff").await?;
    ensure!(row["problems"].to_string().contains("secret foreign-team/login does not exist"), "{row:#}");
    let asked = tenant.server.requests_since(0, &tenant.user())?;
    let secrets: Vec<_> = asked.iter().filter(|a| a.uri.contains("/secrets")).collect();
    ensure!(
        !secrets.is_empty() && secrets.iter().all(|a| a.uri.contains("/namespaces/foreign-team/")),
        "only the list's own namespace is asked: {secrets:?}"
    );
    Ok(())
}

/// How long the idle agent is looked at; the steady state with a watch's renewal needs more than 290 s.
fn idle_time() -> Duration {
    let seconds = std::env::var("PREPULL_TEST_IDLE_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// A list of 60 images that fail, each with 50 Secrets of its own: 3,000 names in all.
async fn many_secrets(place: Place) -> Result<()> {
    let tenant = place.tenant("many").await?;
    let fake = FakeCri::start()?;
    tenant.grant(json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}])).await?;
    let entry = |n: usize| {
        let names: Vec<_> = (0..50).map(|m| format!("{{name: s{n}-{m}}}")).collect();
        format!("  - {{image: '{}', imagePullSecrets: [{}]}}\n", image(&format!("absent-{n}")), names.join(", "))
    };
    tenant.list(&(0..60).fold("images:\n".to_owned(), |list, n| list + &entry(n))).await?;
    let mark = tenant.server.audit_mark()?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    agent
        .until(PATIENCE, "the list is read", |s| s["images"].as_array().is_some_and(|images| images.len() == 60))
        .await?;
    let seconds = 20;
    let mut slowest = Duration::ZERO;
    for _ in 0..seconds {
        let began = Instant::now();
        let (code, _) = agent.get("/healthz").await?;
        slowest = slowest.max(began.elapsed());
        ensure!(code == 200, "{code}");
        sleep(Duration::from_secs(1).saturating_sub(began.elapsed())).await;
    }
    let asked = tenant.server.requests_since(mark, &tenant.user())?;
    let about_secrets = asked.iter().filter(|a| a.uri.contains("/secrets") && a.stage != "ResponseStarted").count();
    eprintln!("{about_secrets} requests about Secrets in {seconds} s, slowest /healthz {slowest:?}");
    ensure!(about_secrets > 30, "the burst is used: {about_secrets}");
    // a burst of 30 and one a second; the agent's clock and this one differ by less than two seconds
    ensure!(about_secrets <= 30 + seconds + 2, "{about_secrets} requests");
    ensure!(slowest < Duration::from_secs(1), "{slowest:?}");
    Ok(())
}

async fn hanging_secrets(place: Place) -> Result<()> {
    let tenant = place.tenant("hanging").await?;
    let fake = FakeCri::start()?;
    let names: Vec<_> = (0..4).map(|n| format!("{{name: s{n}}}")).collect();
    tenant
        .list(&format!(
            "images: [{{image: '{}', pullTimeout: 2s, imagePullSecrets: [{}]}}]",
            image("app"),
            names.join(", ")
        ))
        .await?;
    let proxy = ApiProxy::start(tenant.kubeconfig()).await?;
    proxy.set(ApiFault::Silence("/secrets"));
    let kubeconfig = proxy.kubeconfig("any");
    let agent = tenant.agent_by(&kubeconfig, &program(), &fake.socket(), &["--configmap", "hanging/prepull"])?;
    agent.until_image(PATIENCE, &image("app"), "Pulling").await?;
    let began = Instant::now();
    let row = agent.until_image(PATIENCE, &image("app"), "BackOff").await?;
    ensure!(began.elapsed() < Duration::from_secs(5), "the attempt took {:?}", began.elapsed());
    ensure!(row["class"] == "Timeout" && row["message"].to_string().contains("credentials"), "{row:#}");
    ensure!(fake.journal().count(Method::PullImage) == 0, "there was no time left for a pull");
    Ok(())
}

async fn idle(place: Place) -> Result<()> {
    let tenant = place.tenant("idle").await?;
    let fake = FakeCri::start()?;
    let names: Vec<_> = (0..200).map(|n| format!("team/app-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    fake.put(names.iter().map(|name| image(name)).collect::<Vec<_>>().iter().map(String::as_str))?;
    tenant.list(&list(&names)).await?;
    let agent = tenant.agent_on_list(&program(), &fake.socket(), &[])?;
    agent.until_warm(PATIENCE).await?;
    sleep(Duration::from_secs(3)).await;
    let begun = tenant.server.requests_since(0, &tenant.user())?;
    let started = begun.iter().filter(|a| a.verb == "watch" && a.stage == "ResponseStarted").count();
    ensure!(started == 1, "one watch stands: {begun:?}");
    let (mark, cpu) = (tenant.server.audit_mark()?, agent.cpu_seconds()?);
    sleep(idle_time()).await;
    let asked = tenant.server.requests_since(mark, &tenant.user())?;
    // the server ends a watch after 290 s, and the agent begins it again
    let renewals = usize::try_from(idle_time().as_secs() / 290)?;
    ensure!(
        asked.len() <= 2 * renewals && asked.iter().all(|a| a.verb == "watch" && a.uri.contains("/configmaps")),
        "an idle agent asks for nothing: {asked:?}"
    );
    eprintln!("requests of a start: {:?}", begun.iter().map(|a| format!("{} {}", a.verb, a.uri)).collect::<Vec<_>>());
    eprintln!(
        "{} images, idle for {:?} with a live watch: {} other requests, {} renewals, {} KiB resident, {:.2} s of CPU",
        names.len(),
        idle_time(),
        asked.iter().filter(|a| a.verb != "watch").count(),
        asked.len() / 2,
        agent.resident_bytes()? / 1024,
        agent.cpu_seconds()? - cpu
    );
    ensure!(agent.get("/readyz").await?.0 == 200);
    Ok(())
}

async fn outage(part: ApiServerPart) -> Result<()> {
    let mut server = ApiServer::start(&part).await?;
    let fake = FakeCri::start()?;
    fake.offer(&image("slow"), Offer { takes: Duration::from_secs(4), ..Offer::default() });
    let agent = {
        let tenant = Tenant::new(&server, "outage").await?;
        tenant.list(&list(&["slow"])).await?;
        tenant.agent_on_list(&program(), &fake.socket(), &[])?
    };
    agent.until_image(PATIENCE, &image("slow"), "Pulling").await?;
    server.close();
    let told = |s: &Value| problems(s).contains("does not answer");
    let status = agent.until(PATIENCE, "the outage is told", told).await?;
    ensure!(status["lists"][0]["revision"] != "", "{status:#}");
    let status = agent.until_warm(PATIENCE).await?;
    ensure!(status["images"][0]["image"] == image("slow"), "pulls go on: {status:#}");
    fake.take(&image("slow"));
    ensure!(agent.get("/healthz").await?.0 == 200);
    sleep(Duration::from_secs(5)).await;
    server.open().await?;
    let admin = server.admin().await.context("admin")?;
    let maps: kube::Api<ConfigMap> = kube::Api::namespaced(admin, "outage");
    let log = agent.log();
    ensure!(!log.contains("ERROR"), "the agent tells an outage in its own words:\n{log}");
    let patch = json!({"data": {"images.yaml": list(&["after"])}});
    maps.patch("prepull", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(patch)).await?;
    let began = Instant::now();
    let back = |s: &Value| s["images"][0]["image"] == image("after") && s["lists"][0]["problems"] == json!([]);
    agent.until(PATIENCE, "the new list is in force", back).await?;
    ensure!(began.elapsed() < Duration::from_secs(25), "it took {:?}", began.elapsed());
    Ok(())
}
