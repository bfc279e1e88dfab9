//! The `prepull` binary: parses the command line, runs a command, and ends with its status.

use std::process::ExitCode;

use prepull::{
    cli::{self, Cli, output},
    panics,
};

fn main() -> ExitCode {
    panics::end_the_process();
    let cli = Cli::read();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            output::note(&format!("prepull: cannot start: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(cli::run(cli));
    // nothing that is left may hold up the end
    runtime.shutdown_background();
    result.unwrap_or_else(|e| {
        output::note(&format!("prepull: {e:#}"));
        ExitCode::from(cli::NOT_SO)
    })
}
