//! Writes to this agent's own Node: carries out what [`prepull_core::node_writes`] decides, behind a guard.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    guard::{self, Guard},
    node::CONDITION,
    server_clock,
    watch::Trouble,
};
use crate::process_clock::Clock;
use prepull_core::{
    clock::rfc3339,
    node_report::{NodeReport, Readiness},
    node_view::NodeView,
    node_writes::{LABEL, NodeWrites, StateWrite},
};

/// A guard that stood so recently stands still.
const GUARD_COUNTS: Duration = Duration::from_mins(1);

/// What to write, and where.
pub struct Writer {
    client: Client,
    node: String,
    taint_key: String,
    clock: Clock,
    stood: Option<Instant>,
    /// What was said about writes that do not happen; the same is not said again.
    said: Option<String>,
}

impl Writer {
    /// For this node.
    pub fn new(client: Client, node: String, taint_key: String, clock: Clock) -> Self {
        Self { client, node, taint_key, clock, stood: None, said: None }
    }

    /// Writes what is due, until nobody reports any more.
    pub async fn run(
        mut self,
        mut writes: NodeWrites,
        mut reports: watch::Receiver<NodeReport>,
        mut nodes: watch::Receiver<NodeView>,
    ) {
        loop {
            let (report, node) = (reports.borrow_and_update().clone(), nodes.borrow_and_update().clone());
            let now = self.clock.now();
            let due = writes.plan(&report, &node, now, fastrand::f64());
            if due.server_time {
                match server_clock::now(&self.client).await {
                    Ok(time) => writes.server_time(time, self.clock.now()),
                    Err(trouble) => {
                        writes.failed(self.clock.now(), fastrand::f64());
                        self.say(format!("the API server's time is not known: {trouble}"));
                    }
                }
                continue;
            }
            if due.state.is_some() || due.taint {
                self.carry_out(&mut writes, due.state, due.taint, &report, &node).await;
                // what came meanwhile is looked at at once, and a failure has its own delay
                continue;
            }
            let wake = due.wake.map(|moment| self.clock.instant(moment));
            tokio::select! {
                changed = reports.changed() => if changed.is_err() { return },
                changed = nodes.changed() => if changed.is_err() { return },
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    async fn carry_out(
        &mut self,
        writes: &mut NodeWrites,
        state: Option<StateWrite>,
        taint: bool,
        report: &NodeReport,
        node: &NodeView,
    ) {
        if !self.guarded(node).await {
            writes.failed(self.clock.now(), fastrand::f64());
            return;
        }
        if taint {
            match self.remove_taint(node).await {
                Ok(()) => {
                    let message = if report.readiness == Readiness::Warm {
                        "start-up taint removed"
                    } else {
                        "start-up taint removed at its deadline, and the node is not warm"
                    };
                    tracing::info!(taint = self.taint_key, reason = report.reason, "{message}");
                    writes.removed(self.clock.now());
                }
                Err(error) => self.refused(writes, &error),
            }
        }
        let Some(write) = state else { return };
        match self.write_state(&write).await {
            Ok(()) => {
                tracing::info!(
                    condition = write.condition.as_ref().map(|c| c.status.as_str()),
                    reason = write.condition.as_ref().map(|c| c.reason.as_str()),
                    label = write.label,
                    "node updated"
                );
                self.said = None;
                writes.wrote(write, report, self.clock.now());
            }
            Err(error) => self.refused(writes, &error),
        }
    }

    /// Whether writes to the Node, which looks like this, are guarded; says once why not.
    pub async fn guarded(&mut self, node: &NodeView) -> bool {
        if self.stood.is_some_and(|at| at.elapsed() < GUARD_COUNTS) {
            return true;
        }
        let why = match guard::of_node(&self.client, &self.node, node, &self.taint_key).await {
            Guard::Stands => {
                self.stood = Some(Instant::now());
                return true;
            }
            Guard::Missing => {
                "no admission policy keeps this service account to its own Node and its own fields there; install the policy of component node-writes for this account and namespace".to_owned()
            }
            Guard::NoRight(right) => format!("the right is absent: {right}; component node-writes grants it"),
            Guard::Unclear(why) => why,
        };
        self.say(why);
        false
    }

    fn refused(&mut self, writes: &mut NodeWrites, error: &kube::Error) {
        writes.failed(self.clock.now(), fastrand::f64());
        // a guard that changed is probed anew
        self.stood = None;
        self.say(Trouble::of_request(error).to_string());
    }

    fn say(&mut self, why: String) {
        if self.said.as_ref() != Some(&why) {
            tracing::warn!(node = self.node, problem = why, "nothing is written to the node");
            self.said = Some(why);
        }
    }

    async fn write_state(&self, write: &StateWrite) -> Result<(), kube::Error> {
        let mut patch = json!({});
        if let Some(condition) = &write.condition {
            let now = rfc3339(self.clock.now(), self.clock.now(), SystemTime::now());
            let mut entry = json!({
                "type": CONDITION, "status": condition.status, "reason": condition.reason,
                "message": condition.message, "lastHeartbeatTime": now,
            });
            if write.transition {
                entry["lastTransitionTime"] = now.into();
            }
            patch["status"] = json!({"conditions": [entry]});
        }
        if let Some(label) = write.label {
            patch["metadata"] = json!({"labels": {LABEL: label}});
        }
        self.patch_status(patch).await
    }

    /// A strategic merge: it leaves the conditions of others alone.
    async fn patch_status(&self, patch: Value) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch_status(&self.node, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }

    /// Removes the taint where it was seen, only if it is still there: other taints come and go.
    pub async fn remove_taint(&self, node: &NodeView) -> Result<(), kube::Error> {
        let mut steps = Vec::new();
        // from the end, so that the places before stay what they are
        for (index, taint) in node.taints.iter().enumerate().rev().filter(|(_, t)| t.key == self.taint_key) {
            let path = format!("/spec/taints/{index}");
            steps.push(json!({"op": "test", "path": format!("{path}/key"), "value": taint.key}));
            steps.push(json!({"op": "test", "path": format!("{path}/effect"), "value": taint.effect}));
            steps.push(json!({"op": "remove", "path": path}));
        }
        let patch = serde_json::from_value(Value::Array(steps)).map_err(kube::Error::SerdeError)?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch(&self.node, &PatchParams::default(), &Patch::<()>::Json(patch)).await.map(drop)
    }

    /// Removes condition and label.
    pub async fn remove_state(&self, node: &NodeView) -> Result<(), kube::Error> {
        let mut patch = json!({});
        if node.condition.is_some() {
            patch["status"] = json!({"conditions": [{"type": CONDITION, "$patch": "delete"}]});
        }
        if node.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL)) {
            patch["metadata"] = json!({"labels": {LABEL: null}});
        }
        self.patch_status(patch).await
    }
}
