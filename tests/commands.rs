//! The commands as people and scripts use them: what they print, where, and how they end.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "commands/check.rs"]
mod check;
#[path = "commands/check_files.rs"]
mod check_files;
mod support;

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use support::{
    fake_cri::{FakeCri, Offer},
    journal::Method,
};

fn prepull(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prepull"))
        .args(arguments)
        .current_dir(folder)
        .env("HOME", folder)
        .env("PREPULL_KUBELET_ROOT", folder)
        .env("PREPULL_CLOUD_CREDENTIALS", "off")
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn explain_has_one_element_for_each_argument() {
    let folder = tempfile::tempdir().unwrap();
    let output = prepull(folder.path(), &["explain", "-o", "json", "busybox", "", "busybox", "Foo//x"]);
    assert_eq!(output.status.code(), Some(1));
    let all = json(&output);
    let images: Vec<_> = all.as_array().unwrap().iter().map(|e| e["image"].as_str().unwrap().to_owned()).collect();
    assert_eq!(images, ["busybox", "", "busybox", "Foo//x"]);
    let first = &all[0];
    assert_eq!(first["canonical"], "docker.io/library/busybox:latest");
    assert_eq!(first["criImage"], "busybox:latest");
    assert_eq!(first["imagePullPolicy"], "Always");
    assert_eq!(first["tag"], Value::Null);
    assert_eq!(first["credentials"], Value::Array(vec![]));
    assert_eq!(first["cloudProvider"], Value::Null);
    assert_eq!(first["problems"], Value::Array(vec![]));
    assert_eq!(all[1]["valid"], false);
    assert!(all[3]["error"].as_str().unwrap().contains("write registry/repository:tag"));
    let yaml = prepull(folder.path(), &["explain", "-o", "yaml", "busybox"]);
    assert_eq!(yaml.status.code(), Some(0));
    assert!(stdout(&yaml).contains("criImage: busybox:latest"), "{yaml:?}");
}

#[test]
fn explain_reads_a_list() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("l.yaml"),
        "images:\n  - {image: quay.io/a:1, imagePullPolicy: Always, imagePullSecrets: [{name: acme}]}\n  - {image: quay.io/b:1, pin: perhaps}\n",
    )
    .unwrap();
    let output = prepull(folder.path(), &["explain", "-f", "l.yaml", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let all = json(&output);
    assert_eq!(all[0]["imagePullPolicy"], "Always");
    assert!(all[0]["problems"][0].as_str().unwrap().contains("pull secret acme"), "{all:#}");
    assert_eq!(all[1]["valid"], false);
}

fn fake() -> (FakeCri, String, tempfile::TempDir) {
    let fake = FakeCri::start().unwrap();
    let socket = fake.socket().display().to_string();
    (fake, socket, tempfile::tempdir().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_ends_with_a_table_and_status_zero() {
    let (fake, socket, folder) = fake();
    fake.put(["quay.io/here:1"]).unwrap();
    let output = prepull(folder.path(), &["pull", "--runtime-endpoint", &socket, "quay.io/here:1", "quay.io/new:1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("quay.io/new:1   Present"), "{output:?}");
    assert!(stderr(&output).contains("quay.io/here:1: already present"), "{output:?}");
    assert!(stderr(&output).contains("2 of 2 images are present"), "{output:?}");
    let pulled: Vec<_> = fake.journal().calls(Method::PullImage).into_iter().map(|c| c.image).collect();
    assert_eq!(pulled, ["quay.io/new:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_tries_each_image_once_and_names_what_failed() {
    let (fake, socket, folder) = fake();
    fake.offer("quay.io/private:1", Offer { logins: vec![("a".into(), "b".into())], ..Offer::default() });
    let arguments = ["pull", "-o", "json", "--runtime-endpoint", &socket, "quay.io/private:1", "Bad//", "quay.io/ok:1"];
    let output = prepull(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let status = json(&output);
    let row = |image: &str| status["images"].as_array().unwrap().iter().find(|i| i["image"] == image).unwrap().clone();
    assert_eq!(row("quay.io/private:1")["class"], "Unauthorized");
    assert_eq!(row("quay.io/ok:1")["state"], "Present");
    assert_eq!(row("Bad//")["state"], "Invalid");
    assert_eq!(fake.journal().count(Method::PullImage), 2, "one attempt for each image");
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_retries_for_as_long_as_it_is_told() {
    let (fake, socket, folder) = fake();
    let rule = support::script::Rule::fail(Method::PullImage, tonic::Code::Unknown, "503 Service Unavailable").times(1);
    fake.script().add(rule);
    let arguments = ["pull", "--retry-for", "60s", "--runtime-endpoint", &socket, "quay.io/a:1"];
    let output = prepull(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fake.journal().count(Method::PullImage), 2);
    let began = std::time::SystemTime::now();
    fake.script().add(support::script::Rule::fail(Method::PullImage, tonic::Code::NotFound, "not found"));
    let arguments = ["pull", "--retry-for", "2s", "--runtime-endpoint", &socket, "quay.io/b:1"];
    let output = prepull(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let took = began.elapsed().unwrap().as_secs_f64();
    assert!((1.9..10.0).contains(&took), "it gave up after {took} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_begins_and_nothing_spins_after_the_time_for_retries() {
    let (fake, socket, folder) = fake();
    fake.script().add(support::script::Rule::delay(Method::PullImage, std::time::Duration::from_secs(4)));
    let list = "limits: {parallelPulls: 1}\nimages: ['quay.io/a:1', 'quay.io/b:1', 'quay.io/c:1']\n";
    std::fs::write(folder.path().join("l.yaml"), list).unwrap();
    let arguments = ["pull", "-f", "l.yaml", "--retry-for", "1s", "--runtime-endpoint", &socket];
    let mut timed = Command::new("bash");
    timed.args(["-c", "TIMEFORMAT='%U %S'; time \"$0\" \"$@\"", env!("CARGO_BIN_EXE_prepull")]).args(arguments);
    let output = timed.current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fake.journal().count(Method::PullImage), 1, "what waits when the time is over does not begin");
    let text = stderr(&output);
    let used: f64 = text.lines().last().unwrap().split(' ').map(|s| s.parse::<f64>().unwrap()).sum();
    assert!(used < 1.0, "{used} s of CPU");
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_uses_each_credential_in_turn() {
    let (fake, socket, folder) = fake();
    fake.offer("r.example.com/app:1", Offer { logins: vec![("right".into(), "secret-2".into())], ..Offer::default() });
    let secret = |user: &str, password: &str| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{{\"name\":\"{user}\"}},\"type\":\"kubernetes.io/dockerconfigjson\",\"stringData\":{{\".dockerconfigjson\":\"{{\\\"auths\\\":{{\\\"r.example.com\\\":{{\\\"username\\\":\\\"{user}\\\",\\\"password\\\":\\\"{password}\\\"}}}}}}\"}}}}"
        )
    };
    std::fs::write(folder.path().join("1.json"), secret("wrong", "secret-1")).unwrap();
    std::fs::write(folder.path().join("2.json"), secret("right", "secret-2")).unwrap();
    let arguments = [
        "pull",
        "-o",
        "json",
        "--runtime-endpoint",
        &socket,
        "--pull-secret",
        "1.json",
        "--pull-secret",
        "2.json",
        "r.example.com/app:1",
    ];
    let output = prepull(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let users: Vec<_> =
        fake.journal().calls(Method::PullImage).into_iter().map(|c| c.login.unwrap().username).collect();
    assert_eq!(users, ["wrong", "right"]);
    let status = json(&output);
    assert_eq!(status["images"][0]["credential"], "pull-secret right");
    assert!(!stdout(&output).contains("secret-2") && !stderr(&output).contains("secret-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_of_one_attempt_promises_no_other() {
    let (fake, socket, folder) = fake();
    let rule = support::script::Rule::fail(Method::PullImage, tonic::Code::Unknown, "429 Too Many Requests");
    fake.script().add(rule);
    let output = prepull(folder.path(), &["pull", "--runtime-endpoint", &socket, "quay.io/a:1", "Bad//"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let table = stdout(&output);
    assert!(table.contains("RateLimited") && table.contains("Run the command again later"), "{table}");
    assert!(table.contains("Correct the name on the command line."), "{table}");
    for promise in ["next at", "Nothing needs to be done", "in the list"] {
        assert!(!table.contains(promise), "{promise}: {table}");
    }
    let output = prepull(folder.path(), &["pull", "-o", "json", "--runtime-endpoint", &socket, "quay.io/a:1"]);
    assert_eq!(json(&output)["images"][0]["nextAttempt"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_pull_says_so() {
    let (fake, socket, folder) = fake();
    fake.script().add(support::script::Rule::hang(Method::PullImage));
    for (signal, word, code) in [("INT", "interrupted", 130), ("TERM", "terminated", 143)] {
        fake.journal().clear();
        let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
        command.args(["pull", "--runtime-endpoint", &socket, "quay.io/a:1"]).env("HOME", folder.path());
        command.env("PREPULL_CLOUD_CREDENTIALS", "off").stdout(Stdio::piped()).stderr(Stdio::piped());
        let pull = command.spawn().unwrap();
        fake.journal().wait_until(std::time::Duration::from_secs(30), |j| j.pulling() == 1).await.unwrap();
        let kill = Command::new("kill").args([&format!("-{signal}"), &pull.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = pull.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stderr(&output).contains(&format!("prepull: {word}; 0 of 1 images are present")), "{output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_is_no_failure() {
    let (_fake, socket, folder) = fake();
    std::fs::write(folder.path().join("l.yaml"), "images: []\n").unwrap();
    for command in [&["explain"][..], &["pull", "--runtime-endpoint", &socket]] {
        let output = prepull(folder.path(), &[command, &["-f", "l.yaml"]].concat());
        assert_eq!((output.status.code(), &*stdout(&output)), (Some(0), "the list has no images\n"), "{output:?}");
    }
    let output = prepull(folder.path(), &["explain", "-f", "l.yaml", "-o", "json"]);
    assert_eq!(json(&output), Value::Array(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_that_are_no_text_are_wrong_names_like_others() {
    use std::os::unix::ffi::OsStrExt as _;
    let (_fake, socket, folder) = fake();
    let bad = OsStr::from_bytes(b"\xff:1");
    for command in [&["explain", "-o", "json"][..], &["pull", "-o", "json", "--runtime-endpoint", &socket]] {
        let mut run = Command::new(env!("CARGO_BIN_EXE_prepull"));
        run.args(command).arg(bad).arg("quay.io/good:1").current_dir(folder.path()).env("HOME", folder.path());
        let output = run.env("PREPULL_CLOUD_CREDENTIALS", "off").output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let data = json(&output);
        let rows = data.as_array().unwrap_or_else(|| data["images"].as_array().unwrap());
        assert_eq!(rows[0]["image"], "\u{fffd}:1");
        assert!(rows[0]["valid"] == false || rows[0]["state"] == "Invalid", "{rows:#?}");
        assert!(rows[1]["valid"] == true || rows[1]["state"] == "Present", "{rows:#?}");
    }
}

#[test]
fn commas_separate_files_in_the_environment_only() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |user: &str| {
        format!(
            "{{kind: Secret, apiVersion: v1, metadata: {{name: {user}}}, type: kubernetes.io/dockercfg, stringData: {{.dockercfg: '{{\"q.io\":{{\"username\":\"{user}\",\"password\":\"p\"}}}}'}}}}"
        )
    };
    for name in ["a", "b", "a,b"] {
        std::fs::write(folder.path().join(name), secret(&name.replace(',', "-and-"))).unwrap();
    }
    let users = |flags: &[&str], variable: &str| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_prepull"));
        run.args(["explain", "-o", "json", "q.io/x:1"]).args(flags).current_dir(folder.path());
        run.env("HOME", folder.path()).env("PREPULL_KUBELET_ROOT", folder.path()).env("PREPULL_PULL_SECRET", variable);
        // a list that is there for another command does not stop this one
        let output = run.env("PREPULL_FILE", "absent.yaml").env("PREPULL_CLOUD_CREDENTIALS", "off").output().unwrap();
        let all = json(&output);
        let user = |c: &Value| c["username"].as_str().unwrap().to_owned();
        all[0]["credentials"].as_array().unwrap().iter().map(user).collect::<Vec<_>>()
    };
    assert_eq!(users(&[], "a,b"), ["a", "b"]);
    assert_eq!(users(&["--pull-secret", "a,b"], ""), ["a-and-b"]);
    assert_eq!(users(&["--pull-secret", "b"], "a"), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_ends_when_its_runtime_does() {
    let (mut fake, socket, folder) = fake();
    fake.script().add(support::script::Rule::hang(Method::PullImage));
    let (journal, at) = (fake.journal().clone(), folder.path().to_owned());
    let pull = std::thread::spawn(move || prepull(&at, &["pull", "--runtime-endpoint", &socket, "quay.io/a:1"]));
    journal.wait_until(std::time::Duration::from_secs(30), |j| j.pulling() == 1).await.unwrap();
    fake.close();
    let output = pull.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("the container runtime closed the connection"), "{output:?}");
}

#[test]
fn pull_gives_up_on_an_absent_runtime_when_its_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["pull", "--retry-for", "1s", "--runtime-endpoint", "/nowhere/cri.sock", "quay.io/a:1"];
    let output = prepull(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("there is no such socket"), "{output:?}");
}

#[test]
fn pull_without_a_runtime_says_so_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let output = prepull(folder.path(), &["pull", "--runtime-endpoint", "/nowhere/cri.sock", "quay.io/a:1"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "prepull: cannot connect to the container runtime at unix:///nowhere/cri.sock: there is no such socket; is the runtime running, and its folder mounted?\n"
    );
    assert_eq!(prepull(folder.path(), &["pull"]).status.code(), Some(2));
    for (flags, remedy) in [
        (&["agent"][..], "give --images FILE, --configmap NAMESPACE/NAME or --configmap-selector"),
        (&["agent", "--images", "x", "--configmap", "a/b"], "leave one out"),
        (&["agent", "--images", "x", "--node-writes", "label"], "use --configmap, or leave it out"),
        (&["agent", "--configmap-selector", "a=b"], "add --configmap-namespace"),
        (&["agent", "--configmap", "a"], "write NAMESPACE/NAME"),
    ] {
        let output = prepull(folder.path(), flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(remedy), "{flags:?}: {output:?}");
    }
    assert_eq!(prepull(folder.path(), &["pull", "--runtime-endpoint", "tcp://x", "a"]).status.code(), Some(2));
}

/// Some servers of images are no runtimes, and know only what the kubelet needs of them.
#[tokio::test(flavor = "multi_thread")]
async fn pull_needs_no_more_than_image_status_and_pull_image() {
    let (fake, socket, folder) = fake();
    for method in [Method::Version, Method::Status, Method::ListImages, Method::ImageFsInfo] {
        fake.script().add(support::script::Rule::fail(method, tonic::Code::Unimplemented, "unknown method"));
    }
    fake.put(["quay.io/here:1"]).unwrap();
    fake.offer("quay.io/forgotten:1", Offer { forgotten: true, ..Offer::default() });
    let images = ["quay.io/here:1", "quay.io/new:1", "quay.io/forgotten:1"];
    let arguments = [&["pull", "-o", "json", "--runtime-endpoint", &socket][..], &images].concat();
    let output = prepull(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let status = json(&output);
    for (row, image) in status["images"].as_array().unwrap().iter().zip(images) {
        assert_eq!((row["image"].as_str(), row["state"].as_str()), (Some(image), Some("Present")), "{row:#}");
    }
    let mut pulled: Vec<_> = fake.journal().calls(Method::PullImage).into_iter().map(|c| c.image).collect();
    pulled.sort();
    assert_eq!(pulled, ["quay.io/forgotten:1", "quay.io/new:1"]);

    // nothing of CRI version 1 at all is another thing
    fake.script().add(support::script::Rule::fail(Method::ImageStatus, tonic::Code::Unimplemented, "unknown service"));
    let output = prepull(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("does not answer as a CRI v1 runtime"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_sent_as_they_are_written() {
    let (fake, socket, folder) = fake();
    let digest = format!("sha256:{}", "a".repeat(64));
    let names = [
        ("busybox".to_owned(), "busybox:latest".to_owned()),
        ("LOCALDOMAIN/app:1".to_owned(), "LOCALDOMAIN/app:1".to_owned()),
        ("[::1]:5000/app".to_owned(), "[::1]:5000/app:latest".to_owned()),
        ("reg_istry.example.com/app".to_owned(), "reg_istry.example.com/app:latest".to_owned()),
        (format!("quay.io/app:1@{digest}"), format!("quay.io/app:1@{digest}")),
        ("test.com:5000".to_owned(), "test.com:5000".to_owned()),
    ];
    for (written, sent) in names {
        fake.journal().clear();
        let output = prepull(folder.path(), &["pull", "--runtime-endpoint", &socket, &written]);
        assert_eq!(output.status.code(), Some(0), "{written}: {output:?}");
        let pulled: Vec<_> = fake.journal().calls(Method::PullImage).into_iter().map(|c| c.image).collect();
        assert_eq!(pulled, [sent]);
    }
    fake.journal().clear();
    let wrong = ["", " ", "a".repeat(64).leak(), "Foo/bar", "quay.io/a:b c", "--", "quay.io/ä"];
    let arguments = [&["pull", "-o", "json", "--runtime-endpoint", &socket, "--"][..], &wrong].concat();
    let output = prepull(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let status = json(&output);
    for row in status["images"].as_array().unwrap() {
        assert!(row["state"] == "Invalid" || row["image"] == "Foo/bar", "{row:#}");
    }
    assert_eq!(status["images"].as_array().unwrap().len(), wrong.len());
}

#[test]
fn an_empty_variable_is_an_absent_one() {
    let folder = tempfile::tempdir().unwrap();
    let run = |value: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
        command.args(["explain", "busybox"]).current_dir(folder.path()).env("HOME", folder.path());
        for name in ["DOCKER_CONFIG", "PULL_SECRET", "CLOUD_CREDENTIALS", "KUBELET_ROOT", "OUTPUT", "OFFLINE"] {
            command.env(format!("PREPULL_{name}"), value);
        }
        command.output().unwrap()
    };
    assert_eq!(run("").status.code(), Some(0), "{:?}", run(""));
    assert_eq!(run("nonsense").status.code(), Some(2), "{:?}", run("nonsense"));
}
