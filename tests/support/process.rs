//! Child processes that never outlive the process that started them.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{LazyLock, mpsc},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

type Job = (Command, mpsc::Sender<std::io::Result<Child>>);

/// The kernel's "die with your parent" means the parent's *thread*. So one thread starts all children, and it lives as
/// long as the process: a test's own thread, or one of tokio's, may end much earlier.
static STARTER: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| {
    let (jobs, queue) = mpsc::channel::<Job>();
    std::thread::spawn(move || {
        for (mut command, reply) in queue {
            // whoever asked may be gone; the child is then dropped unheard, and ends with this process
            let _ = reply.send(command.spawn());
        }
    });
    jobs
});

/// A program to start under the watch of `setpriv` (util-linux), so that it is killed when this process ends, however
/// that happens.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    command
}

/// A child process; dropping it kills it.
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts `command` with its output in `folder/NAME.out` and `folder/NAME.err`; an earlier run's output is kept.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let file = |end: &str| -> Result<File> {
            let path = folder.join(format!("{name}.{end}"));
            File::options()
                .create(true)
                .append(true)
                .open(&path)
                .with_context(|| format!("cannot write {}", path.display()))
        };
        command.stdout(file("out")?).stderr(file("err")?);
        let (reply, answer) = mpsc::channel();
        STARTER.send((command, reply)).ok().context("the thread that starts processes has ended")?;
        let child = answer
            .recv()
            .context("the thread that starts processes has ended")?
            .with_context(|| format!("{name} cannot be started; is setpriv (util-linux) installed?"))?;
        Ok(Self { child, name: name.to_owned() })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit status if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("this process id is no id")?;
        kill_process(pid, signal).with_context(|| format!("{} takes no signal", self.name))
    }

    /// Asks the process to end and waits until it has; kills it after `patience`.
    pub async fn stop(&mut self, patience: Duration) -> Result<ExitStatus> {
        if self.ended().is_none() {
            self.signal(Signal::TERM)?;
        }
        let end = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < end {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill()
    }

    /// Kills the process, a stopped one too, and reaps it.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        // an error here means that it has ended already, which wait() tells
        let _ = self.child.kill();
        self.child.wait().with_context(|| format!("{} cannot be waited for", self.name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The last lines of a log, for the text of an error.
pub fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
