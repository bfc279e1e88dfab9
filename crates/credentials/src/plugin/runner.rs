//! Runs a plugin once: request on its standard input, answer from its standard output, everything bounded.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    time::{sleep, timeout},
};
use zeroize::Zeroizing;

/// How often a start is tried again while the binary is being written.
const BUSY_RETRIES: u32 = 5;
/// The pause before each of these.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// How long a killed plugin is waited for.
const REAP_LIMIT: Duration = Duration::from_secs(1);

/// What a plugin may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From its start to its end. The kubelet gives a minute.
    pub time: Duration,
    /// Bytes of its answer.
    pub stdout: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { time: Duration::from_mins(1), stdout: 1 << 20 }
    }
}

/// One call.
pub struct Call<'a> {
    /// The binary.
    pub binary: PathBuf,
    /// Its arguments.
    pub args: &'a [String],
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What it reads.
    pub stdin: &'a [u8],
}

/// Why there is no answer. What the plugin wrote to its standard error is not in it: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The system could not start it.
    #[error("it cannot be started: {0}; check that the file is an executable for this machine")]
    Start(io::ErrorKind),
    /// It ended with a failure.
    #[error("it ended with exit status {0}; run it by hand with the same request to see what it says")]
    Exit(i32),
    /// It was killed by somebody else.
    #[error("it was ended by signal {0}")]
    Signal(i32),
    /// It took too long.
    #[error("it did not end within {} s and was killed; see whether what it asks can be reached from this node", .0.as_secs_f32())]
    TimedOut(Duration),
    /// It wrote too much.
    #[error("it answered more than {} KiB and was killed", .0 >> 10)]
    TooMuch(usize),
    /// Its pipes or its end could not be read.
    #[error("its answer cannot be read: {0}")]
    Io(io::ErrorKind),
}

/// Runs the plugin and returns its standard output. Whatever goes wrong, the plugin and all that it started in its
/// process group are gone afterwards, also where this future is dropped.
pub async fn run(call: Call<'_>, limits: Limits) -> Result<Zeroizing<Vec<u8>>, RunError> {
    let mut child = start(&call).await?;
    let group = Group::of(&child);
    let talked = timeout(limits.time, talk(&mut child, call.stdin, limits.stdout)).await;
    let (stdout, status) = match talked {
        Ok(Ok(done)) => {
            group.let_live();
            done
        }
        Ok(Err(error)) => {
            end(group, child).await;
            return Err(error);
        }
        Err(_elapsed) => {
            end(group, child).await;
            return Err(RunError::TimedOut(limits.time));
        }
    };
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(stdout),
        (Some(code), _) => Err(RunError::Exit(code)),
        (None, signal) => Err(RunError::Signal(signal.unwrap_or_default())),
    }
}

async fn start(call: &Call<'_>) -> Result<Child, RunError> {
    let mut retries = 0;
    loop {
        let started = Command::new(&call.binary)
            .args(call.args)
            .env_clear()
            .envs(call.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        match started {
            Ok(child) => return Ok(child),
            // an installer is still writing it
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && retries < BUSY_RETRIES => {
                retries += 1;
                sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(RunError::Start(error.kind())),
        }
    }
}

/// The process group that a plugin leads. It is killed when this is dropped: only while the plugin has not been
/// waited for, so that its number cannot belong to anybody else.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn let_live(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // it may have ended by itself in between
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

async fn end(group: Group, mut child: Child) {
    drop(group);
    // a plugin that cannot even be killed must not hold anybody up
    let _ = timeout(REAP_LIMIT, child.wait()).await;
}

/// Writes and reads at the same time, so that neither side waits for the other for ever, and waits for the end last.
async fn talk(child: &mut Child, request: &[u8], limit: usize) -> Result<(Zeroizing<Vec<u8>>, ExitStatus), RunError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // a plugin need not read its request
            let _ = stdin.write_all(request).await;
        }
        Ok(())
    };
    let read = async {
        match stdout {
            Some(stdout) => bounded(stdout, limit).await,
            None => Ok(Zeroizing::default()),
        }
    };
    let drain = async {
        if let Some(stderr) = stderr {
            discard(stderr).await;
        }
        Ok(())
    };
    let ((), answer, ()) = tokio::try_join!(write, read, drain)?;
    let status = child.wait().await.map_err(|error| RunError::Io(error.kind()))?;
    Ok((answer, status))
}

/// Everything up to the end, at most `limit` bytes. Grown by hand: a vector that grows by itself leaves copies behind.
async fn bounded(mut from: impl AsyncRead + Unpin, limit: usize) -> Result<Zeroizing<Vec<u8>>, RunError> {
    let mut chunk = Zeroizing::new(vec![0; 8 << 10]);
    let mut text = Zeroizing::new(Vec::with_capacity(chunk.len()));
    loop {
        let count = from.read(&mut chunk).await.map_err(|error| RunError::Io(error.kind()))?;
        if count == 0 {
            return Ok(text);
        }
        if text.len() + count > limit {
            return Err(RunError::TooMuch(limit));
        }
        if text.len() + count > text.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(2 * text.capacity()));
            larger.extend_from_slice(&text);
            text = larger;
        }
        text.extend_from_slice(&chunk[..count]);
    }
}

/// Reads and forgets: a plugin must not block on a full pipe, and nobody may see what it wrote there.
async fn discard(mut from: impl AsyncRead + Unpin) {
    let mut chunk = Zeroizing::new(vec![0; 8 << 10]);
    while from.read(&mut chunk).await.is_ok_and(|count| count > 0) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limits: Limits) -> Result<String, RunError> {
        let args = ["-c".to_owned(), script.to_owned()];
        let env = std::env::vars_os().collect();
        let call = Call { binary: "/bin/sh".into(), args: &args, env, stdin: b"request\n" };
        run(call, limits).await.map(|out| String::from_utf8_lossy(&out).into_owned())
    }

    fn short() -> Limits {
        Limits { time: Duration::from_millis(300), ..Limits::default() }
    }

    #[tokio::test]
    async fn the_request_arrives_and_the_answer_comes_back() {
        assert_eq!(sh("read line; echo got $line", Limits::default()).await.as_deref(), Ok("got request\n"));
    }

    #[tokio::test]
    async fn a_failure_is_told_without_what_it_says() {
        assert_eq!(sh("echo hunter2 >&2; exit 3", Limits::default()).await, Err(RunError::Exit(3)));
        assert_eq!(sh("kill -TERM $$", Limits::default()).await, Err(RunError::Signal(15)));
        let call = Call { binary: "/nowhere/plugin".into(), args: &[], env: Vec::new(), stdin: b"" };
        assert_eq!(run(call, Limits::default()).await, Err(RunError::Start(io::ErrorKind::NotFound)));
    }

    #[tokio::test]
    async fn a_plugin_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("child");
        let script = format!("sleep 60 & echo $! > {}; wait", file.display());
        assert_eq!(sh(&script, short()).await, Err(RunError::TimedOut(short().time)));
        let child: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        // its parent is gone, so somebody else reaps it: give that a moment
        for _ in 0..100 {
            let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("the child lives on");
    }

    #[tokio::test]
    async fn a_dropped_call_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("leader");
        let script = format!("echo $$ > {}; sleep 60", file.display());
        let dropped = timeout(Duration::from_millis(300), sh(&script, Limits::default())).await;
        assert!(dropped.is_err());
        let leader: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        for _ in 0..100 {
            let state = std::fs::read_to_string(format!("/proc/{leader}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("the plugin lives on");
    }

    #[tokio::test]
    async fn endless_output_is_cut() {
        let limits = Limits { stdout: 64 << 10, ..Limits::default() };
        assert_eq!(sh("yes", limits).await, Err(RunError::TooMuch(64 << 10)));
        let large = sh("head -c 60000 /dev/zero | tr '\\0' x", limits).await.unwrap();
        assert_eq!(large.len(), 60_000);
    }

    #[tokio::test]
    async fn endless_errors_neither_block_nor_count() {
        assert_eq!(sh("head -c 1000000 /dev/zero >&2; echo done", Limits::default()).await.as_deref(), Ok("done\n"));
    }

    #[tokio::test]
    async fn a_request_that_nobody_reads_does_not_block() {
        let args = ["-c".to_owned(), "exec 0<&-; echo done".to_owned()];
        let request = vec![b'x'; 1 << 20];
        let env = std::env::vars_os().collect();
        let call = Call { binary: "/bin/sh".into(), args: &args, env, stdin: &request };
        assert_eq!(run(call, Limits::default()).await.unwrap().as_slice(), b"done\n");
    }
}
