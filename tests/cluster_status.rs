//! `prepull status` against an API server whose pods, lists and agents a test makes up: what is asked, what is shown, what
//! is waited for, and what becomes of hostile and missing answers. tests/cluster has the same on real nodes.

mod support;

use std::{
    fs,
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use prepull::list::revision;
use serde_json::{Value, json};
use support::background::Background;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    sync::watch,
    time::{Instant, timeout},
};

/// An API server's answer for one agent.
#[derive(Debug, Clone)]
enum Says {
    Warm(&'static str),
    Cold(&'static str),
    /// A status of the proxy instead of the agent's answer.
    Refused(u16),
    /// A status of the agent itself.
    Fails(u16, &'static str),
    /// Whatever this is.
    Text(String),
    /// Nothing, ever.
    Silence,
}

#[derive(Debug, Clone)]
struct Node {
    name: &'static str,
    ready: bool,
    says: Says,
}

#[derive(Default)]
struct World {
    nodes: Vec<Node>,
    list: Option<&'static str>,
    args: Vec<&'static str>,
    /// Everything that was asked for.
    asked: Vec<String>,
    /// Pods of a page.
    page: usize,
}

struct Cluster {
    world: Arc<watch::Sender<World>>,
    folder: tempfile::TempDir,
    _background: Background,
}

const FIRST: &str = "images: [shop/web:1]";
const SECOND: &str = "images: [shop/web:1, shop/web:2]";

fn node(name: &'static str, ready: bool, says: Says) -> Node {
    Node { name, ready, says }
}

impl Cluster {
    fn start(nodes: Vec<Node>) -> Result<Self> {
        let args = vec!["agent", "--configmap=$(POD_NAMESPACE)/$(CONFIGMAP_NAME)"];
        let world = World { nodes, list: Some(FIRST), args, page: 500, ..World::default() };
        let world = Arc::new(watch::Sender::new(world));
        let background = Background::start("api-server")?;
        let (listener, address) = background.listen()?;
        let router = Router::new().fallback(answer).with_state(world.clone());
        background.spawn(async move {
            // it ends only with its runtime
            let _ = axum::serve(listener, router).await;
        });
        let folder = tempfile::tempdir()?;
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
        fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string())?;
        Ok(Self { world, folder, _background: background })
    }

    fn change(&self, change: impl FnOnce(&mut World)) {
        self.world.send_modify(change);
    }

    fn asked(&self, what: &str) -> usize {
        self.world.borrow().asked.iter().filter(|path| path.contains(what)).count()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
        command
            .arg("status")
            .args(arguments)
            .env("PREPULL_KUBECONFIG", self.folder.path().join("kubeconfig"))
            .kill_on_drop(true);
        command
    }

    async fn status(&self, arguments: &[&str]) -> Result<Said> {
        let output = self.command(arguments).output();
        let Output { status, stdout, stderr } = timeout(Duration::from_mins(2), output).await??;
        Ok(Said { code: status.code(), out: String::from_utf8(stdout)?, err: String::from_utf8(stderr)? })
    }
}

#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn ends(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "{self:#?}");
        Ok(self)
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:#?}"))
    }
}

async fn answer(State(world): State<Arc<watch::Sender<World>>>, method: Method, uri: Uri) -> Response {
    let path = uri.path().to_owned();
    let says = {
        world.send_modify(|world| world.asked.push(format!("{method} {uri}")));
        let world = world.borrow();
        if path == "/api/v1/namespaces/prepull/pods" {
            return pods(&world, uri.query().unwrap_or_default()).into_response();
        }
        if path == "/api/v1/namespaces/prepull/configmaps" {
            return json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {}, "items": []})
                .to_string()
                .into_response();
        }
        if path == "/api/v1/namespaces/prepull/configmaps/prepull" {
            return match world.list {
                Some(list) => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "prepull", "namespace": "prepull"},
                    "data": {"images.yaml": list}})
                .to_string()
                .into_response(),
                None => status(404, "configmaps \"prepull\" not found"),
            };
        }
        let pod = path.strip_prefix("/api/v1/namespaces/prepull/pods/prepull-").and_then(|rest| rest.split_once(':'));
        let node = pod.and_then(|(name, _)| world.nodes.iter().find(|n| n.name == name));
        match node {
            Some(node) if path.ends_with(":9797/proxy/api/v1/images") => node.says.clone(),
            _ => return status(403, "forbidden: nobody granted this"),
        }
    };
    let agent = |list: &str, warm: bool| {
        let image = if warm {
            json!({"image": "shop/web:1", "state": "Present", "digest": "sha256:1"})
        } else {
            json!({"image": "shop/web:1", "state": "BackOff", "class": "NotFound", "message": "no such tag", "remedy": "Push it."})
        };
        json!({"warm": warm, "notWarmReason": if warm { "" } else { "0 of 1 required images are in the store" },
            "lists": [{"source": "prepull/prepull", "revision": revision(list)}], "images": [image]})
        .to_string()
        .into_response()
    };
    match says {
        Says::Warm(list) => agent(list, true),
        Says::Cold(list) => agent(list, false),
        Says::Refused(code) => {
            status(code, "error trying to reach service: dial tcp 10.0.0.9:9797: connect: no route to host")
        }
        Says::Fails(code, text) => (StatusCode::from_u16(code).unwrap_or_default(), text).into_response(),
        Says::Text(text) => text.into_response(),
        Says::Silence => std::future::pending().await,
    }
}

fn status(code: u16, message: &str) -> Response {
    let body = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": message,
        "reason": if code == 404 { "NotFound" } else { "Forbidden" }});
    (StatusCode::from_u16(code).unwrap_or_default(), Body::from(body.to_string())).into_response()
}

/// A page of pods, from the one that `continue` says.
fn pods(world: &World, query: &str) -> String {
    let from: usize = query.split('&').find_map(|p| p.strip_prefix("continue=")?.parse().ok()).unwrap_or(0);
    let next = from + world.page;
    let pod = |node: &Node| {
        json!({"metadata": {"name": format!("prepull-{}", node.name), "uid": node.name, "namespace": "prepull",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "prepull", "uid": "d"}]},
        "spec": {"nodeName": node.name, "containers": [{"name": "prepull", "image": "i", "args": world.args, "readinessProbe": {"periodSeconds": 5},
            "env": [{"name": "CONFIGMAP_NAME", "value": "prepull"},
                {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}]}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if node.ready { "True" } else { "False" }}]}})
    };
    let items: Vec<Value> = world.nodes.iter().skip(from).take(world.page).map(pod).collect();
    let metadata = if next < world.nodes.len() { json!({"continue": next.to_string()}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items}).to_string()
}

#[tokio::test]
async fn only_who_is_not_ready_is_asked() -> Result<()> {
    let nodes = vec![
        node("a", true, Says::Warm(FIRST)),
        node("b", false, Says::Cold(FIRST)),
        node("c", true, Says::Warm(FIRST)),
    ];
    let cluster = Cluster::start(nodes)?;
    let said = cluster.status(&[]).await?.ends(1)?;
    ensure!(said.out.starts_with("2 of 3 nodes warm; 1 agents asked, 2 ready ones not asked"), "{said:#?}");
    ensure!(said.out.contains("NotFound on 1") && said.out.contains("Push it."), "{said:#?}");
    ensure!(cluster.asked("/proxy/") == 1, "not only b was asked");
    let all = cluster.status(&["--all", "-o", "json"]).await?.ends(1)?.json()?;
    ensure!(all["warm"] == 2 && all["asked"] == 3 && all["images"][0]["present"] == 2, "{all:#}");
    let nodes = cluster.status(&["--nodes"]).await?.ends(1)?;
    ensure!(nodes.out.contains("NODE") && nodes.out.contains("0 of 1 required images"), "{nodes:#?}");
    // where pods are ready whether warm or not, being ready says nothing
    cluster.change(|world| world.args.push("--ready-when=running"));
    let running = cluster.status(&["-o", "json"]).await?.ends(1)?.json()?;
    ensure!(running["asked"] == 3, "{running:#}");
    Ok(())
}

#[tokio::test]
async fn a_warm_cluster_is_status_0_and_pages_are_put_together() -> Result<()> {
    let names: Vec<&'static str> = (0..7).map(|n| &*format!("n{n}").leak()).collect();
    let cluster = Cluster::start(names.iter().map(|name| node(name, true, Says::Warm(FIRST))).collect())?;
    cluster.change(|world| world.page = 3);
    let said = cluster.status(&["-o", "json"]).await?.ends(0)?.json()?;
    ensure!(said["agents"] == 7 && said["warm"] == 7 && said["notAsked"] == 7, "{said:#}");
    ensure!(cluster.asked("continue=") == 2, "the pages were not asked for one after the other");
    Ok(())
}

#[tokio::test]
async fn waiting_ends_when_every_agent_has_the_list_as_it_is_now() -> Result<()> {
    let cluster = Cluster::start(vec![node("a", true, Says::Warm(FIRST)), node("b", true, Says::Warm(FIRST))])?;
    // the edit: both pods are still ready, and no agent has the new list
    cluster.change(|world| world.list = Some(SECOND));
    let waiting = cluster.status(&["--wait", "--timeout=50s"]);
    let edit = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.change(|world| world.nodes[0].says = Says::Warm(SECOND));
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.change(|world| world.nodes[1].says = Says::Cold(SECOND));
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.change(|world| world.nodes[1].says = Says::Warm(SECOND));
        Ok(())
    };
    let (said, ()) = tokio::try_join!(waiting, edit)?;
    let said = said.ends(0)?;
    ensure!(said.err.contains("0 of 2 nodes warm with the lists as they are now; waiting for a, b"), "{said:#?}");
    ensure!(said.err.contains("1 of 2 nodes warm with the lists as they are now; waiting for b"), "{said:#?}");
    ensure!(said.out.contains("2 of 2 agents that answered follow it"), "{said:#?}");
    Ok(())
}

#[tokio::test]
async fn who_has_proved_it_is_not_asked_again() -> Result<()> {
    let cluster = Cluster::start(vec![node("a", true, Says::Warm(FIRST)), node("b", false, Says::Cold(FIRST))])?;
    cluster.status(&["--wait", "--timeout=7s"]).await?.ends(1)?;
    let (a, b) = (cluster.asked("/pods/prepull-a:"), cluster.asked("/pods/prepull-b:"));
    ensure!(a == 1 && b > 1, "a was asked {a} times, b {b} times");
    Ok(())
}

#[tokio::test]
async fn who_was_warm_earlier_is_asked_again_at_the_end() -> Result<()> {
    let cluster = Cluster::start(vec![node("a", true, Says::Warm(FIRST)), node("b", true, Says::Cold(FIRST))])?;
    // being ready says nothing here, so nothing tells that a lost its image
    cluster.change(|world| world.args.push("--ready-when=running"));
    let waiting = cluster.status(&["--wait", "--timeout=50s"]);
    let change = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        cluster.change(|world| {
            world.nodes[0].says = Says::Cold(FIRST);
            world.nodes[1].says = Says::Warm(FIRST);
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        cluster.change(|world| world.nodes[0].says = Says::Warm(FIRST));
        Ok(())
    };
    let (said, ()) = tokio::try_join!(waiting, change)?;
    let said = said.ends(0)?;
    ensure!(said.err.contains("1 of 2 nodes warm with the lists as they are now; waiting for a\n"), "{said:#?}");
    Ok(())
}

#[tokio::test]
async fn watching_asks_anew_each_time() -> Result<()> {
    let cluster = Cluster::start(vec![node("a", true, Says::Warm(FIRST))])?;
    // neither its pod nor the list tells that an image is lost
    cluster.change(|world| world.args.push("--ready-when=running"));
    let mut watching = cluster.command(&["--watch", "-o", "json"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("no stdout")?).lines();
    let mut shows = async |warm: &str| -> Result<()> {
        while let Some(line) = lines.next_line().await? {
            if line.trim() == warm {
                return Ok(());
            }
        }
        anyhow::bail!("it ended without {warm}")
    };
    let bound = Duration::from_secs(30);
    timeout(bound, shows("\"warm\": 1,")).await??;
    cluster.change(|world| world.nodes[0].says = Says::Cold(FIRST));
    timeout(bound, shows("\"warm\": 0,")).await.context("it never looked again")??;
    // whoever reads it has seen enough
    drop(lines);
    timeout(bound, watching.wait()).await.context("it goes on for nobody")??;
    Ok(())
}

#[tokio::test]
async fn dead_nodes_are_named_apart_and_count() -> Result<()> {
    let nodes = vec![
        node("a", true, Says::Warm(FIRST)),
        node("b", false, Says::Refused(503)),
        node("c", false, Says::Refused(403)),
        node("d", false, Says::Fails(503, "others ask at the same time; try again\n")),
    ];
    let cluster = Cluster::start(nodes)?;
    let said = cluster.status(&["--all"]).await?.ends(1)?;
    ensure!(said.out.contains("NO ANSWER") && said.out.contains("no route to host"), "{said:#?}");
    ensure!(said.out.contains("grant get on pods/proxy (the role prepull-viewer)"), "{said:#?}");
    ensure!(cluster.asked("/portforward") == 2, "a port-forward is for agents to whom the proxy does not lead");
    ensure!(said.out.contains("it answers 503: others ask at the same time; try again"), "{said:#?}");
    let said = cluster.status(&["--wait", "--timeout=3s"]).await?.ends(1)?;
    ensure!(said.err.contains("no answer from b, c, d") && said.err.contains("not warm within 3 s"), "{said:#?}");
    cluster.status(&["--wait", "--min-warm=25%", "--timeout=20s"]).await?.ends(0)?;
    Ok(())
}

#[tokio::test]
async fn a_list_that_nobody_can_follow_is_not_waited_for() -> Result<()> {
    let cluster = Cluster::start(vec![node("a", true, Says::Warm(FIRST))])?;
    cluster.change(|world| world.list = Some("images: ["));
    let said = cluster.status(&["--wait", "--timeout=60s"]).await?.ends(1)?;
    ensure!(said.out.contains("cannot be used as it is now"), "{said:#?}");
    cluster.change(|world| world.list = None);
    let said = cluster.status(&["--wait", "--timeout=60s"]).await?.ends(1)?;
    ensure!(said.out.contains("there is no ConfigMap prepull/prepull"), "{said:#?}");
    Ok(())
}

#[tokio::test]
async fn a_list_in_a_file_is_not_waited_for() -> Result<()> {
    let cluster = Cluster::start(vec![node("a", true, Says::Warm(FIRST))])?;
    cluster.change(|world| world.args = vec!["agent", "--images=/etc/prepull/images.yaml"]);
    let said = cluster.status(&["--wait", "--timeout=60s"]).await?.ends(1)?;
    ensure!(said.err.contains("1 of 1 agents read their list from a file"), "{said:#?}");
    ensure!(said.out.starts_with("1 of 1 nodes warm\n"), "{said:#?}");
    cluster.status(&["--all"]).await?.ends(0)?;
    Ok(())
}

#[tokio::test]
async fn a_selector_that_selects_nothing_is_followed() -> Result<()> {
    let none = r#"{"warm": true, "notWarmReason": "", "lists": [], "images": []}"#;
    let cluster = Cluster::start(vec![node("a", true, Says::Text(none.to_owned()))])?;
    cluster.change(|world| {
        world.args = vec!["agent", "--configmap-namespace=prepull", "--configmap-selector=prepull.dev/list=true"];
    });
    cluster.status(&["--wait", "--timeout=20s"]).await?.ends(0)?;
    Ok(())
}

#[tokio::test]
async fn an_old_list_has_a_heading_of_its_own() -> Result<()> {
    let cluster = Cluster::start(vec![node("a", true, Says::Warm(FIRST)), node("b", true, Says::Warm(SECOND))])?;
    cluster.change(|world| world.list = Some(SECOND));
    let said = cluster.status(&["--all"]).await?.ends(0)?;
    ensure!(said.out.starts_with("2 of 2 nodes warm, 1 of them with a list that was changed since\n"), "{said:#?}");
    ensure!(said.out.contains("OLD LIST\na\n") && !said.out.contains("NOT WARM"), "{said:#?}");
    let nodes = cluster.status(&["--nodes"]).await?.ends(0)?;
    ensure!(nodes.out.contains("its list was changed since"), "{nodes:#?}");
    Ok(())
}

#[tokio::test]
async fn hostile_answers_are_text_and_bounded() -> Result<()> {
    let images = json!([{"image": "evil\u{1b}[2J\nname", "state": "BackOff", "class": "C\u{202e}x", "message": "m\u{7}", "remedy": "r"}]);
    let evil = json!({"warm": false, "notWarmReason": "\u{1b}]0;x\u{7}", "lists": [], "images": images}).to_string();
    let long = format!("{{\"warm\": true, \"images\": [], \"x\": \"{}\"}}", "y".repeat(33 << 20));
    let nodes = vec![
        node("a", false, Says::Text(evil)),
        node("b", false, Says::Text("<html>no</html>".to_owned())),
        node("c", false, Says::Text(long)),
    ];
    let said = Cluster::start(nodes)?.status(&[]).await?.ends(1)?;
    ensure!(!said.out.chars().any(|c| c != '\n' && c.is_control()), "{said:#?}");
    ensure!(said.out.contains("what answers is no agent of prepull"), "{said:#?}");
    ensure!(said.out.contains("longer than 32 MiB"), "{said:#?}");
    Ok(())
}

/// Most memory that a process has had so far, in bytes.
fn peak_memory(pid: u32) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// Twelve Pods answer 32 MB each: the smallest images, whose rows would take 2 GB, and one long text.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_answers_take_little_memory() -> Result<()> {
    const MIB: usize = 1 << 20;
    let images = format!("{{\"images\":[{}{{}}]}}", "{},".repeat(32_000_000 / 3));
    let text = format!("{{\"warm\": true, \"images\": [], \"x\": \"{}\"}}", "y".repeat(32_000_000));
    let name = |n: usize| &*format!("n{n}").leak();
    let says = |n: usize| Says::Text(if n.is_multiple_of(2) { images.clone() } else { text.clone() });
    let cluster = Cluster::start((0..12).map(|n| node(name(n), false, says(n))).collect())?;
    let mut watching = cluster.command(&["--watch", "-o", "json"]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(watching.stdout.take().context("no stdout")?).lines();
    let shown = async {
        let mut refused = 0;
        while let Some(line) = lines.next_line().await? {
            refused += usize::from(line.contains("its answer has more than 100000 images"));
            if line == "}" {
                return Ok(refused);
            }
        }
        anyhow::bail!("it ended early")
    };
    let refused = timeout(Duration::from_mins(2), shown).await??;
    ensure!(refused == 6, "{refused} answers were refused");
    let peak = peak_memory(watching.id().context("it ended")?)?;
    // four large answers at a time, and the rows of one
    ensure!(peak < 256 * MIB, "{} MiB", peak / MIB);
    Ok(())
}

#[tokio::test]
async fn an_agent_that_says_nothing_holds_nobody_up_for_long() -> Result<()> {
    let cluster = Cluster::start(vec![node("a", false, Says::Silence), node("b", false, Says::Cold(FIRST))])?;
    let began = Instant::now();
    let said = cluster.status(&[]).await?.ends(1)?;
    ensure!(said.out.contains("no answer within 15 s; its node may be down"), "{said:#?}");
    ensure!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn no_agents_and_wrong_usage_are_said() -> Result<()> {
    let cluster = Cluster::start(vec![])?;
    let said = cluster.status(&[]).await?.ends(1)?;
    ensure!(said.out.contains("no agent in namespace prepull"), "{said:#?}");
    cluster.status(&["--min-warm=101%"]).await?.ends(2)?;
    cluster.status(&["--timeout=1h"]).await?.ends(2)?;
    // the variable is there for whoever waits
    let with = |arguments: &[&str], timeout: &str| cluster.command(arguments).env("PREPULL_TIMEOUT", timeout).output();
    let said = with(&[], "1s").await?;
    ensure!(said.status.code() == Some(1) && said.stderr.is_empty(), "{said:#?}");
    let said = with(&["--wait"], "1s").await?;
    ensure!(String::from_utf8_lossy(&said.stderr).contains("not warm within 1 s"), "{said:#?}");
    ensure!(with(&["--wait"], "soon").await?.status.code() == Some(2));
    let said = cluster.status(&["-n", "elsewhere"]).await?.ends(1)?;
    ensure!(said.err.contains("may not be listed") && said.err.contains("prepull-viewer"), "{said:#?}");
    Ok(())
}
