//! Our part of the CRI against the whole of it, field by field: the proto file of the Go module k8s.io/cri-api.

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Arguments;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, field_descriptor_proto};
use support::{
    parts::{self, Missing},
    trials::trial,
};

/// The version that the subset follows.
const MODULE: &str = "k8s.io/cri-api@v0.35.4";

fn main() -> ExitCode {
    let go = parts::find("go").ok_or_else(|| Missing {
        part: "go".to_owned(),
        sentence: "Go is missing, so the CRI subset is not compared with the real one: install Go from Debian's golang or go.dev".to_owned(),
    });
    let trials = vec![trial("cri_subset_is_part_of_cri_api", go, |go| async move { compare(&go) })];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn compare(go: &Path) -> Result<()> {
    let folder = download(go)?.join("pkg/apis/runtime/v1");
    let theirs = compile(&folder, "api.proto")?;
    let ours = compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("proto"), "cri.proto")?;
    ensure!(ours.package == theirs.package, "package {:?} instead of {:?}", ours.package, theirs.package);
    let mut wrong = Vec::new();
    let their_messages = messages(&theirs);
    ensure!(ours.message_type.len() > 20, "only {} messages are compared", ours.message_type.len());
    for message in &ours.message_type {
        match their_messages.get(message.name()) {
            None => wrong.push(format!("{} is no message of CRI", message.name())),
            Some(their) => compare_message(message, their, &mut wrong),
        }
    }
    for service in &ours.service {
        let their = theirs.service.iter().find(|s| s.name() == service.name());
        let their = their.with_context(|| format!("{} is no service of CRI", service.name()))?;
        for method in &service.method {
            if !their.method.contains(method) {
                wrong.push(format!("{}.{} is not the same", service.name(), method.name()));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn compare_message(ours: &DescriptorProto, theirs: &DescriptorProto, wrong: &mut Vec<String>) {
    for field in &ours.field {
        let same = |their: &&FieldDescriptorProto| {
            their.name == field.name
                && their.number == field.number
                && their.r#type == field.r#type
                && their.type_name == field.type_name
                && label(their) == label(field)
        };
        if theirs.field.iter().find(same).is_none() {
            wrong.push(format!("{}.{} is not the same", ours.name(), field.name()));
        }
    }
    for nested in &ours.nested_type {
        match theirs.nested_type.iter().find(|n| n.name == nested.name) {
            None => wrong.push(format!("{}.{} does not exist", ours.name(), nested.name())),
            Some(their) => compare_message(nested, their, wrong),
        }
    }
}

fn label(field: &FieldDescriptorProto) -> bool {
    field.label() == field_descriptor_proto::Label::Repeated
}

fn messages(file: &FileDescriptorProto) -> BTreeMap<&str, &DescriptorProto> {
    file.message_type.iter().map(|m| (m.name(), m)).collect()
}

fn compile(folder: &Path, file: &str) -> Result<FileDescriptorProto> {
    let set = protox::compile([file], [folder])?;
    set.file.into_iter().find(|f| f.name() == file).context("nothing was compiled")
}

fn download(go: &Path) -> Result<PathBuf> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("go.mod"), "module prepull.dev/conformance\n")?;
    let output = Command::new(go).args(["mod", "download", "-json", MODULE]).current_dir(folder.path()).output()?;
    ensure!(output.status.success(), "go mod download {MODULE}: {}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(answer["Dir"].as_str().context("go says no folder")?.into())
}
