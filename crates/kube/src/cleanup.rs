//! Removes from the Node what this agent ever wrote there, before it is uninstalled.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use tokio::{sync::watch, time::sleep};

use super::{
    node,
    watch::{Told, Trouble, Watch},
    writes::Writer,
};
use crate::process_clock::Clock;
use prepull_core::{node_view::NodeView, node_writes::LABEL, retries::Retries};

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// Removes condition, label and taint, tells by `left` why something is left, and ends when it is.
pub async fn run(client: Client, name: String, taint_key: String, clock: Clock, left: watch::Sender<Option<String>>) {
    let mut writer = Writer::new(client.clone(), name.clone(), taint_key.clone(), clock);
    let mut watch = Watch::one(Api::<Node>::all(client), &name);
    let mut view = NodeView::default();
    loop {
        let told = watch.next().await;
        if let Told::Lost(Trouble::Forbidden(why)) = &told {
            waits(&left, &format!("{why}; grant list and watch on nodes (component node-writes)"));
            continue;
        }
        view = node::look(&view, told, &name);
        if let Some(problem) = &view.problem {
            waits(&left, problem);
            continue;
        }
        if is_clean(&view, &taint_key) {
            tracing::info!(node = name, "the node carries nothing of prepull");
            left.send_replace(None);
            return;
        }
        let mut retries = Retries::new(FIRST_RETRY, LONGEST_RETRY);
        while !writer.guarded(&view).await {
            let why = "nothing may be written to the node, as the log says; keep component node-writes installed";
            waits(&left, why);
            sleep(retries.delay()).await;
        }
        if let Err(error) = remove(&writer, &view, &taint_key).await {
            let problem = Trouble::of_request(&error).to_string();
            waits(&left, &format!("the node could not be cleaned: {problem}"));
            sleep(retries.delay()).await;
            // looks at the node anew: what is there decides what is left to do
            watch.again();
        }
    }
}

/// Notes why the Node is not clean yet, and tells each new reason once.
fn waits(left: &watch::Sender<Option<String>>, why: &str) {
    let new = left.send_if_modified(|told| {
        let new = told.as_deref() != Some(why);
        *told = Some(why.to_owned());
        new
    });
    if new {
        tracing::warn!(why, "the node is not clean yet; trying again");
    }
}

async fn remove(writer: &Writer, view: &NodeView, taint_key: &str) -> Result<(), kube::Error> {
    if view.taints.iter().any(|t| t.key == taint_key) {
        writer.remove_taint(view).await?;
    }
    let state = view.condition.is_some() || has_label(view);
    if state { writer.remove_state(view).await } else { Ok(()) }
}

fn is_clean(view: &NodeView, taint_key: &str) -> bool {
    view.condition.is_none() && !has_label(view) && view.taints.iter().all(|t| t.key != taint_key)
}

fn has_label(view: &NodeView) -> bool {
    view.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL))
}
