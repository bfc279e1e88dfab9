//! `prepull check` with what people have: manifests, pipes, files of other tools and empty files.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use super::{fake, json, prepull, stderr, stdout, support::journal::Method};

fn check(text: &str, format: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("l.yaml"), text).unwrap();
    prepull(folder.path(), &["check", "-f", "l.yaml", "-o", format])
}

fn piped(folder: &Path, text: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prepull"));
    command.args(["check", "-f", "-"]).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_manifest_that_the_readme_tells_to_edit_is_checked() {
    let base = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/base/list.yaml");
    let folder = tempfile::tempdir().unwrap();
    let output = prepull(folder.path(), &["check", "-f", base]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("ConfigMap prepull/prepull (line 8): revision "), "{output:?}");
    assert!(stdout(&output).contains("0 images, 0 invalid, 0 problems"), "{output:?}");

    let edited = std::fs::read_to_string(base).unwrap().replace("images: []", "images: [nginx:1, Bad//]");
    let report = json(&check(&edited, "json"));
    let line = edited.lines().position(|line| line.contains("Bad//")).unwrap() + 1;
    assert_eq!(report["problems"][0]["line"], line, "{report:#}");
    assert_eq!(report["problems"][0]["column"], edited.lines().nth(line - 1).unwrap().find("Bad").unwrap() + 1);
    assert_eq!(report["images"][0]["line"], line);
    assert_eq!(report["configMaps"][0]["name"], "prepull/prepull");
    assert_eq!(report["revision"], report["configMaps"][0]["revision"]);
}

#[test]
fn several_config_maps_in_one_file_are_one_report() {
    let map = |name: &str, list: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  images.yaml: |\n    {list}\n---\n"
        )
    };
    let text = map("a", "images: [nginx:1, {image: 'b:1', pin: yes}]")
        + "apiVersion: v1\nkind: Service\n---\n"
        + &map("b", "images: [redis:7, Bad//]");
    let output = check(&text, "table");
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    for part in [
        "l.yaml:6:43: images[1].pin: expected true or false, got the text \"yes\"; write `pin: true`",
        "l.yaml:16:23: images[1]: `Bad//`: this is not an image name",
        "ConfigMap a (line 6): revision",
        "ConfigMap b (line 16): revision",
        "NOTE: ignored, because only lists of ConfigMaps are read: Service (line 8)",
        "l.yaml: 4 images, 2 invalid, 2 problems",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    assert_eq!(told.matches("this is not an image name").count(), 1, "the table does not repeat it: {told}");
}

#[test]
fn standard_input_and_pipes_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let output = piped(folder.path(), "images: [nginx:1]\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("standard input: 1 image, 0 invalid, 0 problems"), "{output:?}");
    let output = piped(folder.path(), "images: [Bad//]\n");
    assert!(stdout(&output).starts_with("standard input:1:10: images[0]: "), "{output:?}");
    let mut substituted = Command::new("bash");
    substituted.args(["-c", "\"$0\" check -f <(echo 'images: [nginx:1]')", env!("CARGO_BIN_EXE_prepull")]);
    let output = substituted.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(stdout(&output).contains("1 image, 0 invalid, 0 problems"), "{output:?}");
}

#[test]
fn an_empty_file_does_not_pass() {
    for text in ["", "\n", "# nothing\n---\n"] {
        let output = check(text, "table");
        assert_eq!(output.status.code(), Some(1), "{text:?}: {output:?}");
        let wanted = "the list is empty; write `images: []` if no image is wanted";
        assert!(stdout(&output).contains(wanted), "{text:?}: {output:?}");
    }
    assert_eq!(check("images: []\n", "table").status.code(), Some(0));
    assert_eq!(piped(&std::env::temp_dir(), "").status.code(), Some(1), "a command before the pipe has failed");
}

#[test]
fn a_file_of_another_tool_is_named_and_its_list_is_printed() {
    let output = check("nginx:1.25\nredis:7\n", "table");
    assert_eq!(output.status.code(), Some(1));
    let told = stdout(&output);
    assert!(told.contains("and this is text with one image name a line"), "{told}");
    assert!(told.contains("\nthe list that this probably means:\n\nimages:\n- nginx:1.25\n- redis:7\n"), "{told}");
    let report = json(&check("apiVersion: v1\nkind: Pod\nspec: {containers: [{image: 'nginx:1.25'}]}\n", "json"));
    assert_eq!(report["suggestion"], "images:\n- nginx:1.25\n");
    assert_eq!(json(&check("images: [Bad//]\n", "json"))["suggestion"], Value::Null);
}

#[test]
fn a_doubtful_name_is_a_note() {
    let digits = "0123456789abcdef".repeat(4);
    let output = check(&format!("images:\n- sha256:{digits}\n- my_registry.example.com/x:1\n"), "table");
    assert_eq!(output.status.code(), Some(0), "the kubelet takes these names as well: {output:?}");
    let told = stdout(&output);
    assert!(told.contains("NOTE: line 2: ") && told.contains("this is probably an image ID"), "{told}");
    assert!(told.contains("NOTE: line 3: ") && told.contains("has an underscore"), "{told}");
    let folder = tempfile::tempdir().unwrap();
    let explained = json(&prepull(folder.path(), &["explain", "--offline", "-o", "json", &format!("sha256:{digits}")]));
    assert!(explained[0]["problems"][0].as_str().unwrap().contains("probably an image ID"), "{explained:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_reads_config_maps_too() {
    let (fake, socket, folder) = fake();
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  images.yaml: |\n    images: ['quay.io/a:1']\n---\nkind: Secret\napiVersion: v1\n";
    std::fs::write(folder.path().join("l.yaml"), text).unwrap();
    let output = prepull(folder.path(), &["pull", "-f", "l.yaml", "--runtime-endpoint", &socket]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        stderr(&output).contains("ignored, because only lists of ConfigMaps are read: Secret (line 8)"),
        "{output:?}"
    );
    assert_eq!(fake.journal().count(Method::PullImage), 1);
}
