//! Everything that an agent and the commands let anybody see. Meanwhile they cannot write a byte into any file: what they
//! know of secrets is in memory alone.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    canaries::look_for,
    support::{
        agent::{Agent, AgentOptions},
        sources::prepull,
    },
};

/// Long enough for a busy machine, and never waited for in full when all is well.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the commands are given.
pub(crate) struct Setting<'a> {
    /// The runtime.
    pub(crate) socket: &'a Path,
    /// A folder for what the commands need.
    pub(crate) folder: &'a Path,
    /// The images of the list.
    pub(crate) images: &'a [&'a str],
    /// Credential flags.
    pub(crate) flags: Vec<String>,
    /// The environment.
    pub(crate) environment: Vec<(String, String)>,
    /// The state in which all images end.
    pub(crate) state: &'a str,
}

/// What was seen, for a test to see that its faults were real.
#[derive(Default)]
pub(crate) struct Seen {
    /// Everything.
    pub(crate) all: String,
    /// `explain` as JSON.
    pub(crate) explained: Value,
    /// The agent's status.
    pub(crate) status: Value,
}

/// A program under a limit of the kernel's: whoever makes a file longer is ended. Pipes have no length, so what it says goes
/// through one.
fn without_files(program: &str, folder: &Path) -> Result<PathBuf> {
    let wrapper = folder.join("without-files");
    let script =
        format!("#!/bin/bash\nexec > >(exec cat) 2> >(exec cat >&2)\nexec prlimit --fsize=0 -- {program} \"$@\"\n");
    fs::write(&wrapper, script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    Ok(wrapper)
}

/// The limit is a real one, also for what is started under it.
pub(crate) fn files_cannot_be_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let shell = without_files("/bin/sh", folder.path())?;
    let file = folder.path().join("file");
    let writes = |what: &str| -> Result<bool> {
        let said = Command::new(&shell).args(["-c", &format!("{what} && echo written")]).output()?;
        Ok(String::from_utf8_lossy(&said.stdout).contains("written"))
    };
    ensure!(writes("true")? && writes("echo secret > /dev/null")?);
    for forbidden in ["echo secret > ", "sh -c 'echo secret' >> ", "tee "] {
        ensure!(!writes(&format!("echo secret | {forbidden}{}", file.display()))?, "{forbidden} wrote");
        ensure!(fs::metadata(&file).map_or(0, |file| file.len()) == 0);
    }
    Ok(())
}

impl Setting<'_> {
    /// Runs the agent with both kinds of logs and every command in every format, and looks for the canaries.
    pub(crate) async fn look(&self) -> Result<Seen> {
        let list = self.images.iter().fold("images:\n".to_owned(), |list, image| format!("{list}  - \"{image}\"\n"));
        fs::write(self.folder.join("list.yaml"), &list)?;
        let program = without_files(env!("CARGO_BIN_EXE_prepull"), self.folder)?;
        let mut seen = Seen::default();
        for format in ["text", "json"] {
            seen.status = self.agent(&program, &list, format, &mut seen.all).await?;
        }
        let images: Vec<&str> = self.images.to_vec();
        let socket = self.socket.display().to_string();
        for output in ["table", "json", "yaml"] {
            let explained =
                self.command(&program, &[&["explain", "-o", output], &images[..]].concat(), true, &mut seen)?;
            if output == "json" {
                seen.explained = serde_json::from_str(&explained)?;
            }
            self.command(&program, &["explain", "-f", "list.yaml", "--offline", "-o", output], true, &mut seen)?;
            self.command(&program, &["check", "-f", "list.yaml", "-o", output], false, &mut seen)?;
            let pull = ["pull", "-f", "list.yaml", "--runtime-endpoint", &socket, "-o", output];
            self.command(&program, &pull, true, &mut seen)?;
        }
        Ok(seen)
    }

    async fn agent(&self, program: &Path, list: &str, format: &str, all: &mut String) -> Result<Value> {
        let mut flags = self.flags.clone();
        flags.extend(["--log-level", "trace", "--log-format", format].map(str::to_owned));
        let options = AgentOptions { flags, environment: self.environment.clone() };
        let mut agent = Agent::start(program, self.socket, list, &options)?;
        let ended = |status: &Value| {
            let images = status["images"].as_array().map(Vec::as_slice).unwrap_or_default();
            !images.is_empty() && images.iter().all(|image| image["state"] == self.state)
        };
        let status = agent.until(PATIENCE, self.state, ended).await?;
        for page in ["/", "/api/v1/images", "/metrics", "/healthz", "/readyz", "/nothing"] {
            let (_, body) = agent.get(page).await?;
            search(page, &body, all)?;
        }
        agent.terminate(PATIENCE).await?;
        let log = agent.log();
        // tonic's and h2's own lines are there, or this would prove nothing about them
        ensure!(log.contains("FramedWrite") || log.contains("received frame"), "this is no trace: {log}");
        search(&format!("the log ({format})"), &log, all)?;
        Ok(status)
    }

    /// Runs a command, and gives what it printed.
    fn command(&self, program: &Path, arguments: &[&str], with_flags: bool, seen: &mut Seen) -> Result<String> {
        let mut command = prepull(program, self.folder);
        command.args(arguments).envs(self.environment.iter().cloned());
        if with_flags {
            command.args(&self.flags);
        }
        let output = command.output().context("prepull cannot be started")?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.code() != Some(2), "{arguments:?} is wrong usage: {err}");
        search(&format!("the output of {arguments:?}"), &out, &mut seen.all)?;
        search(&format!("what {arguments:?} says on stderr"), &err, &mut seen.all)?;
        Ok(out)
    }
}

/// Looks for the canaries, and keeps the text.
fn search(what: &str, text: &str, all: &mut String) -> Result<()> {
    ensure!(!text.is_empty() || what.contains("stderr") || what.contains("nothing"), "{what} is empty");
    all.push_str(text);
    look_for(what, text)
}
