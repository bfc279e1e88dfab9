//! How far pulls are, pulls that stand still, and what happens to images behind the agent's back: on real runtimes.
#![allow(clippy::print_stdout, reason = "what was measured is for people to read")]

mod broken;
mod bytes;
mod events;
mod stall;
#[path = "../support/mod.rs"]
mod support;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::Result;
use libtest_mimic::Arguments;
use support::{
    agent::{Agent, AgentOptions},
    trials::{on_every_containerd, trial},
};

/// Long enough for a busy machine, and never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_mins(2);

fn main() -> ExitCode {
    let trials = [
        on_every_containerd("bytes_agree_with_the_registry", bytes::agree),
        on_every_containerd("two_tags_of_one_repository_are_told_apart", bytes::told_apart),
        on_every_containerd("no_lease_is_left_behind", bytes::no_lease_left),
        on_every_containerd("leases_of_killed_agents_are_removed", bytes::of_the_killed),
        on_every_containerd("pull_tells_how_far_it_is", bytes::pull_tells),
        on_every_containerd("a_broken_download_goes_on_from_where_it_was", broken::resumed),
        on_every_containerd("a_download_that_gets_nowhere_waits_for_its_back_off", broken::given_up),
        on_every_containerd("a_pull_without_a_cluster_tells_of_it_and_leaves_no_lease", broken::pulled_once),
        on_every_containerd("a_frozen_download_is_stalled", stall::frozen),
        on_every_containerd("a_registry_that_never_answers_is_stalled", stall::silent),
        on_every_containerd("a_long_unpack_is_not_stalled", stall::long_unpack),
        on_every_containerd("a_deleted_image_is_in_the_queue_within_a_second", events::deleted),
        on_every_containerd("what_somebody_else_pulls_is_seen", events::pulled_by_others),
        on_every_containerd("a_burst_of_deletions_causes_few_looks", events::burst),
        vec![trial("fake_cri::a_runtime_that_tells_nothing_is_asked_once", Ok(()), |()| events::unimplemented())],
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}

fn agent(socket: &Path, list: &str) -> Result<Agent> {
    Agent::start(env!("CARGO_BIN_EXE_prepull").as_ref(), socket, list, &AgentOptions::default())
}
