//! Events on this agent's own Pod, and on its Node where it writes there. Best effort: what cannot be told is dropped.

use std::time::{Duration, SystemTime};

use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::{
    access::{self, Right},
    gate::OwnPod,
    watch::Trouble,
};
use crate::process_clock::Clock;
use prepull_core::{
    clock::Moment,
    error_text::one_line,
    node_view::NodeView,
    notices::{Ledger, Notice, Telling},
};

const CONTROLLER: &str = "prepull.dev/agent";
/// The API server takes no note of 1024 bytes or more, and no longer name of who reports or of an Event. All in bytes.
const LONGEST_NOTE: usize = 1000;
const LONGEST_INSTANCE: usize = 128;
const LONGEST_NAME: usize = 253;
/// An absent right may have been granted meanwhile: asked again so long after, when there is something to tell.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Events about a Node belong here, whoever writes them.
const NODE_NAMESPACE: &str = "default";

/// What Events are about.
pub struct Subjects {
    /// The Pod, where this agent knows that it is one.
    pub pod: Option<OwnPod>,
    /// The Node, where this agent writes there.
    pub node: Option<(String, watch::Receiver<NodeView>)>,
}

/// Tells notices, until no more come.
pub async fn run(
    client: Client,
    subjects: Subjects,
    instance: String,
    clock: Clock,
    mut notices: mpsc::Receiver<Notice>,
) {
    let place = |namespace: &str, grants| Place::new(&client, namespace, &instance, grants, clock);
    let mut pod = subjects.pod.as_ref().map(|pod| place(&pod.namespace, "the manifests' base"));
    let mut node = subjects.node.as_ref().map(|_| place(NODE_NAMESPACE, "component node-writes"));
    if pod.is_none() {
        tracing::info!("no Events on the own Pod: POD_NAME, POD_NAMESPACE and POD_UID do not tell which it is");
    }
    for place in [&mut pod, &mut node].into_iter().flatten() {
        place.may_tell().await;
    }
    while let Some(notice) = notices.recv().await {
        if let (Some(place), Some(own)) = (&mut pod, &subjects.pod) {
            place.tell(&notice, own.reference()).await;
        }
        if let (Some(place), Some((name, view))) = (&mut node, &subjects.node) {
            let uid = view.borrow().uid.clone();
            place.tell(&notice, node_reference(name, uid)).await;
        }
    }
}

impl OwnPod {
    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }
}

fn node_reference(name: &str, uid: String) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        // the kubelet's own Events carry the name where the id is not known
        uid: Some(if uid.is_empty() { name.to_owned() } else { uid }),
        ..ObjectReference::default()
    }
}

/// A namespace that Events are written to.
struct Place {
    events: Api<Event>,
    client: Client,
    namespace: String,
    instance: String,
    /// What grants the rights.
    grants: &'static str,
    clock: Clock,
    ledger: Ledger,
    /// When a right was last found absent.
    refused: Option<Moment>,
    failed: bool,
}

impl Place {
    fn new(client: &Client, namespace: &str, instance: &str, grants: &'static str, clock: Clock) -> Self {
        Self {
            events: Api::namespaced(client.clone(), namespace),
            client: client.clone(),
            namespace: namespace.to_owned(),
            instance: cut(instance, LONGEST_INSTANCE).to_owned(),
            grants,
            clock,
            ledger: Ledger::new(clock.now()),
            refused: None,
            failed: false,
        }
    }

    /// Whether the rights are there; says once where not. A server whose rights are not in force everywhere yet may say
    /// so of one that was granted: it is asked again, but only where something is to be told.
    async fn may_tell(&mut self) -> bool {
        let now = self.clock.now();
        if self.refused.is_some_and(|at| now.since(at) < ASK_AGAIN) {
            return false;
        }
        let right = |verb| Right {
            verb,
            group: "events.k8s.io",
            resource: "events",
            namespace: Some(self.namespace.clone()),
            ..Right::default()
        };
        // where this cannot be asked, the first Event shows it
        let Ok(Some(right)) = access::absent(&self.client, &[right("create"), right("patch")]).await else {
            self.refused = None;
            return true;
        };
        if self.refused.replace(now).is_none() {
            let (namespace, grants) = (&self.namespace, self.grants);
            tracing::warn!(
                right = right.clause(),
                "no Events in namespace {namespace}: the right is absent; {grants} grants it"
            );
        }
        false
    }

    async fn tell(&mut self, notice: &Notice, regarding: ObjectReference) {
        if self.refused.is_some() && !self.may_tell().await {
            return;
        }
        let now = self.clock.now();
        let told = match self.ledger.weigh(notice, now) {
            Telling::Drop => return,
            Telling::New => self.create(notice, regarding).await.map(|name| (name, 1)),
            Telling::Again { name, count } => match self.again(&name, count).await {
                // somebody deleted it
                Err(kube::Error::Api(status)) if status.code == 404 => {
                    self.create(notice, regarding).await.map(|name| (name, 1))
                }
                again => again.map(|()| (name, count)),
            },
        };
        match told {
            Ok((name, count)) => {
                self.failed = false;
                self.ledger.told(notice, name, count, now);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    let problem = Trouble::of_request(&error).to_string();
                    tracing::warn!(namespace = self.namespace, problem, "an Event could not be written");
                }
            }
        }
    }

    async fn create(&self, notice: &Notice, regarding: ObjectReference) -> Result<String, kube::Error> {
        let now = Timestamp::now();
        let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let stamp = format!(".{stamp:x}");
        let about = regarding.name.as_deref().unwrap_or_default();
        // a cut must not leave a dot at the end, before another one
        let about = cut(about, LONGEST_NAME - stamp.len()).trim_end_matches(['.', '-']);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}{stamp}")),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            action: Some("Prepull".to_owned()),
            reason: Some(notice.reason.to_owned()),
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
            note: Some(cut(&one_line(&notice.note), LONGEST_NOTE).to_owned()),
            regarding: Some(regarding),
            ..Event::default()
        };
        let made = self.events.create(&PostParams::default(), &event).await?;
        Ok(made.metadata.name.unwrap_or_default())
    }

    async fn again(&self, name: &str, count: i32) -> Result<(), kube::Error> {
        let series = EventSeries { count, last_observed_time: MicroTime(Timestamp::now()) };
        let patch = Patch::Merge(json!({"series": series}));
        self.events.patch(name, &PatchParams::default(), &patch).await.map(drop)
    }
}

/// At most so many bytes of a text, and no half of a character.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}
