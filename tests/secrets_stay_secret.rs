//! Nothing that is secret is ever shown. Canaries are planted in every source of credentials, every source succeeds and
//! fails at the most talkative log level, and servers repeat what they were sent; then all that anybody can see is
//! searched for the canaries in every spelling. They run where nothing can be written into a file.

mod support;

#[path = "secrets_stay_secret/canaries.rs"]
mod canaries;
#[path = "secrets_stay_secret/clouds.rs"]
mod clouds;
#[path = "secrets_stay_secret/echo.rs"]
mod echo;
#[path = "secrets_stay_secret/shown.rs"]
mod shown;
#[path = "secrets_stay_secret/sources.rs"]
mod sources;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use support::trials::{on_every_containerd, trial};

fn main() -> ExitCode {
    let trials = [
        on_every_containerd("registries_and_token_servers_that_repeat_what_they_are_sent", echo::servers),
        vec![
            trial("no_file_can_be_written", Ok(()), |()| async { shown::files_cannot_be_written() }),
            trial("fake_cri::every_source_that_works", Ok(()), |()| sources::that_work()),
            trial("fake_cri::every_source_that_is_refused_and_repeated", Ok(()), |()| sources::that_are_refused()),
            trial("fake_cri::every_source_that_is_malformed", Ok(()), |()| sources::that_are_malformed()),
            trial("fake_cri::clouds_that_work", Ok(()), |()| clouds::that_work()),
            trial("fake_cri::clouds_that_repeat_what_they_are_sent", Ok(()), |()| clouds::that_repeat()),
        ],
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}
