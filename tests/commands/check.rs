//! `prepull check`, what no command reads, and `make test`.

use std::process::Command;

use super::{json, prepull, stderr, stdout, support};

#[test]
fn check_prints_every_problem_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("images.yaml");
    std::fs::write(&list, "images:\n  - quay.io/a:1\n  - image: quay.io/b:1\n    imagePullPolicy: Sometimes\n")
        .unwrap();
    let output = prepull(folder.path(), &["check", "-f", "images.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output)
            .contains("images.yaml:4:22: images[1].imagePullPolicy: `Sometimes` is no pull policy; write one of"),
        "{output:?}"
    );
    let report = json(&prepull(folder.path(), &["check", "-f", "images.yaml", "-o", "json"]));
    assert_eq!(report["problems"][0]["line"], 4);
    assert_eq!(report["problems"][0]["column"], 22);
    assert_eq!(report["problems"][0]["path"], "images[1].imagePullPolicy");
    assert_eq!(report["images"][0]["valid"], true);
    assert_eq!(report["images"][1]["valid"], false);

    std::fs::write(&list, "images: [quay.io/a:1]\n").unwrap();
    let output = prepull(folder.path(), &["check", "-f", "images.yaml"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("1 image, 0 invalid, 0 problems"), "{output:?}");
    let output = prepull(folder.path(), &["check", "-f", "absent.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("the list absent.yaml does not exist"), "{output:?}");
    assert_eq!(prepull(folder.path(), &["check"]).status.code(), Some(2));
}

#[test]
fn check_says_what_every_entry_means() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\
limits: {parallelPulls: 2, pullTimeout: 90s, maxPinnedSize: 20Gi, spread: 30s}
images:
  - image: quay.io/a:latest
    refreshInterval: 10m
    pullTimeout: 1h30m
    runtimeHandler: kata
    pin: true
    nodeSelector: {gpu: h100, zone: a}
    nodeAffinity:
      nodeSelectorTerms:
        - matchExpressions: [{key: arch, operator: In, values: [arm64, amd64]}, {key: spot, operator: DoesNotExist}]
        - matchFields: [{key: metadata.name, operator: In, values: [n1]}]
  - quay.io/b:1
  - {image: 'quay.io/b:1', priority: 5}
";
    std::fs::write(folder.path().join("l.yaml"), text).unwrap();
    let output = prepull(folder.path(), &["check", "-f", "l.yaml"]);
    assert_eq!(output.status.code(), Some(0), "notes are no problems: {output:?}");
    let told = stdout(&output);
    for part in [
        "asks again every 10m",
        "pull timeout 1h30m",
        "runtime handler kata",
        "on nodes with gpu=h100 and zone=a",
        "on nodes with arch In (arm64 amd64) and spot DoesNotExist, or with metadata.name In (n1)",
        "one pull with line 13",
        "limits: parallelPulls 2, spread 30s, maxDiskUsage 80%, resumeDiskUsage 75%, maxPinnedSize 20Gi, pullTimeout 1m30s, stallTimeout 2m",
        ", pinned",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    assert!(!told.contains("is accepted and has no effect"), "{told}");
    let report = json(&prepull(folder.path(), &["check", "-f", "l.yaml", "-o", "json"]));
    assert_eq!(report["images"][0]["refreshInterval"], "10m");
    assert_eq!(report["images"][0]["nodeSelector"]["zone"], "a");
    assert_eq!(report["images"][0]["nodeSelectorTerms"][0]["matchExpressions"][1]["operator"], "DoesNotExist");
    assert_eq!(report["images"][2]["mergesWith"], 13);
    assert_eq!(report["limits"]["maxPinnedSize"], "20Gi");
    assert_eq!(report["images"][0]["pin"], true);
    assert_eq!(report["notes"].as_array().unwrap().len(), 0);

    std::fs::write(folder.path().join("l.yaml"), "defaults: {nodeSelector: {gpu: true}}\nimages: [quay.io/a:1]\n")
        .unwrap();
    let output = prepull(folder.path(), &["check", "-f", "l.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("cannot be used: `defaults.nodeSelector` (line 1) has a problem"), "{output:?}");
}

#[test]
fn what_is_no_file_is_refused_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["check", "explain", "pull"] {
        let output = prepull(folder.path(), &[command, "-f", "/dev/zero"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let wanted = "prepull: the list /dev/zero is a device, not a file; name a file that has the list\n";
        assert_eq!(stderr(&output), wanted);
    }
}

/// The sentence says what is missing; the tests that need it are left out by name.
#[test]
fn make_test_goes_on_where_nothing_can_be_installed() {
    let folder = tempfile::tempdir().unwrap();
    for program in ["bash", "make", "true"] {
        let Some(path) = support::parts::find(program) else {
            println!("there is no {program} here: nothing to test");
            return;
        };
        std::os::unix::fs::symlink(path, folder.path().join(program)).unwrap();
    }
    let mut make = Command::new(folder.path().join("make"));
    make.args(["test", "CARGO=true"]).current_dir(env!("CARGO_MANIFEST_DIR")).env("PATH", folder.path());
    let output = make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    if !stderr(&output).is_empty() {
        assert!(stderr(&output).contains("there is no apt-get here: install "), "{output:?}");
    }
}
