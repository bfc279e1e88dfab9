//! The readiness gate `prepull.dev/Warm` on this agent's own Pod.
//!
//! Whether the Pod has such a gate is not asked: that would need a right to read Pods. The right to write the condition
//! comes with the component readiness-gate alone, so who has it, uses it; a condition without a gate changes nothing. The
//! component also says by a flag that there is a gate: then a right that is not there yet is waited for, because the pod
//! would never be ready without it.

use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    guard::{self, Guard},
    watch::Trouble,
};
use crate::process_clock::Clock;
use prepull_core::{
    clock::rfc3339,
    node_report::{NodeReport, Readiness, ReadyWhen},
    node_writes::GRACE,
    retries::Retries,
};

/// The condition that the gate waits for.
pub const CONDITION: &str = "prepull.dev/Warm";

const NO_POLICY: &str = "no admission policy keeps this service account to its own Pod; install the policy of component readiness-gate for this account and namespace";

/// Why the gate is open where it does not ask for warmth.
const RUNNING: &str = "AgentRuns";

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_mins(1);

/// The Pod that this agent is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its unique id.
    pub uid: String,
}

/// What the condition says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    status: &'static str,
    reason: &'static str,
}

/// The gate of a Pod.
#[derive(Debug)]
pub struct Gate {
    /// Whose.
    pub pod: OwnPod,
    /// Whether the Pod is known to have one: then an absent right is a problem, and waited for.
    pub expected: bool,
    /// When it opens.
    pub ready_when: ReadyWhen,
}

impl Gate {
    /// Sets the condition whenever it changes, until nobody reports any more.
    pub async fn run(self, client: Client, clock: Clock, mut reports: watch::Receiver<NodeReport>) {
        let mut problem = None;
        if !self.may_set(&client, &mut problem).await {
            return;
        }
        // a container that is started again on a warm node must not make its pod unready
        let opens = reports.wait_for(|report| self.said(report).status == "True");
        if let Ok(Err(_)) = timeout(GRACE, opens).await {
            return;
        }
        let pods: Api<Pod> = Api::namespaced(client, &self.pod.namespace);
        let mut retries = retries();
        let mut last: Option<Said> = None;
        loop {
            let report = reports.borrow_and_update().clone();
            let said = self.said(&report);
            if last.as_ref() != Some(&said) {
                let transition = last.as_ref().is_none_or(|before| before.status != said.status);
                match self.set(&pods, clock, &said, &report, transition).await {
                    Ok(()) => {
                        tracing::info!(
                            condition = CONDITION,
                            status = said.status,
                            reason = said.reason,
                            "pod updated"
                        );
                        (last, problem, retries) = (Some(said), None, self::retries());
                    }
                    Err(error) => {
                        say(&mut problem, Trouble::of_request(&error).to_string());
                        sleep(retries.delay()).await;
                        continue;
                    }
                }
            }
            if reports.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until a policy guards the right to set it; false where there is neither the right nor a reason to wait.
    async fn may_set(&self, client: &Client, problem: &mut Option<String>) -> bool {
        let mut retries = retries();
        loop {
            match guard::of_pod(client, &self.pod.namespace, &self.pod.name).await {
                Guard::Stands => return true,
                Guard::NoRight(right) if self.expected => {
                    say(problem, format!("the right is absent: {right}; component readiness-gate grants it"));
                }
                Guard::NoRight(right) => {
                    tracing::debug!(
                        right,
                        "readiness gate {CONDITION} is not set: the right is absent; component readiness-gate grants it"
                    );
                    return false;
                }
                Guard::Missing => say(problem, NO_POLICY.to_owned()),
                // an API server that does not answer is told of by the lists
                Guard::Unclear(why) => tracing::debug!(why, "it is not known yet whether a readiness gate may be set"),
            }
            sleep(retries.delay()).await;
        }
    }

    fn said(&self, report: &NodeReport) -> Said {
        match (self.ready_when, report.readiness) {
            (ReadyWhen::Running, _) => Said { status: "True", reason: RUNNING },
            (ReadyWhen::Warm, Readiness::Warm) => Said { status: "True", reason: report.reason },
            (ReadyWhen::Warm, Readiness::Unknown | Readiness::NotWarm) => {
                Said { status: "False", reason: report.reason }
            }
        }
    }

    async fn set(
        &self,
        pods: &Api<Pod>,
        clock: Clock,
        said: &Said,
        report: &NodeReport,
        transition: bool,
    ) -> Result<(), kube::Error> {
        let message = if said.reason == RUNNING {
            "ready whether the node is warm or not, for it was started with --ready-when running"
        } else {
            &report.message
        };
        let mut condition =
            json!({"type": CONDITION, "status": said.status, "reason": said.reason, "message": message});
        if transition {
            condition["lastTransitionTime"] = rfc3339(clock.now(), clock.now(), SystemTime::now()).into();
        }
        // the id: a pod of the same name that came after this one is another
        let patch = json!({"metadata": {"uid": self.pod.uid}, "status": {"conditions": [condition]}});
        pods.patch_status(&self.pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    }
}

fn say(said: &mut Option<String>, why: String) {
    if said.as_ref() != Some(&why) {
        tracing::warn!(condition = CONDITION, problem = why, "the pod's readiness gate is not set");
        *said = Some(why);
    }
}

fn retries() -> Retries {
    Retries::new(FIRST_RETRY, LONGEST_RETRY)
}
