//! Whatever the runtime, registries, the API server, lists, clocks and disks do: the agent goes on, tells the truth, and
//! in the end everything is there. Each fault of the matrix, SIGKILL at random moments, and long runs with churn.
//!
//! `PREPULL_FAULT_ROUNDS` is how often each fault is brought about on each runtime (without it: once, the runtimes taking
//! turns), and `PREPULL_FAULT_TABLE` the file whose table is written anew.

#![expect(clippy::print_stderr, reason = "what was measured stands beside the results")]

mod api_faults;
mod churn;
mod disk_faults;
mod kill;
mod list_faults;
mod matrix;
mod panics;
mod registry_faults;
mod runtime_faults;
mod simulated;
mod stage;
#[path = "../support/mod.rs"]
mod support;
mod watcher;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use matrix::Matrix;
use support::trials::{on_every_containerd, trial};

/// Trials wait for back-offs most of the time, so more of them run at once than there are processors.
const AT_ONCE: usize = 6;

fn main() -> ExitCode {
    panics::as_child();
    if let Some(code) = simulated::as_child() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let faults: Vec<_> =
        [registry_faults::all(), runtime_faults::all(), api_faults::all(), list_faults::all(), disk_faults::all()]
            .into_iter()
            .flatten()
            .collect();
    let matrix = Matrix::default();
    let mut trials = matrix.trials(&faults);
    trials.extend(on_every_containerd("kill::at_random_moments", kill::at_random_moments));
    trials.extend(churn::trials());
    trials.push(trial("soak::ten_simulated_hours", Ok(()), |()| simulated::ten_hours()));
    trials.push(trial("panics::a_panicking_task_ends_the_process", Ok(()), |()| {
        std::future::ready(panics::ends_the_process())
    }));
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = matrix.write(&faults) {
        eprintln!("the table of faults was not written: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
