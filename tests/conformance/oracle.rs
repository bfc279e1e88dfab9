//! The Go program that answers as the kubelet would.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::Value;

fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kubelet-oracle")
}

/// Builds it, or says what is missing for that.
pub(crate) fn build() -> Result<(), String> {
    if Command::new("go").arg("version").output().is_err() {
        return Err("the comparison needs Go, which is not on the PATH".to_owned());
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance");
    let built =
        Command::new("go").args(["build", "-buildvcs=false", "-o"]).arg(binary()).arg(".").current_dir(source).output();
    match built {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("the comparison needs the Go module k8s.io/kubernetes, and go build says: {said}"))
        }
        Err(error) => Err(format!("the comparison needs Go, which cannot be run: {error}")),
    }
}

/// One running program. It ends when this is dropped.
pub(crate) struct Oracle {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Oracle {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(binary()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, questions, answers }
    }

    /// Asks one question.
    pub(crate) fn ask(&mut self, question: &Value) -> Value {
        let mut line = question.to_string();
        line.push('\n');
        self.questions.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap_or_else(|_| panic!("no answer to {line}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.questions = None;
        let _ = self.child.wait();
    }
}
