//! The command line. Every flag has a twin in the environment, `PREPULL_` and the flag in capitals.

mod agent;
mod check;
mod cluster;
mod discover;
mod explain;
mod images;
mod options;
pub mod output;
mod pull;
mod status;

use std::{path::Path, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand, builder::Resettable};

/// Keeps a Kubernetes node's image store stocked with a list of images.
#[derive(Debug, Parser)]
#[command(name = "prepull", version, about, disable_help_subcommand = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep this node stocked: the daemon
    Agent(agent::Args),
    /// Pull images now, once, with progress
    Pull(pull::Args),
    /// Validate a list, offline
    Check(check::Args),
    /// Show how images are named and pulled, and with which credentials
    Explain(explain::Args),
    /// List the images that workloads of a cluster use, as a list file or into a ConfigMap
    Discover(discover::Args),
    /// Show which nodes of a cluster have which images, and wait until all have them
    Status(status::Args),
}

impl Cli {
    /// Reads the command line; ends the process where it is wrong or asks for help. A variable that is empty, as
    /// manifests often have one, counts as absent.
    pub fn read() -> Self {
        let mut command = Self::command();
        if is_kubectls_plugin() {
            command = command.bin_name("kubectl prepull");
        }
        let command = command.mut_subcommands(|command| {
            command.mut_args(|arg| {
                let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
                if empty { arg.env(Resettable::Reset) } else { arg }
            })
        });
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

/// Whether kubectl started this: it runs a program called `kubectl-prepull` for `kubectl prepull`.
fn is_kubectls_plugin() -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name().is_some_and(|name| name == "kubectl-prepull")
}

/// Something that was asked for is not so.
pub const NOT_SO: u8 = 1;
/// The command line is wrong.
pub const WRONG_USAGE: u8 = 2;

/// Runs a command.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Agent(args) => agent::run(args).await,
        Command::Pull(args) => pull::run(args).await,
        Command::Check(args) => check::run(&args),
        Command::Explain(args) => explain::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Discover(args) => discover::run(args).await,
    }
}
