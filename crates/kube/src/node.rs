//! This node, by watch, and only while somebody needs to know about it.

use std::time::Duration;

use futures::FutureExt as _;
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};

use super::{
    messages::{Needs, News},
    watch::{Told, Trouble, Watch},
};
use prepull_core::node_view::{ConditionView, NodeView, TaintView};

/// The condition that this agent writes, where it may.
pub const CONDITION: &str = "ImagesPrepulled";

/// Follows this node, and tells the keeper and, by `seen`, who else looks. Ends when nobody listens.
pub async fn follow(
    client: Client,
    name: String,
    always: bool,
    mut needs: watch::Receiver<Needs>,
    news: mpsc::Sender<News>,
    seen: watch::Sender<NodeView>,
) {
    loop {
        if !always && needs.wait_for(|needs| needs.node).await.is_err() {
            return;
        }
        let mut watch = Watch::one(Api::<Node>::all(client.clone()), &name);
        loop {
            let told = tokio::select! {
                told = watch.next() => told,
                ended = needs.wait_for(|needs| !needs.node).map(|ended| ended.map(drop)), if !always => match ended {
                    Ok(()) => break,
                    Err(_) => return,
                },
            };
            let view = look(&seen.borrow(), told, &name);
            if !tell(view, &seen, &news).await {
                return;
            }
        }
        // what was seen is old when somebody needs it again, and nobody would hear of the end of a pressure
        if !tell(NodeView::default(), &seen, &news).await {
            return;
        }
    }
}

/// Tells what is new; false where nobody listens. A kubelet's heartbeat is no news.
async fn tell(view: NodeView, seen: &watch::Sender<NodeView>, news: &mpsc::Sender<News>) -> bool {
    let differs = seen.send_if_modified(|old| {
        let differs = *old != view;
        old.clone_from(&view);
        differs
    });
    !differs || news.send(News::Node(view)).await.is_ok()
}

/// What is known now: what was known before stays so while nothing newer is told.
pub(super) fn look(before: &NodeView, told: Told<Node>, name: &str) -> NodeView {
    // what nobody tells any more holds nothing up, but a connection that is lost for a while changes nothing
    let mut disk_pressure = false;
    let problem = match told {
        Told::All(nodes) => match nodes.into_iter().next() {
            Some(node) => return view_of(node),
            None => format!("the API server has no node {name}; set --node-name or NODE_NAME to the node's name"),
        },
        Told::Applied(node) => return view_of(node),
        Told::Deleted(_) => format!("the node {name} was deleted from the API server"),
        Told::Lost(Trouble::Forbidden(why)) => {
            let remedy = format!("{why}; grant list and watch on nodes (component node-selection)");
            tracing::warn!(node = name, problem = remedy, "this node cannot be watched");
            remedy
        }
        Told::Lost(trouble) => {
            disk_pressure = before.disk_pressure;
            trouble.to_string()
        }
    };
    NodeView { problem: Some(problem), disk_pressure, ..before.clone() }
}

/// None for a time before the Unix epoch, which no cluster has.
fn since_epoch(time: &Time) -> Option<Duration> {
    u64::try_from(time.0.as_second()).ok().map(Duration::from_secs)
}

fn view_of(node: Node) -> NodeView {
    let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    let disk_pressure = conditions.iter().any(|c| c.type_ == "DiskPressure" && c.status == "True");
    let condition = conditions.into_iter().find(|c| c.type_ == CONDITION);
    NodeView {
        labels: Some(node.metadata.labels.unwrap_or_default()),
        uid: node.metadata.uid.unwrap_or_default(),
        created: node.metadata.creation_timestamp.and_then(|at| since_epoch(&at)),
        taints: taints
            .into_iter()
            .map(|t| TaintView { key: t.key, effect: t.effect, added: t.time_added.and_then(|at| since_epoch(&at)) })
            .collect(),
        condition: condition.map(|c| ConditionView {
            status: c.status,
            reason: c.reason.unwrap_or_default(),
            message: c.message.unwrap_or_default(),
        }),
        disk_pressure,
        problem: None,
    }
}
