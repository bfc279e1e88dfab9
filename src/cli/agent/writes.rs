//! What the agent writes in the cluster, and who it is there.

use std::time::Duration;

use super::duration;
use crate::{agent::ClusterOptions, kubernetes::gate::OwnPod, node_writes::Parts};

#[derive(Debug, clap::Args)]
pub(super) struct WriteArgs {
    /// What is written to this agent's own Node: condition (ImagesPrepulled), label (prepull.dev/warm), taint (the removal
    /// of the start-up taint); nothing unless an admission policy keeps it to that
    #[arg(long, env = "PREPULL_NODE_WRITES", value_name = "WHAT", value_delimiter = ',', value_parser = part)]
    node_writes: Vec<Option<NodeWrite>>,
    /// Taint that is removed from the Node when it is first warm
    #[arg(long, env = "PREPULL_STARTUP_TAINT", value_name = "KEY", default_value = "prepull.dev/not-warm")]
    startup_taint: String,
    /// Remove the taint at the latest this long after the Node was created or the node booted, whichever is later. Restarts of the
    /// agent do not move this deadline
    #[arg(long, env = "PREPULL_STARTUP_TAINT_TIMEOUT", value_name = "DURATION", default_value = "15m", value_parser = duration)]
    startup_taint_timeout: Duration,
    /// The pod has the readiness gate prepull.dev/Warm: the right to set it is waited for. Without this it is set only
    /// where the right is there at start
    #[arg(long, env = "PREPULL_READINESS_GATE")]
    readiness_gate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodeWrite {
    Condition,
    Label,
    Taint,
}

/// One of the parts; an empty variable names none.
fn part(text: &str) -> Result<Option<NodeWrite>, String> {
    match text {
        "" => Ok(None),
        "condition" => Ok(Some(NodeWrite::Condition)),
        "label" => Ok(Some(NodeWrite::Label)),
        "taint" => Ok(Some(NodeWrite::Taint)),
        _ => Err("write condition, label or taint, several with commas between them".to_owned()),
    }
}

impl WriteArgs {
    pub(super) fn into_options(self) -> ClusterOptions {
        let Self { node_writes, startup_taint, startup_taint_timeout, readiness_gate } = self;
        let has = |part| node_writes.contains(&Some(part));
        ClusterOptions {
            pod: own_pod(),
            writes: Parts {
                condition: has(NodeWrite::Condition),
                label: has(NodeWrite::Label),
                taint: has(NodeWrite::Taint),
            },
            startup_taint,
            startup_taint_timeout,
            readiness_gate,
        }
    }
}

/// The Pod that this process runs in, as the downward API tells.
fn own_pod() -> Option<OwnPod> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some(OwnPod { namespace: variable("POD_NAMESPACE")?, name: variable("POD_NAME")?, uid: variable("POD_UID")? })
}
