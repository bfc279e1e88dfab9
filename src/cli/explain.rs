//! `prepull explain`: how images are named and pulled. No runtime is needed.

use std::process::ExitCode;

use serde::Serialize;

use super::{
    NOT_SO,
    options::{CredentialArgs, OutputArgs, RuntimeArgs},
    output,
    table::table,
};
use crate::{
    error_text::one_line,
    image_ref::{ImageRef, PullPolicy},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Images, as a Pod would name them
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    _runtime: RuntimeArgs,
    #[command(flatten)]
    _credentials: CredentialArgs,
}

/// What is printed for one image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explained {
    image: String,
    valid: bool,
    error: Option<String>,
    registry: Option<String>,
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
    canonical: Option<String>,
    cri_image: Option<String>,
    image_pull_policy: &'static str,
    cloud_provider: Option<&'static str>,
    credentials: Vec<ExplainedCredential>,
    problems: Vec<String>,
}

/// One credential that would be tried.
#[derive(Debug, Serialize)]
struct ExplainedCredential {
    source: &'static str,
    origin: String,
    pattern: String,
    username: String,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let all: Vec<Explained> = args.images.iter().map(|image| explain(image)).collect();
    output::print(args.output.output, &all, |all| for_people(all))?;
    Ok(if all.iter().all(|e| e.valid) { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

fn explain(text: &str) -> Explained {
    let parsed = ImageRef::parse(text);
    let image = parsed.as_ref().ok();
    Explained {
        image: text.to_owned(),
        valid: image.is_some(),
        error: parsed.as_ref().err().map(|e| format!("{e}; {}", e.remedy())),
        registry: image.map(|i| i.registry().to_string()),
        repository: image.map(|i| i.repository().to_owned()),
        tag: image.and_then(|i| i.tag()).map(str::to_owned),
        digest: image.and_then(|i| i.digest()).map(ToString::to_string),
        canonical: image.map(ImageRef::canonical),
        cri_image: image.map(ImageRef::cri_image),
        image_pull_policy: PullPolicy::default_for(text).as_str(),
        cloud_provider: None,
        credentials: Vec::new(),
        problems: Vec::new(),
    }
}

fn for_people(all: &[Explained]) -> String {
    let rows: Vec<_> = all
        .iter()
        .map(|e| {
            let means = e.canonical.clone().or_else(|| e.error.clone()).unwrap_or_default();
            [one_line(&e.image), e.image_pull_policy.to_owned(), one_line(&means)]
        })
        .collect();
    table(["IMAGE", "POLICY", "MEANS"], &rows)
}
