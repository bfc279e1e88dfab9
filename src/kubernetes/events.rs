//! Events on this agent's own Pod, and on its Node where it writes there. Best effort: what cannot be told is dropped.

use std::time::SystemTime;

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
use crate::{
    clock::Clock,
    error_text::one_line,
    node_view::NodeView,
    notices::{Ledger, Notice, Telling},
};

const CONTROLLER: &str = "prepull.dev/agent";
/// The API server takes no longer note.
const LONGEST_NOTE: usize = 1000;
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
    let mut pod = if let Some(pod) = &subjects.pod {
        Place::of(&client, &pod.namespace, &instance, "the manifests' base", clock).await
    } else {
        tracing::info!("no Events on the own Pod: POD_NAME, POD_NAMESPACE and POD_UID do not tell which it is");
        None
    };
    let mut node = match &subjects.node {
        Some(_) => Place::of(&client, NODE_NAMESPACE, &instance, "component node-writes", clock).await,
        None => None,
    };
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
    namespace: String,
    instance: String,
    clock: Clock,
    ledger: Ledger,
    failed: bool,
}

impl Place {
    /// None where the right is absent, which is said here.
    async fn of(client: &Client, namespace: &str, instance: &str, grants: &str, clock: Clock) -> Option<Self> {
        let right = |verb| Right {
            verb,
            group: "events.k8s.io",
            resource: "events",
            namespace: Some(namespace.to_owned()),
            ..Right::default()
        };
        // where this cannot be asked, the first Event shows it
        if let Ok(Some(right)) = access::absent(client, &[right("create"), right("patch")]).await {
            tracing::warn!(
                right = right.clause(),
                "no Events in namespace {namespace}: the right is absent; {grants} grants it"
            );
            return None;
        }
        Some(Self {
            events: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            instance: instance.to_owned(),
            clock,
            ledger: Ledger::new(clock.now()),
            failed: false,
        })
    }

    async fn tell(&mut self, notice: &Notice, regarding: ObjectReference) {
        let now = self.clock.now();
        let told = match self.ledger.weigh(notice, now) {
            Telling::Drop => return,
            Telling::New => self.create(notice, regarding).await.map(|name| (name, 1)),
            Telling::Again { name, count } => self.again(&name, count).await.map(|()| (name, count)),
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
        let note: String = one_line(&notice.note).chars().take(LONGEST_NOTE).collect();
        let about = regarding.name.clone().unwrap_or_default();
        let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{stamp:x}")),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            action: Some("Prepull".to_owned()),
            reason: Some(notice.reason.to_owned()),
            type_: Some(if notice.warning { "Warning" } else { "Normal" }.to_owned()),
            note: Some(note),
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
