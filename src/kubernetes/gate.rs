//! The readiness gate `prepull.dev/Warm` on this agent's own Pod.
//!
//! Whether the Pod has such a gate is not asked: that would need a right to read Pods. The right to write the condition
//! comes with the component readiness-gate alone, so who has it, uses it; a condition without a gate changes nothing.

use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBuilder};
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
use crate::{
    clock::{Clock, rfc3339},
    node_report::{NodeReport, Readiness},
    node_writes::GRACE,
};

/// The condition that the gate waits for.
pub const CONDITION: &str = "prepull.dev/Warm";

const NO_POLICY: &str = "no admission policy keeps this service account to its own Pod; install the policy of component readiness-gate for this account and namespace";

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

/// Sets the condition whenever it changes, until nobody reports any more.
pub async fn run(client: Client, pod: OwnPod, clock: Clock, mut reports: watch::Receiver<NodeReport>) {
    let mut retries = retries();
    let mut said = None;
    loop {
        match guard::of_pod(&client, &pod.namespace, &pod.name).await {
            Guard::Stands => break,
            Guard::NoRight(right) => {
                tracing::debug!(
                    right,
                    "readiness gate {CONDITION} is not set: the right is absent; component readiness-gate grants it"
                );
                return;
            }
            Guard::Missing => say(&mut said, NO_POLICY.to_owned()),
            // an API server that does not answer is told of by the lists
            Guard::Unclear(why) => tracing::debug!(why, "it is not known yet whether a readiness gate may be set"),
        }
        sleep(retries.next().unwrap_or(LONGEST_RETRY)).await;
    }
    // a container that is started again on a warm node must not make its pod unready
    let warm = reports.wait_for(|report| report.readiness == Readiness::Warm);
    if let Ok(Err(_)) = timeout(GRACE, warm).await {
        return;
    }
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    let mut last = None;
    loop {
        let report = reports.borrow_and_update().clone();
        let status = if report.readiness == Readiness::Warm { "True" } else { "False" };
        if last != Some((status, report.reason)) {
            match set(&pods, &pod, clock, status, &report, last.is_none_or(|(before, _)| before != status)).await {
                Ok(()) => {
                    tracing::info!(condition = CONDITION, status, reason = report.reason, "pod updated");
                    (last, said, retries) = (Some((status, report.reason)), None, self::retries());
                }
                Err(error) => {
                    say(&mut said, Trouble::of_request(&error).to_string());
                    sleep(retries.next().unwrap_or(LONGEST_RETRY)).await;
                    continue;
                }
            }
        }
        if reports.changed().await.is_err() {
            return;
        }
    }
}

async fn set(
    pods: &Api<Pod>,
    pod: &OwnPod,
    clock: Clock,
    status: &str,
    report: &NodeReport,
    transition: bool,
) -> Result<(), kube::Error> {
    let now = rfc3339(clock.now(), clock.now(), SystemTime::now());
    let mut condition =
        json!({"type": CONDITION, "status": status, "reason": report.reason, "message": report.message});
    if transition {
        condition["lastTransitionTime"] = now.into();
    }
    // the id: a pod of the same name that came after this one is another
    let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

fn say(said: &mut Option<String>, why: String) {
    if said.as_ref() != Some(&why) {
        tracing::warn!(condition = CONDITION, problem = why, "the pod's readiness gate is not set");
        *said = Some(why);
    }
}

fn retries() -> backon::ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_RETRY)
        .with_max_delay(LONGEST_RETRY)
        .with_jitter()
        .without_max_times()
        .build()
}
