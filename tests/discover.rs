//! `prepull discover` on a real API server: what it finds, what it writes, and what it leaves alone.

mod support;

use std::{
    fs,
    process::{ExitCode, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    batch::v1::{CronJob, Job},
    core::v1::{ConfigMap, Namespace, Pod, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use libtest_mimic::Arguments;
use serde_json::{Value, json};
use support::{
    apiserver::{ApiServer, ApiServerPart},
    cluster::{Place, Servers},
    tenant::{Tenant, create},
};

fn main() -> ExitCode {
    let servers = Servers::default();
    let trials = vec![
        servers.shared("every_kind_of_workload_is_counted", kinds),
        servers.shared("many_pods_come_page_by_page", pages),
        servers.shared("labels_select_workloads", selected),
        servers.shared("what_may_not_be_read_does_not_stop_the_rest", forbidden),
        servers.shared("a_configmap_is_made_kept_and_left_alone_when_unchanged", kept),
        servers.shared("a_configmap_of_somebody_else_is_left_alone", foreign),
        servers.shared("a_hand_edit_is_left_alone", edited),
        servers.shared("secrets_stand_in_the_list_of_their_own_namespace", secrets),
        servers.shared("the_rights_of_the_component_suffice", least_rights),
        servers.shared("a_context_names_cluster_and_namespace", contexts),
        Servers::own("nothing_is_written_from_half_an_answer", half),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// What the command said.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn discover_by(kubeconfig: &str, arguments: &[&str]) -> Result<Said> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("kubeconfig");
    fs::write(&path, kubeconfig)?;
    let command = tokio::process::Command::new(env!("CARGO_BIN_EXE_prepull"))
        .arg("discover")
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("PREPULL_KUBECONFIG", &path)
        .current_dir(folder.path())
        .output();
    let Output { status, stdout, stderr } = tokio::time::timeout(Duration::from_mins(2), command).await??;
    let text = |bytes| String::from_utf8(bytes);
    Ok(Said { code: status.code(), out: text(stdout)?, err: text(stderr)? })
}

impl Said {
    fn ends(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "{self:#?}");
        Ok(self)
    }

    /// The images of the list, which has no problems in `prepull check`.
    fn list(&self) -> Result<Vec<String>> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("images.yaml"), &self.out)?;
        let checked = std::process::Command::new(env!("CARGO_BIN_EXE_prepull"))
            .args(["check", "-o", "json", "-f", "images.yaml"])
            .current_dir(folder.path())
            .output()?;
        let report: Value = serde_json::from_slice(&checked.stdout)?;
        ensure!(checked.status.success(), "{report:#}\n{}", self.out);
        let images = report["images"].as_array().context("no images")?;
        Ok(images.iter().map(|image| image["image"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

trait Discovers {
    async fn discover(&self, arguments: &[&str]) -> Result<Said>;
    async fn discovered(&self, name: &str) -> Result<ConfigMap>;
    async fn may_list(&self, namespace: &str) -> Result<()>;
    async fn deploy(&self, name: &str, replicas: u64, image: &str) -> Result<()>;
}

impl Discovers for Tenant<'_> {
    /// As the account of this tenant.
    async fn discover(&self, arguments: &[&str]) -> Result<Said> {
        discover_by(self.kubeconfig(), arguments).await
    }

    async fn discovered(&self, name: &str) -> Result<ConfigMap> {
        Ok(self.api::<ConfigMap>().get(name).await?)
    }

    async fn may_list(&self, namespace: &str) -> Result<()> {
        self.grant_in(namespace, workloads()).await
    }

    async fn deploy(&self, name: &str, replicas: u64, image: &str) -> Result<()> {
        let pod = json!({"containers": [{"name": "c", "image": image}]});
        create::<Deployment>(&self.api(), with_template(name, json!({"replicas": replicas}), &pod)).await.map(drop)
    }
}

/// What the component grants everywhere.
fn workloads() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": ["list"]},
        {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": ["list"]},
    ])
}

/// And on its own ConfigMap.
fn own(name: &str) -> Value {
    json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get", "patch"]}])
}

fn makes_configmaps() -> Value {
    json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "patch", "create"]}])
}

fn with_template(name: &str, mut spec: Value, pod: &Value) -> Value {
    spec["selector"] = json!({"matchLabels": {"app": name}});
    spec["template"] = json!({"metadata": {"labels": {"app": name}}, "spec": pod});
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

async fn kinds(place: Place) -> Result<()> {
    let tenant = place.tenant("kinds").await?;
    tenant.may_list("kinds").await?;
    let pod = |image: &str| json!({"containers": [{"name": "c", "image": image}], "restartPolicy": "Never"});
    let always = |image: &str| json!({"containers": [{"name": "c", "image": image}]});
    tenant.deploy("web", 3, "r.io/deployment:1").await?;
    let stateful = with_template("db", json!({"replicas": 2, "serviceName": "db"}), &always("r.io/statefulset:1"));
    create::<StatefulSet>(&tenant.api(), stateful).await?;
    create::<DaemonSet>(&tenant.api(), with_template("each", json!({}), &always("r.io/daemonset:1"))).await?;
    let status = json!({"status": {"currentNumberScheduled": 7, "desiredNumberScheduled": 7, "numberMisscheduled": 0, "numberReady": 0}});
    tenant.api::<DaemonSet>().patch_status("each", &PatchParams::default(), &Patch::Merge(status)).await?;
    let job =
        json!({"metadata": {"name": "once"}, "spec": {"parallelism": 5, "template": {"spec": pod("r.io/job:1")}}});
    create::<Job>(&tenant.api(), job).await?;
    let cron = json!({"metadata": {"name": "nightly"}, "spec": {"schedule": "@daily",
        "jobTemplate": {"spec": {"template": {"spec": pod("r.io/cronjob:1")}}}}});
    create::<CronJob>(&tenant.api(), cron).await?;
    let mut alone = pod("r.io/main:1");
    alone["initContainers"] = json!([{"name": "i", "image": "r.io/init:1"}]);
    alone["volumes"] = json!([{"name": "model", "image": {"reference": "r.io/volume:1"}}]);
    alone["serviceAccountName"] = "prepull".into();
    create::<Pod>(&tenant.api(), json!({"metadata": {"name": "alone"}, "spec": alone})).await?;
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "r.io/ephemeral:1"}]}});
    let pods: Api<Pod> = tenant.api();
    pods.patch_subresource("ephemeralcontainers", "alone", &PatchParams::default(), &Patch::Strategic(debug)).await?;
    let said = tenant.discover(&["-n", "kinds"]).await?.ends(0)?;
    let expected = [
        "r.io/daemonset:1",
        "r.io/job:1",
        "r.io/deployment:1",
        "r.io/statefulset:1",
        // one pod each, by name; the last one is the tenant's own
        "prepull:test",
        "r.io/cronjob:1",
        "r.io/ephemeral:1",
        "r.io/init:1",
        "r.io/main:1",
        "r.io/volume:1",
    ];
    ensure!(said.list()? == expected, "{said:#?}");
    ensure!(
        said.out
            .contains("# 3 pods in kinds, by kinds/deployment/web\n- image: r.io/deployment:1\n  required: false\n"),
        "{}",
        said.out
    );
    let said = tenant.discover(&["-n", "kinds", "-o", "json"]).await?.ends(0)?;
    let data: Value = serde_json::from_str(&said.out)?;
    let first = &data["images"][0];
    ensure!(
        first["image"] == expected[0] && first["pods"] == 7 && first["usedBy"][0] == "kinds/daemonset/each",
        "{data:#}"
    );
    let said = tenant.discover(&["-n", "kinds", "-o", "table"]).await?.ends(0)?;
    ensure!(said.out.starts_with("PODS  IMAGE") && said.out.lines().count() == 1 + expected.len(), "{}", said.out);
    Ok(())
}

async fn pages(place: Place) -> Result<()> {
    const PODS: usize = 530;
    let tenant = place.tenant("pages").await?;
    tenant.may_list("pages").await?;
    let pods: Api<Pod> = tenant.api();
    let spec = json!({"containers": [{"name": "c", "image": "r.io/many:1"}], "serviceAccountName": "prepull"});
    stream::iter(0..PODS)
        .map(|n| create(&pods, json!({"metadata": {"name": format!("p{n}")}, "spec": spec})))
        .buffer_unordered(20)
        .try_for_each(async |_| Ok(()))
        .await?;
    let mark = tenant.server.audit_mark()?;
    let said = tenant.discover(&["-n", "pages", "-o", "json"]).await?.ends(0)?;
    let data: Value = serde_json::from_str(&said.out)?;
    ensure!(data["images"][0]["pods"] == PODS, "{data:#}");
    let asked = tenant.server.requests_since(mark, &tenant.user())?;
    let of_pods: Vec<_> = asked.iter().filter(|a| a.uri.starts_with("/api/v1/namespaces/pages/pods")).collect();
    ensure!(of_pods.len() == 3 && of_pods.iter().all(|a| a.uri.contains("limit=250")), "{of_pods:#?}");
    ensure!(asked.iter().all(|a| a.verb == "list"), "nothing but lists: {asked:#?}");
    Ok(())
}

async fn selected(place: Place) -> Result<()> {
    let tenant = place.tenant("selected").await?;
    tenant.may_list("selected").await?;
    tenant.deploy("web", 1, "r.io/web:1").await?;
    tenant.deploy("db", 1, "r.io/db:1").await?;
    let said = tenant.discover(&["-n", "selected", "-l", "app in (db)"]).await?.ends(0)?;
    ensure!(said.list()? == ["r.io/db:1"], "{said:#?}");
    let said = tenant.discover(&["-n", "selected", "-l", "app=nobody"]).await?.ends(0)?;
    ensure!(said.list()?.is_empty() && said.err.contains("no workload in the namespace selected"), "{said:#?}");
    let said = tenant.discover(&["-n", "selected", "-l", "a b c"]).await?.ends(1)?;
    ensure!(said.err.contains("unable to parse"), "{said:#?}");
    Ok(())
}

async fn forbidden(place: Place) -> Result<()> {
    let tenant = place.tenant("forbidden").await?;
    create::<Namespace>(&Api::all(tenant.admin.clone()), json!({"metadata": {"name": "closed"}})).await?;
    tenant.may_list("forbidden").await?;
    tenant.grant(makes_configmaps()).await?;
    tenant.deploy("web", 1, "r.io/web:1").await?;
    let arguments = ["-n", "closed", "-n", "forbidden", "-l", "app=web"];
    let said = tenant.discover(&arguments).await?.ends(1)?;
    ensure!(said.list()? == ["r.io/web:1"], "{said:#?}");
    ensure!(
        said.err.contains("deployments.apps in namespace closed may not be read; grant list on deployments.apps"),
        "{said:#?}"
    );
    ensure!(said.err.lines().count() == 6 && !said.err.contains("namespace forbidden"), "one line a kind: {said:#?}");
    // what may not be read is in use all the same: a list without it must not take the place of one with it
    let into = |arguments: &[&'static str]| [arguments, &["--into", "forbidden/found"]].concat();
    tenant.discover(&into(&["-n", "forbidden", "-l", "app=web"])).await?.ends(0)?;
    tenant.deploy("db", 1, "r.io/db:1").await?;
    for lacking in [&["-n", "closed", "-n", "forbidden"][..], &["-n", "closed"], &["-A"]] {
        let said = tenant.discover(&into(lacking)).await?.ends(1)?;
        ensure!(said.err.contains("nothing is written to the ConfigMap forbidden/found"), "{said:#?}");
        let data = tenant.discovered("found").await?.data.context("no data")?;
        let list = &data["images.yaml"];
        ensure!(list.contains("r.io/web:1") && !list.contains("r.io/db:1"), "{lacking:?} wrote {list}");
    }
    // who may not list every kind asks for the others
    tenant
        .grant_in("closed", json!([{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]}]))
        .await?;
    let kinds = ["-n", "closed", "-n", "forbidden", "--kinds=deployments"];
    let said = tenant.discover(&into(&kinds)).await?.ends(0)?;
    ensure!(said.err.contains("forbidden/found written: 2 images"), "{said:#?}");
    tenant.discover(&["-n", "forbidden", "--kinds=replicasets"]).await?.ends(2)?;
    let said = tenant.discover(&["-A"]).await?.ends(1)?;
    ensure!(said.err.contains("in all namespaces may not be read") && said.err.contains("--namespace"), "{said:#?}");
    tenant.grant_everywhere(workloads()).await?;
    let said = tenant.discover(&["-A", "-l", "app=web"]).await?.ends(0)?;
    ensure!(said.list()?.contains(&"r.io/web:1".to_owned()) && said.err.is_empty(), "{said:#?}");
    Ok(())
}

async fn kept(place: Place) -> Result<()> {
    let tenant = place.tenant("kept").await?;
    tenant.may_list("kept").await?;
    tenant.grant(makes_configmaps()).await?;
    tenant.deploy("web", 3, "r.io/web:1").await?;
    let arguments = ["-n", "kept", "-l", "app", "--into", "kept/found"];
    let said = tenant.discover(&arguments).await?.ends(0)?;
    ensure!(said.out.is_empty() && said.err.contains("kept/found written: 1 images, revision"), "{said:#?}");
    let map = tenant.discovered("found").await?;
    ensure!(map.metadata.labels.as_ref().is_some_and(|l| l["prepull.dev/list"] == "true"), "agents find it: {map:#?}");
    let manager = map.metadata.managed_fields.iter().flatten().find(|f| f.operation.as_deref() == Some("Apply"));
    ensure!(manager.is_some_and(|f| f.manager.as_deref() == Some("prepull-discover")), "{map:#?}");
    // neither more pods nor another order is an edit
    tenant.deploy("db", 1, "r.io/db:1").await?;
    tenant.discover(&arguments).await?.ends(0)?;
    let map = tenant.discovered("found").await?;
    for (name, replicas) in [("web", 9), ("db", 20)] {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        tenant.api::<Deployment>().patch(name, &PatchParams::default(), &patch).await?;
        let mark = tenant.server.audit_mark()?;
        let said = tenant.discover(&arguments).await?.ends(0)?;
        ensure!(said.err.contains("kept/found unchanged: 2 images"), "{said:#?}");
        let asked = tenant.server.requests_since(mark, &tenant.user())?;
        ensure!(asked.iter().all(|a| a.verb == "list" || a.verb == "get"), "nothing is written: {asked:#?}");
        ensure!(tenant.discovered("found").await?.metadata.resource_version == map.metadata.resource_version);
    }
    tenant.api::<Deployment>().delete("web", &DeleteParams::default()).await?;
    tenant.discover(&arguments).await?.ends(0)?;
    let text = tenant.discovered("found").await?.data.context("no data")?["images.yaml"].clone();
    ensure!(text.contains("r.io/db:1") && !text.contains("r.io/web:1"), "{text}");
    ensure!(
        text.contains("- image: r.io/db:1\n  required: false\n"),
        "no image of a workload makes a node cold: {text}"
    );
    // required only if that is asked for, and then written though the images are the same
    tenant.discover(&[&arguments[..], &["--required"]].concat()).await?.ends(0)?;
    let text = tenant.discovered("found").await?.data.context("no data")?["images.yaml"].clone();
    ensure!(text.contains("- image: r.io/db:1\n") && !text.contains("required"), "{text}");
    // and what it is worth: an agent that follows it would take it
    ensure!(Said { code: None, out: text, err: String::new() }.list()? == ["r.io/db:1"]);
    Ok(())
}

async fn foreign(place: Place) -> Result<()> {
    let tenant = place.tenant("foreign").await?;
    tenant.may_list("foreign").await?;
    tenant.grant(makes_configmaps()).await?;
    tenant.deploy("web", 1, "r.io/web:1").await?;
    tenant.list("images: [r.io/mine:1]").await?;
    let without_list = json!({"metadata": {"name": "settings"}, "data": {"colour": "blue"}});
    create::<ConfigMap>(&tenant.api(), without_list).await?;
    for name in ["prepull", "settings"] {
        let before = tenant.discovered(name).await?;
        let said = tenant.discover(&["-n", "foreign", "--into", &format!("foreign/{name}")]).await?.ends(1)?;
        ensure!(said.err.contains("was not made by prepull discover and is left alone"), "{said:#?}");
        ensure!(tenant.discovered(name).await? == before);
    }
    // handed over, as the message says
    let label = Patch::Merge(json!({"metadata": {"labels": {"prepull.dev/discovered": "true"}}}));
    tenant.api::<ConfigMap>().patch("settings", &PatchParams::default(), &label).await?;
    tenant.discover(&["-n", "foreign", "--into", "foreign/settings"]).await?.ends(0)?;
    let data = tenant.discovered("settings").await?.data.context("no data")?;
    ensure!(data["colour"] == "blue" && data["images.yaml"].contains("r.io/web:1"), "{data:#?}");
    let said = tenant.discover(&["-n", "foreign", "--into", "nowhere/found"]).await?.ends(1)?;
    ensure!(said.err.contains("nowhere/found may not be read"), "{said:#?}");
    Ok(())
}

async fn edited(place: Place) -> Result<()> {
    let tenant = place.tenant("edited").await?;
    tenant.may_list("edited").await?;
    tenant.grant(makes_configmaps()).await?;
    tenant.deploy("web", 1, "r.io/web:1").await?;
    let arguments = ["-n", "edited", "--into", "edited/found"];
    tenant.discover(&arguments).await?.ends(0)?;
    let maps: Api<ConfigMap> = tenant.api();
    let by_hand = Patch::Merge(json!({"data": {"images.yaml": "images: [r.io/mine:1]"}}));
    maps.patch(
        "found",
        &PatchParams { field_manager: Some("kubectl-edit".to_owned()), ..PatchParams::default() },
        &by_hand,
    )
    .await?;
    let said = tenant.discover(&arguments).await?.ends(1)?;
    ensure!(said.err.contains("was changed by somebody else") && said.err.contains("kubectl-edit"), "{said:#?}");
    ensure!(tenant.discovered("found").await?.data.is_some_and(|data| data["images.yaml"].contains("mine")));
    // given back, as the message says
    let remove = serde_json::from_value(json!([{"op": "remove", "path": "/data/images.yaml"}]))?;
    maps.patch("found", &PatchParams::default(), &Patch::<()>::Json(remove)).await?;
    tenant.discover(&arguments).await?.ends(0)?;
    ensure!(tenant.discovered("found").await?.data.is_some_and(|data| data["images.yaml"].contains("web")));
    Ok(())
}

async fn secrets(place: Place) -> Result<()> {
    let tenant = place.tenant("secrets").await?;
    tenant.may_list("secrets").await?;
    tenant.grant(makes_configmaps()).await?;
    let account = json!({"metadata": {"name": "runner"}, "imagePullSecrets": [{"name": "of-account"}]});
    create::<ServiceAccount>(&tenant.api(), account).await?;
    let pod = |image: &str, more: Value| {
        let mut pod = json!({"containers": [{"name": "c", "image": image}]});
        pod.as_object_mut().into_iter().for_each(|fields| fields.extend(more.as_object().cloned().unwrap_or_default()));
        pod
    };
    let named = pod("r.io/named:1", json!({"imagePullSecrets": [{"name": "of-pod"}]}));
    let asleep = pod("r.io/asleep:1", json!({"serviceAccountName": "runner"}));
    let running = pod("r.io/running:1", json!({"serviceAccountName": "runner"}));
    create::<Deployment>(&tenant.api(), with_template("named", json!({}), &named)).await?;
    create::<Deployment>(&tenant.api(), with_template("asleep", json!({"replicas": 0}), &asleep)).await?;
    create::<Pod>(
        &tenant.api(),
        json!({"metadata": {"name": "running", "labels": {"app": "running"}}, "spec": running}),
    )
    .await?;
    let entries = async |arguments: &[&str]| -> Result<(Value, String)> {
        let said = tenant.discover(&[&["-l", "app"], arguments].concat()).await?.ends(0)?;
        said.list()?;
        let list: Value = serde_yaml::from_str(&said.out)?;
        let entries = list["images"].as_array().context("no images")?;
        Ok((
            entries.iter().map(|e| (e["image"].as_str().unwrap_or_default().to_owned(), e.clone())).collect(),
            said.err,
        ))
    };
    // without the right to read the account: said, and no reason to stop
    let (found, err) = entries(&["-n", "secrets"]).await?;
    ensure!(err.contains("may not be read: runner"), "{err}");
    ensure!(found["r.io/asleep:1"]["serviceAccountName"].is_null(), "{found:#}");
    tenant.grant(json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get"]}])).await?;
    let (found, err) = entries(&["-n", "secrets"]).await?;
    ensure!(err.is_empty(), "{err}");
    ensure!(found["r.io/named:1"]["imagePullSecrets"][0]["name"] == "of-pod", "{found:#}");
    ensure!(found["r.io/asleep:1"]["serviceAccountName"] == "runner", "{found:#}");
    // admission wrote the account's secret into the pod
    ensure!(found["r.io/running:1"]["imagePullSecrets"][0]["name"] == "of-account", "{found:#}");
    // for a list elsewhere they are no use
    create::<Namespace>(&Api::all(tenant.admin.clone()), json!({"metadata": {"name": "lists"}})).await?;
    tenant.grant_in("lists", makes_configmaps()).await?;
    tenant.discover(&["-n", "secrets", "--into", "lists/found"]).await?.ends(0)?;
    let map = Api::<ConfigMap>::namespaced(tenant.admin.clone(), "lists").get("found").await?;
    let text = map.data.context("no data")?["images.yaml"].clone();
    ensure!(text.contains("cannot use: secrets/of-pod") && !text.contains("imagePullSecrets"), "{text}");
    Ok(())
}

async fn least_rights(place: Place) -> Result<()> {
    let tenant = place.tenant("least").await?;
    tenant.may_list("least").await?;
    tenant.grant(own("found")).await?;
    tenant.deploy("web", 1, "r.io/web:1").await?;
    let arguments = ["-n", "least", "--into", "least/found"];
    let said = tenant.discover(&arguments).await?.ends(1)?;
    ensure!(said.err.contains("may not be made; grant"), "{said:#?}");
    let empty = json!({"metadata": {"name": "found", "labels": {"prepull.dev/discovered": "true"}}});
    create::<ConfigMap>(&tenant.api(), empty).await?;
    tenant.discover(&arguments).await?.ends(0)?;
    ensure!(tenant.discovered("found").await?.data.is_some_and(|data| data["images.yaml"].contains("web")));
    Ok(())
}

async fn contexts(place: Place) -> Result<()> {
    let tenant = place.tenant("contexts").await?;
    tenant.may_list("contexts").await?;
    tenant.deploy("web", 1, "r.io/web:1").await?;
    let mut config: Value = serde_yaml::from_str(tenant.kubeconfig())?;
    let context = json!({"name": "other", "context": {"cluster": "c", "user": "u", "namespace": "contexts"}});
    config["contexts"].as_array_mut().context("no contexts")?.push(context);
    let config = serde_yaml::to_string(&config)?;
    let said = discover_by(&config, &["--context", "other", "-l", "app=web"]).await?.ends(0)?;
    ensure!(said.list()? == ["r.io/web:1"], "{said:#?}");
    let said = discover_by(&config, &[]).await?.ends(1)?;
    ensure!(said.err.contains("in namespace default may not be read"), "{said:#?}");
    let said = discover_by(&config, &["--context", "third"]).await?.ends(1)?;
    ensure!(said.err.contains("third") && said.err.contains("--context"), "{said:#?}");
    for wrong in [&["-n", "a/b"][..], &["-n", "a", "-A"], &["--into", "a"], &["-o", "xml"]] {
        discover_by(&config, wrong).await?.ends(2)?;
    }
    Ok(())
}

/// An API server that does not answer leaves the list as it was.
async fn half(part: ApiServerPart) -> Result<()> {
    let mut server = ApiServer::start(&part).await?;
    let (kubeconfig, before) = {
        let tenant = Tenant::new(&server, "half").await?;
        tenant.may_list("half").await?;
        tenant.grant(makes_configmaps()).await?;
        tenant.deploy("web", 1, "r.io/web:1").await?;
        tenant.discover(&["-n", "half", "--into", "half/found"]).await?.ends(0)?;
        (tenant.kubeconfig().to_owned(), tenant.discovered("found").await?)
    };
    server.close();
    let said = discover_by(&kubeconfig, &["-n", "half", "--into", "half/found"]).await?.ends(1)?;
    ensure!(said.err.contains("nothing is written to the ConfigMap half/found"), "{said:#?}");
    server.open().await?;
    let after = Api::<ConfigMap>::namespaced(server.admin().await?, "half").get("found").await?;
    ensure!(after == before, "{after:#?}");
    Ok(())
}
