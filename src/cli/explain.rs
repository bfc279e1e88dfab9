//! `prepull explain`: how images are named and pulled, and with which credentials. No runtime is needed.

use std::{fmt::Write as _, process::ExitCode};

use serde::Serialize;

use super::{
    NOT_SO, WRONG_USAGE,
    images::{Asked, ImageArgs, NO_IMAGES},
    options::{CredentialArgs, OutputArgs, RuntimeArgs},
    output,
    pull::read_list,
};
use crate::{
    credentials::{
        Credential,
        lookup::{Credentials, Request},
    },
    error_text::one_line,
    image_ref::{ImageRef, PullPolicy},
    list::Entry,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    images: ImageArgs,
    /// Ask no plugin and no cloud
    #[arg(long, env = "PREPULL_OFFLINE")]
    offline: bool,
    #[command(flatten)]
    output: OutputArgs,
    /// Accepted, so that the agent's own settings serve here as well; no runtime is asked
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    credentials: CredentialArgs,
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

/// One credential that would be tried; never its password or token.
#[derive(Debug, Serialize)]
struct ExplainedCredential {
    source: &'static str,
    origin: String,
    pattern: String,
    username: String,
}

impl From<Credential> for ExplainedCredential {
    fn from(credential: Credential) -> Self {
        let Credential { source, origin, pattern, auth } = credential;
        Self { source: source.as_str(), origin, pattern, username: auth.username.clone() }
    }
}

/// One image to explain.
struct Question {
    text: String,
    image: Result<ImageRef, String>,
    policy: PullPolicy,
    /// What an entry of a list names that only a cluster has.
    in_cluster: Vec<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { images, offline, output, runtime: _, credentials } = args;
    let questions = match images.into_asked() {
        Err(wrong) => {
            output::note(&format!("prepull: {wrong}"));
            return Ok(ExitCode::from(WRONG_USAGE));
        }
        Ok(Asked::List(path)) => read_list(&path).await?.entries.iter().map(Question::of_entry).collect(),
        Ok(Asked::Images(images)) => images.into_iter().map(Question::of_text).collect::<Vec<_>>(),
    };
    let credentials = credentials.into_credentials();
    let mut all = Vec::with_capacity(questions.len());
    for question in questions {
        all.push(explain(question, &credentials, offline).await);
    }
    output::print(output.output, &all, |all| for_people(all))?;
    Ok(if all.iter().all(|e| e.valid) { ExitCode::SUCCESS } else { ExitCode::from(NOT_SO) })
}

impl Question {
    fn of_text(text: String) -> Self {
        let image = ImageRef::parse(&text).map_err(|e| format!("{e}; {}", e.remedy()));
        Self { image, policy: PullPolicy::default_for(&text), in_cluster: Vec::new(), text }
    }

    fn of_entry(entry: &Entry) -> Self {
        let spec = match &entry.spec {
            Ok(spec) => spec,
            Err(why) => return Self { image: Err(why.clone()), ..Self::of_text(entry.image.to_string()) },
        };
        let secrets = spec.image_pull_secrets.iter().map(|name| ("pull secret", name.as_str()));
        let account = spec.service_account_name.iter().map(|name| ("service account", &**name));
        let told = |(kind, name): (&str, &str)| {
            format!(
                "{kind} {name} is fetched by the agent in its cluster; give the secret's manifest by --pull-secret to see here what it does"
            )
        };
        Self {
            text: entry.image.to_string(),
            image: Ok(spec.image.clone()),
            policy: spec.policy,
            in_cluster: secrets.chain(account).map(told).collect(),
        }
    }
}

async fn explain(question: Question, credentials: &Credentials, offline: bool) -> Explained {
    let Question { text, image, policy, in_cluster } = question;
    let (error, image) = match image {
        Ok(image) => (None, Some(image)),
        Err(why) => (Some(why), None),
    };
    let mut problems = in_cluster;
    let mut found = Vec::new();
    if let Some(image) = &image {
        let request = Request { image, pull_secrets: &[], service_account_secrets: &[], offline };
        let lookup = credentials.lookup(request).await;
        problems.extend(lookup.problems);
        problems.extend(image.doubt());
        found = lookup.credentials.into_iter().map(Into::into).collect();
    } else {
        // a source that is broken as a whole is broken for every image
        problems.extend(credentials.source_problems().await);
    }
    let parts = image.as_ref();
    Explained {
        image: text,
        valid: parts.is_some(),
        error,
        registry: parts.map(|i| i.registry().to_string()),
        repository: parts.map(|i| i.repository().to_owned()),
        tag: parts.and_then(|i| i.tag()).map(str::to_owned),
        digest: parts.and_then(|i| i.digest()).map(ToString::to_string),
        canonical: parts.map(ImageRef::canonical),
        cri_image: parts.map(ImageRef::cri_image),
        image_pull_policy: policy.as_str(),
        cloud_provider: parts.and_then(|i| credentials.cloud_of(i)),
        credentials: found,
        problems,
    }
}

fn for_people(all: &[Explained]) -> String {
    if all.is_empty() {
        // names are never none, so it was a list
        return format!("{NO_IMAGES}\n");
    }
    let mut out = String::new();
    // writing into a String cannot fail
    for (n, e) in all.iter().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        let _ = writeln!(out, "{}", if e.image.is_empty() { "(empty)".to_owned() } else { one_line(&e.image) });
        if let Some(error) = &e.error {
            let _ = writeln!(out, "  invalid      {}", one_line(error));
        }
        if let (Some(canonical), Some(sent)) = (&e.canonical, &e.cri_image) {
            let _ = writeln!(out, "  means        {canonical}");
            if sent != canonical {
                let _ = writeln!(out, "  runtime gets {sent}");
            }
            let _ = writeln!(out, "  policy       {}", e.image_pull_policy);
            if let Some(cloud) = e.cloud_provider {
                let _ = writeln!(out, "  cloud        {cloud}");
            }
            if e.credentials.is_empty() {
                let _ = writeln!(out, "  credentials  none matches: one anonymous pull is made");
            }
        }
        for (n, c) in e.credentials.iter().enumerate() {
            let head = if n == 0 { "credentials" } else { "" };
            let user = if c.username.is_empty() {
                "no user name".to_owned()
            } else {
                format!("user {}", one_line(&c.username))
            };
            let (origin, pattern) = (one_line(&c.origin), one_line(&c.pattern));
            let _ = writeln!(out, "  {head:<12} {}. {} {origin}, key {pattern}, {user}", n + 1, c.source);
        }
        for (n, problem) in e.problems.iter().enumerate() {
            let head = if n == 0 { "problems" } else { "" };
            let _ = writeln!(out, "  {head:<12} {}", one_line(problem));
        }
    }
    out
}
