//! The agents of a cluster: their pods by one list, and what one of them answers.
//!
//! An agent is asked through the API server's proxy to pods, which needs `get` on `pods/proxy` (the role `prepull-viewer`).
//! Where the API server cannot reach pods' addresses or does not let us, a port-forward goes through the kubelet instead, as
//! `kubectl port-forward` does. It begins with a GET, so it needs `get` on `pods/portforward`, and since Kubernetes 1.35
//! `create` besides.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{Api, Client, api::ListParams, client::Body};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{secrets::patiently, watch::Trouble};
use prepull_core::{
    error_text::one_line,
    fleet::{Agent, Answer, Settings},
};

/// Pods of a page.
const PAGE: u32 = 500;
/// A page takes no longer.
const PAGE_BOUND: Duration = Duration::from_mins(1);
/// Reaching an agent, the beginning of its answer, and the rest of it take no longer each; the API server gives up on a dead node by
/// itself after about as long.
const ASK_BOUND: Duration = Duration::from_secs(15);
/// Largest answer that is read: 10,000 images have about 7 MB.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// Of each answer so much is read at once. The rest of larger ones waits for its turn, so that all answers that are held at a time
/// are bounded whatever the agents send.
const MAX_SMALL_ANSWER_BYTES: usize = 1024 * 1024;
/// Most answers above [`MAX_SMALL_ANSWER_BYTES`] that are read and held at a time.
const MAX_LARGE_ANSWERS: usize = 4;
/// A large answer waits no longer for its turn; then it counts as none.
const TURN_BOUND: Duration = Duration::from_mins(1);
/// What is asked for.
const PATH: &str = "/api/v1/images";
/// What a port-forward needs.
const FORWARD_RIGHT: &str = "get and create on pods/portforward";
/// The container's name in the manifests.
const CONTAINER: &str = "prepull";

/// The pods with these labels that a DaemonSet made, one for each node.
pub async fn list(client: &Client, namespace: &str, selector: &str) -> Result<Vec<Agent>, Trouble> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut agents = Vec::new();
    let mut known: HashMap<Settings, Arc<Settings>> = HashMap::new();
    let mut next: Option<String> = None;
    loop {
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        params.continue_token = next.take();
        let page = timeout(PAGE_BOUND, patiently(|| pods.list(&params))).await;
        let page = page.map_err(|_| Trouble::NoAnswer(format!("no page of pods within {} s", PAGE_BOUND.as_secs())))?;
        match page {
            Ok(page) => {
                agents.extend(page.items.into_iter().filter_map(|pod| agent(pod, namespace, &mut known)));
                next = page.metadata.continue_.filter(|next| !next.is_empty());
                if next.is_none() {
                    return Ok(one_for_each_node(agents));
                }
            }
            // the snapshot that pages come from is gone: from the beginning, so that no pod counts twice
            Err(kube::Error::Api(status)) if status.code == 410 => agents.clear(),
            Err(error) => return Err(Trouble::of_request(&error)),
        }
    }
}

/// Whether a pod is about to end, or has ended: another one takes its place.
type Leaving = bool;

/// Leaves out what is replaced. A pod that ends and that nothing replaces stays: on a dead node it never goes, and without it nobody
/// would be told of this node.
fn one_for_each_node(agents: Vec<(Agent, Leaving)>) -> Vec<Agent> {
    let (leaving, mut kept): (Vec<_>, Vec<_>) = agents.into_iter().partition(|(_, leaving)| *leaving);
    let mut taken: HashSet<Arc<str>> = kept.iter().map(|(agent, _)| agent.node.clone()).collect();
    kept.extend(leaving.into_iter().filter(|(agent, _)| !agent.node.is_empty() && taken.insert(agent.node.clone())));
    kept.into_iter().map(|(agent, _)| agent).collect()
}

fn agent(pod: Pod, namespace: &str, known: &mut HashMap<Settings, Arc<Settings>>) -> Option<(Agent, Leaving)> {
    let meta = pod.metadata;
    let by_daemon_set = meta.owner_references.iter().flatten().any(|owner| owner.kind == "DaemonSet");
    if !by_daemon_set {
        return None;
    }
    let spec = pod.spec?;
    let status = pod.status.unwrap_or_default();
    let container = spec.containers.iter().find(|c| c.name == CONTAINER).or_else(|| spec.containers.first())?;
    let mut settings = settings(container, namespace);
    // with neither a probe nor a gate a pod is ready as soon as it runs
    let gated = spec.readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    settings.ready_when_running |= container.readiness_probe.is_none() && !gated;
    let settings = known.entry(settings).or_insert_with_key(|s| Arc::new(s.clone())).clone();
    let conditions = status.conditions.unwrap_or_default();
    let waiting = status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.waiting.as_ref());
    let why = || {
        let unscheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
        let message = unscheduled.and_then(|c| c.message.as_deref());
        let reason = waiting.and_then(|w| w.reason.as_deref()).or(status.reason.as_deref());
        message.or(reason).unwrap_or("it has not started").to_owned()
    };
    let phase = status.phase.as_deref().unwrap_or("Unknown");
    let runs = phase == "Running" && waiting.is_none();
    let deleted = meta.deletion_timestamp.is_some();
    let not_running = if deleted {
        Some("its agent's pod is ending, and there is no other yet".to_owned())
    } else {
        (!runs).then(|| one_line(&format!("its agent's pod does not run ({phase}): {}", why())))
    };
    let agent = Agent {
        pod: meta.name.unwrap_or_default().into(),
        uid: meta.uid.unwrap_or_default().into(),
        node: spec.node_name.unwrap_or_default().into(),
        ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        not_running,
        settings,
    };
    Some((agent, deleted || matches!(phase, "Failed" | "Succeeded")))
}

fn settings(container: &Container, namespace: &str) -> Settings {
    let mut variables = BTreeMap::new();
    for variable in container.env.iter().flatten() {
        let field = || variable.value_from.as_ref()?.field_ref.as_ref().map(|f| f.field_path.as_str());
        let value = match (&variable.value, field()) {
            (Some(value), _) => value.clone(),
            (None, Some("metadata.namespace")) => namespace.to_owned(),
            (None, _) => continue,
        };
        variables.insert(variable.name.clone(), value);
    }
    Settings::of(container.args.as_deref().unwrap_or_default(), &variables)
}

/// Asks agents, and remembers which way to them works.
pub struct Asker {
    client: Client,
    namespace: String,
    /// The proxy reached somebody: it stays the first way, whatever becomes of others.
    proxy_works: AtomicBool,
    /// The proxy reached nobody where a port-forward did: it is not tried first any more.
    forward_first: AtomicBool,
    /// Turns of large answers.
    large: Semaphore,
}

/// Why one way did not lead to an answer.
enum NoWay {
    /// The API server does not let us.
    Forbidden(String),
    /// It does, and did not get there.
    Unreachable(String),
    /// Somebody answered, and it was no answer.
    Wrong(String),
}

impl NoWay {
    fn told(self) -> String {
        match self {
            Self::Forbidden(text) | Self::Unreachable(text) | Self::Wrong(text) => text,
        }
    }
}

impl Asker {
    /// Asks agents of this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            proxy_works: AtomicBool::new(false),
            forward_first: AtomicBool::new(false),
            large: Semaphore::new(MAX_LARGE_ANSWERS),
        }
    }

    /// What an agent answers; else in one line why it does not.
    pub async fn ask(&self, agent: &Agent) -> Result<Answer, String> {
        if let Some(why) = &agent.not_running {
            return Err(why.clone());
        }
        let forward_first = self.forward_first.load(Ordering::Relaxed);
        let first = if forward_first { self.forwarded(agent).await } else { self.proxied(agent).await };
        let (proxy, may_proxy) = match first {
            Ok(answer) => {
                if !forward_first {
                    self.proxy_works.store(true, Ordering::Relaxed);
                }
                return Ok(answer);
            }
            // that it worked for another one is no reason to give this one up
            Err(NoWay::Unreachable(_) | NoWay::Forbidden(_)) if forward_first => {
                return self.proxied(agent).await.map_err(NoWay::told);
            }
            Err(NoWay::Unreachable(why)) => (why, true),
            Err(NoWay::Forbidden(why)) => (why, false),
            Err(NoWay::Wrong(why)) => return Err(why),
        };
        match self.forwarded(agent).await {
            Ok(answer) => {
                if !self.proxy_works.load(Ordering::Relaxed) {
                    self.forward_first.store(true, Ordering::Relaxed);
                }
                Ok(answer)
            }
            Err(NoWay::Wrong(why)) => Err(why),
            // the proxy is the way that the role grants
            Err(NoWay::Forbidden(_)) if !may_proxy => Err(proxy),
            Err(NoWay::Forbidden(_)) => {
                Err(format!("{proxy}; a port-forward would need {FORWARD_RIGHT}, which is not granted"))
            }
            Err(NoWay::Unreachable(why)) => Err(format!("{proxy}; nor by a port-forward: {why}")),
        }
    }

    /// Through the API server's proxy.
    async fn proxied(&self, agent: &Agent) -> Result<Answer, NoWay> {
        let uri =
            format!("/api/v1/namespaces/{}/pods/{}:{}/proxy{PATH}", self.namespace, agent.pod, agent.settings.port);
        let request = http::Request::get(uri)
            .header(http::header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|e| NoWay::Wrong(e.to_string()))?;
        let head = async {
            let answer = self.client.send(request).await;
            answer.map_err(|e| NoWay::Unreachable(Trouble::of_request(&e).to_string()))
        };
        let late = || {
            NoWay::Unreachable(format!(
                "the API server cannot reach it: no answer within {} s; its node may be down",
                ASK_BOUND.as_secs()
            ))
        };
        let (code, whole) = self.read(head, late).await?;
        if code.is_success() {
            Answer::parse(&whole.bytes).map_err(NoWay::Wrong)
        } else {
            Err(refusal(code, &whole.bytes))
        }
    }

    /// Through the kubelet.
    async fn forwarded(&self, agent: &Agent) -> Result<Answer, NoWay> {
        let port = agent.settings.port;
        let unreachable = |why: &dyn std::fmt::Display| NoWay::Unreachable(one_line(&why.to_string()));
        let late = || unreachable(&format!("no answer within {} s", ASK_BOUND.as_secs()));
        let connect = async {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
            let mut forward = pods.portforward(&agent.pod, &[port]).await.map_err(|error| match &error {
                kube::Error::Api(status) if status.code == 403 => NoWay::Forbidden(one_line(&status.message)),
                kube::Error::UpgradeConnection(kube::client::UpgradeConnectionError::ProtocolSwitch(code))
                    if code.as_u16() == 403 =>
                {
                    NoWay::Forbidden(format!("{FORWARD_RIGHT} is not granted"))
                }
                other => unreachable(other),
            })?;
            let stream = forward.take_stream(port).ok_or_else(|| unreachable(&"no stream came"))?;
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))
        };
        let (mut sender, connection) = timeout(ASK_BOUND, connect).await.unwrap_or_else(|_| Err(late()))?;
        let asked = async {
            let request = http::Request::get(PATH)
                .header(http::header::HOST, "localhost")
                .header(http::header::ACCEPT, "application/json")
                .body(Empty::<bytes::Bytes>::new())
                .map_err(|e| NoWay::Wrong(e.to_string()))?;
            let head = async { sender.send_request(request).await.map_err(|e| unreachable(&e)) };
            let (code, whole) = self.read(head, late).await?;
            // nobody else has a say on this way
            if code.is_success() { Answer::parse(&whole.bytes) } else { Err(its_own(code, &whole.bytes)) }
                .map_err(NoWay::Wrong)
        };
        tokio::select! {
            answer = asked => answer,
            // the connection ends before the answer was whole
            ended = connection => Err(unreachable(&ended.err().map_or_else(
                || "the connection ended".to_owned(), |e| e.to_string()))),
        }
    }

    /// Reads an answer whose head is waited for; `late` is the error of one that does not come in time.
    async fn read<B>(
        &self,
        head: impl Future<Output = Result<http::Response<B>, NoWay>>,
        late: impl Fn() -> NoWay,
    ) -> Result<(StatusCode, Whole<'_>), NoWay>
    where
        B: hyper::body::Body<Data = bytes::Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let begin = async {
            let (head, mut body) = head.await?.into_parts();
            let mut bytes = Vec::new();
            let is_whole = read_up_to(&mut body, &mut bytes, MAX_SMALL_ANSWER_BYTES).await?;
            Ok((head.status, body, bytes, is_whole))
        };
        let (code, mut body, mut bytes, is_whole) = timeout(ASK_BOUND, begin).await.unwrap_or_else(|_| Err(late()))?;
        if is_whole {
            return Ok((code, Whole { bytes, _turn: None }));
        }
        let turn = timeout(TURN_BOUND, self.large.acquire()).await.ok().and_then(Result::ok);
        let turn = turn.ok_or_else(|| {
            NoWay::Wrong("its answer is large, and other large ones came first for too long; try again".to_owned())
        })?;
        let rest = read_up_to(&mut body, &mut bytes, MOST_BYTES);
        if timeout(ASK_BOUND, rest).await.unwrap_or_else(|_| Err(late()))? {
            return Ok((code, Whole { bytes, _turn: Some(turn) }));
        }
        Err(NoWay::Wrong(format!("its answer is longer than {} MiB, and was not read", MOST_BYTES / 1024 / 1024)))
    }
}

/// A whole answer. A large one keeps its turn until it was used.
struct Whole<'a> {
    bytes: Vec<u8>,
    _turn: Option<SemaphorePermit<'a>>,
}

/// Reads on until the body ends, which is true, or there are more than `most` bytes.
async fn read_up_to<B>(body: &mut B, bytes: &mut Vec<u8>, most: usize) -> Result<bool, NoWay>
where
    B: hyper::body::Body<Data = bytes::Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    while bytes.len() <= most {
        match body.frame().await {
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Some(Err(e)) => return Err(NoWay::Unreachable(one_line(&format!("its answer broke off: {e}")))),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// What an error that came through the proxy means: the API server's own has the shape of a `Status`; any other one comes from
/// the pod.
fn refusal(code: StatusCode, body: &[u8]) -> NoWay {
    #[derive(serde::Deserialize)]
    struct Status {
        kind: String,
        #[serde(default)]
        message: String,
    }
    let status = serde_json::from_slice::<Status>(body).ok().filter(|status| status.kind == "Status");
    let Some(message) = status.map(|status| one_line(status.message.trim())) else {
        // what stands before the API server has no words of its own for a pod
        return match code.as_u16() {
            502 | 504 => {
                NoWay::Unreachable(format!("what stands before the API server cannot reach it ({})", code.as_u16()))
            }
            _ => NoWay::Wrong(its_own(code, body)),
        };
    };
    match code.as_u16() {
        401 | 403 => NoWay::Forbidden(format!(
            "the API server refuses to ask it: {message}; grant get on pods/proxy (the role prepull-viewer)"
        )),
        404 => NoWay::Wrong(format!("the API server does not find it: {message}")),
        _ => NoWay::Unreachable(format!("the API server cannot reach it: {message}")),
    }
}

/// An error that a pod itself answers.
fn its_own(code: StatusCode, body: &[u8]) -> String {
    let text = one_line(String::from_utf8_lossy(&body[..body.len().min(300)]).trim());
    match code {
        // as an agent does which is asked too often at once
        StatusCode::SERVICE_UNAVAILABLE => format!("it answers {}: {text}", code.as_u16()),
        _ => format!("what answers is no agent of prepull ({}): {text}", code.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, more: &Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": name, "uid": name, "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "prepull", "uid": "d"}]},
            "spec": {"nodeName": "n", "containers": [{"name": "prepull", "readinessProbe": {}}]},
            "status": {"phase": "Running"},
        });
        for (pointer, value) in more.as_object().unwrap() {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            pod.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    fn listed(pods: Vec<Pod>) -> Vec<Agent> {
        let mut known = HashMap::new();
        one_for_each_node(pods.into_iter().filter_map(|pod| agent(pod, "ns", &mut known)).collect())
    }

    #[test]
    fn a_pod_that_ends_counts_only_where_nothing_replaces_it() {
        let ending = || pod("old", &json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let evicted = || pod("evicted", &json!({"/status/phase": "Failed", "/status/reason": "Evicted"}));
        for pods in [vec![ending(), evicted(), pod("new", &json!({}))], vec![pod("new", &json!({})), ending()]] {
            let agents = listed(pods);
            assert_eq!(agents.iter().map(|a| &*a.pod).collect::<Vec<_>>(), ["new"]);
            assert_eq!(agents[0].not_running, None);
        }
        let [dead] = listed(vec![ending()]).try_into().unwrap();
        assert!(dead.not_running.unwrap().contains("is ending"), "the pod of a dead node never goes");
        let [dead] = listed(vec![evicted(), ending()]).try_into().unwrap();
        assert!(dead.not_running.unwrap().contains("Evicted"));
    }

    #[test]
    fn an_error_is_told_as_whose_it_is() {
        let of_server = |code: u16, message: &str| {
            let body = json!({"kind": "Status", "apiVersion": "v1", "message": message, "code": code}).to_string();
            refusal(StatusCode::from_u16(code).unwrap(), body.as_bytes())
        };
        assert!(matches!(of_server(403, "no"), NoWay::Forbidden(why) if why.contains("pods/proxy")));
        assert!(matches!(of_server(503, "no route"), NoWay::Unreachable(why) if why.ends_with("reach it: no route")));
        assert!(matches!(of_server(404, "pods \"a\" not found"), NoWay::Wrong(why) if why.contains("not found")));
        let of_pod = |code: u16, body: &str| match refusal(StatusCode::from_u16(code).unwrap(), body.as_bytes()) {
            NoWay::Wrong(why) => why,
            NoWay::Forbidden(why) | NoWay::Unreachable(why) => panic!("told as the API server's: {why}"),
        };
        assert_eq!(
            of_pod(503, "others ask at the same time; try again\n"),
            "it answers 503: others ask at the same time; try again"
        );
        assert_eq!(
            of_pod(404, "{\"kind\": \"Page\"}"),
            "what answers is no agent of prepull (404): {\"kind\": \"Page\"}"
        );
        assert!(of_pod(403, "<html>\u{1b}").contains("(403): <html>"));
    }

    #[test]
    fn ready_says_something_only_by_a_probe_or_a_gate() {
        let running = |more: &Value| listed(vec![pod("a", more)])[0].settings.ready_when_running;
        let none = json!({"/spec/containers": [{"name": "prepull"}]});
        assert!(running(&none));
        let gate = json!({"/spec/containers": [{"name": "prepull"}], "/spec/readinessGates": [{"conditionType": "prepull.dev/Warm"}]});
        assert!(!running(&gate) && !running(&json!({})));
    }
}
