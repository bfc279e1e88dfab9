//! The cap `pullingNodes` on a real API server: many nodes of one process that share slots, and the agent itself.

#![expect(clippy::print_stderr, reason = "what was measured stands beside the results")]

mod agents;
mod crowd;
mod slots;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use support::cluster::Servers;

fn main() -> ExitCode {
    let servers = Servers::default();
    let trials = vec![
        servers.shared("two_hundred_nodes_share_five_slots", slots::crowded),
        servers.shared("slots_of_killed_and_paused_nodes_are_taken_over", slots::killed_and_paused),
        servers.shared("a_node_that_is_cut_off_begins_no_other_pull", slots::cut_off),
        servers.shared("the_cap_changes_at_run_time", slots::changed),
        servers.shared("an_agent_without_slots_waits_and_says_why", agents::without_component),
        servers.shared("an_agent_takes_a_slot_and_gives_it_back", agents::one_after_another),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
