//! A panic in any task is the end of the process, with its reason where the kubelet reads it.

use std::{
    env, fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use prepull::panics;

/// Names the termination log of a process that is to panic.
const CHILD: &str = "PREPULL_TEST_PANIC_LOG";
const CANARY: &str = "canary-in-a-text-from-outside";

/// In a child: panics as a task of the agent might, by what somebody sent. Does not return there.
pub(crate) fn as_child() {
    let Some(path) = env::var_os(CHILD) else { return };
    panics::end_the_process();
    // as long as the process
    panics::tell_in(Box::leak(PathBuf::from(path).into_boxed_path()));
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let sent = env::var("PREPULL_TEST_PANIC_TEXT").unwrap_or_default();
        let task = tokio::spawn(async move {
            // what the standard library says of this has the text in it
            if sent.is_empty() { panic!("a text of the program") } else { sent.split_at(sent.len() + 1).0.len() }
        });
        // without the hook the task alone would end, and be waited for here for ever
        let _ = task.await;
        std::future::pending::<()>().await;
    });
}

pub(crate) fn ends_the_process() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("termination-log");
    fs::write(&log, "")?;
    for (sent, wanted) in [("", "a text of the program"), (CANARY, "left out")] {
        let (status, said) = child(&log, sent)?;
        ensure!(status == Some(101), "{status:?}: {said}");
        let told = fs::read_to_string(&log)?;
        ensure!(told.contains("panicked at ") && told.contains(wanted) && told.contains(".rs:"), "{told:?}");
        ensure!(told.lines().count() == 1 && told.len() < 1000, "one line: {told:?}");
        ensure!(said.trim() == told, "the same on stderr: {said:?}");
        ensure!(!said.contains(CANARY), "{said}");
    }
    // without the kubelet nobody made the file, and nobody does
    fs::remove_file(&log)?;
    ensure!(child(&log, "")?.0 == Some(101) && !log.exists());
    Ok(())
}

fn child(log: &Path, sent: &str) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(env::current_exe()?);
    command.env(CHILD, log).env("PREPULL_TEST_PANIC_TEXT", sent).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut child = command.spawn().context("this program cannot be started again")?;
    let mut said = String::new();
    child.stderr.take().context("no stderr")?.read_to_string(&mut said)?;
    Ok((child.wait()?.code(), said))
}
