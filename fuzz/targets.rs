//! What every text from outside must survive, whatever it says: one function for each parser of foreign input. The fuzzer drives them
//! with what it finds (`make fuzz`), and tests/fuzz_corpus.rs with the inputs that are kept in `corpus/`.
//!
//! Each states more than "no panic": what is told stays on one line and bounded, secrets stay out of it, and what was read once
//! reads the same again.
#![allow(clippy::missing_panics_doc, reason = "to panic is how a property is refuted")]

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use prepull::{
    clock::Moment,
    containerd,
    credentials::{
        Auth,
        cloud::{answer, challenge, names},
        docker_config::{self, Format},
        document,
        go_rules::{base64, duration, glob},
        keyring::{self, Key},
        plugin::{config, protocol},
        secret::manifest,
    },
    cri,
    desired::{Desired, SourcedList},
    error_class::{Code, PullError},
    error_text, fleet,
    image_ref::{Digest, ImageRef, PullPolicy},
    list::{ImageList, affinity::NodeFacts, foreign, manifest::Manifest},
    pins::{self, Change, Pinning, Record, Wanted},
    progress::document::Document,
    runtime::{StoreEvent, event_of, record_of},
    stock::{ListedImage, Observation, Stock, stored_of},
};
use prost::Message as _;
use secrecy::SecretString;

/// What is done with an input.
pub(crate) type Target = fn(&[u8]);

/// Name and body of every target.
pub(crate) const ALL: [(&str, Target); 14] = [
    ("image_name", image_name),
    ("list", list),
    ("docker_config", docker_config),
    ("secret_manifest", secret_manifest),
    ("plugin_config", plugin_config),
    ("plugin_answer", plugin_answer),
    ("auth_challenge", auth_challenge),
    ("error_text", error_text),
    ("cloud_answer", cloud_answer),
    ("cri_answer", cri_answer),
    ("containerd_answer", containerd_answer),
    ("fleet_answer", fleet_answer),
    ("manifest", manifest),
    ("go_rules", go_rules),
];

/// The most characters of a text from outside that a message may have, its own words and escapes included.
const MOST_TOLD: usize = 20_000;

/// Fit for a log line, a page and a terminal.
fn told(message: &str) {
    assert!(!message.chars().any(char::is_control), "a control character is told: {message:?}");
    assert!(message.len() < MOST_TOLD, "{} bytes are told", message.len());
}

/// Nothing of a login but its user name is told: it reads as one with the same name and other secrets. A search for the secret would
/// find one that is a word of the text itself.
fn no_secret(auth: &Auth) {
    let other =
        Auth { username: auth.username.clone(), password: "other".into(), identity_token: None, registry_token: None };
    assert_eq!(format!("{auth:?}"), format!("{other:?}"), "what is told of a login depends on its secrets");
}

/// An image name, its parts, and what is asked of registry and runtime with it.
pub(crate) fn image_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    PullPolicy::default_for(text);
    match ImageRef::parse(text) {
        Ok(image) => {
            assert_eq!(image.written(), text);
            let canonical = image.canonical();
            told(&canonical);
            told(&image.cri_image());
            image.lookup_key();
            names::provider_of(&image);
            names::registry_of(&image);
            if !image.registry().as_str().is_empty() {
                let again = ImageRef::parse(&canonical).expect("a canonical name is a name");
                assert_eq!(again.canonical(), canonical, "a canonical name stands for itself");
            }
        }
        Err(wrong) => {
            told(&wrong.to_string());
            told(wrong.remedy());
        }
    }
    let _ = Digest::parse(text);
}

/// A list, and what a node makes of it.
pub(crate) fn list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ImageList::parse(text) {
        Ok(list) => {
            list.problems.iter().for_each(|problem| told(&problem.to_string()));
            let list = SourcedList {
                source: "fuzz".into(),
                revision: prepull::list::revision(text).into(),
                namespace: Some("team".into()),
                selected: false,
                list: Arc::new(list),
            };
            // the same list twice is the same wish once
            let node = NodeFacts { name: "node-1".to_owned(), labels: Some([("a".to_owned(), "1".to_owned())].into()) };
            let once = Desired::merge(std::slice::from_ref(&list), &node);
            let twice = Desired::merge(&[list.clone(), list], &node);
            assert_eq!(once.targets.len(), twice.targets.len());
            let mut stock = Stock::new(true);
            stock.apply(once, Moment::default());
            stock.plan(Moment::default());
            told(&stock.warmth().reason);
        }
        Err(problem) => told(&problem.to_string()),
    }
    if let Some(manifest) = Manifest::read(text) {
        manifest.problems.iter().for_each(|problem| told(&problem.to_string()));
        manifest.notes.iter().for_each(|note| told(note));
        for listed in manifest.lists {
            match listed.list {
                Ok(list) => list.problems.iter().for_each(|problem| told(&problem.to_string())),
                Err(problem) => told(&problem.to_string()),
            }
        }
    }
    if let Some(meant) = foreign::list_meant(text) {
        assert!(ImageList::parse(&meant).is_ok(), "what is suggested is a list");
    }
}

/// A docker config, of a file, a Secret or a plugin.
pub(crate) fn docker_config(data: &[u8]) {
    for format in [Format::ConfigJson, Format::Legacy] {
        match docker_config::decode(data, format) {
            Ok(config) => {
                for entry in &config.entries {
                    no_secret(&entry.auth);
                }
                config.problems.iter().for_each(|problem| told(problem));
            }
            Err(wrong) => told(&wrong.to_string()),
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = docker_config::decode_auth(text);
    }
}

/// Secret manifests, several documents of YAML or JSON.
pub(crate) fn secret_manifest(data: &[u8]) {
    for document in document::documents(data) {
        if let Err(wrong) = document {
            told(&wrong.to_string());
        }
    }
    let (secrets, problems) = manifest::parse(data);
    for problem in &problems {
        told(problem);
    }
    for secret in secrets {
        told(&secret.origin());
        match secret.docker_config() {
            Ok(config) => config.entries.iter().for_each(|entry| no_secret(&entry.auth)),
            Err(wrong) => told(&wrong.to_string()),
        }
    }
}

/// A kubelet's CredentialProviderConfig.
pub(crate) fn plugin_config(data: &[u8]) {
    match config::parse(data) {
        Ok(providers) => {
            if let Err(wrong) = config::check_all(&providers) {
                told(&wrong.to_string());
            }
        }
        Err(wrong) => told(&wrong.to_string()),
    }
}

/// What an exec plugin wrote.
pub(crate) fn plugin_answer(data: &[u8]) {
    for version in protocol::ApiVersion::ALL {
        match protocol::response(version, data) {
            Ok(answer) => answer.auth.iter().for_each(|(key, auth)| {
                no_secret(auth);
                let _ = Key::normalise(key);
            }),
            Err(wrong) => told(&wrong.to_string()),
        }
    }
}

/// The challenge of a registry.
pub(crate) fn auth_challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match challenge::service(text, "acme.azurecr.io") {
        Ok(service) => assert!(text.contains(&service)),
        Err(wrong) => told(&wrong.to_string()),
    }
}

/// The error of a runtime or registry that repeats what it was sent.
pub(crate) fn error_text(data: &[u8]) {
    const SECRET: &str = "c4n4ry-p4ssw0rd";
    let Ok(text) = std::str::from_utf8(data) else { return };
    // the fuzzer decides where the secret stands: its mark is replaced by it
    let text = text.replace('\u{1}', SECRET);
    let image = ImageRef::parse("registry.example.com/team/app:v1").expect("a name");
    // one code for each text, or most of the time goes into cleaning the same text again; the fuzzer chooses it by the last byte
    let code = i32::from(data.last().copied().unwrap_or(0) % 17);
    let error = PullError::from_runtime(&image, Code::from_number(code), &text, &[SECRET]);
    told(&error.message);
    assert!(!error.message.contains(SECRET), "{} has the secret", error.message);
    let once = error_text::one_line(&text);
    told(&once);
    assert!(!error_text::clean(&text, &[SECRET]).contains(SECRET));
}

/// The answer of a cloud's metadata or token server, or of its registry, that repeats what it was sent.
pub(crate) fn cloud_answer(data: &[u8]) {
    const SECRET: &str = "c4n4ry-p4ssw0rd";
    let Ok(text) = std::str::from_utf8(data) else { return };
    let body = text.replace('\u{1}', SECRET).into_bytes();
    let secrets = vec![SecretString::from(SECRET)];
    let answer = answer::Answer::new(http::StatusCode::FORBIDDEN, http::HeaderMap::new(), body.into(), secrets);
    for line in [answer.refusal(), answer.scrubbed_body()] {
        told(&line);
        assert!(!line.contains(SECRET), "{line} has the secret");
    }
    answer.code();
}

/// What containerd says of its records and of what happens to them; and what would become of the pins.
pub(crate) fn containerd_answer(data: &[u8]) {
    if let Ok(envelope) = containerd::events::Envelope::decode(data)
        && let Some(StoreEvent::Named(name) | StoreEvent::Gone(name)) = event_of(&envelope)
    {
        Stock::new(true).is_listed(&name);
    }
    let Ok(answer) = containerd::images::ListImagesResponse::decode(data) else { return };
    let records: Vec<Record> = answer.images.into_iter().map(|image| record_of(image, 1)).collect();
    let wanted = records.iter().step_by(2).map(|record| Wanted {
        name: record.name.as_str().into(),
        digest: record.digest.as_str().into(),
        size: 1,
    });
    let pinning = Pinning { wanted: wanted.collect(), held: Vec::new(), complete: true, cap: Some(3) };
    let steps = pins::plan(&pinning, &records).steps.into_iter().chain(pins::take_back(&records));
    for step in steps {
        let of_it = || records.iter().filter(|record| record.name == step.record);
        assert!(of_it().any(|record| record.digest == step.digest), "nobody has {step:?}");
        match step.change {
            Change::Unpin => assert!(of_it().any(|record| record.ours), "{step:?} is somebody else's"),
            Change::Pin(_) => assert!(
                !records.iter().any(|record| record.digest == step.digest && record.pinned && !record.ours),
                "{step:?} changes what somebody else pinned"
            ),
        }
    }
}

/// What calls itself an agent, as `prepull status` reads it.
pub(crate) fn fleet_answer(data: &[u8]) {
    let answer = match fleet::Answer::parse(data) {
        Ok(answer) => answer,
        Err(wrong) => return told(&wrong),
    };
    let mut tally = fleet::Tally::default();
    for node in ["node-1", "node-2"] {
        let row = tally.add(&node.into(), &"pod".into(), &answer);
        told(&row.reason);
        assert_eq!(row.present + row.pulling + row.waiting + row.failing, row.images);
    }
    for image in tally.into_images() {
        told(&image.image);
        [image.class, image.message, image.remedy].into_iter().flatten().for_each(|text| told(&text));
        assert!(image.present + image.pulling + image.waiting + image.failing == image.nodes);
    }
}

/// What a runtime lists.
pub(crate) fn cri_answer(data: &[u8]) {
    if let Ok(answer) = cri::ImageStatusResponse::decode(data)
        && let Some(image) = answer.image
    {
        stored_of(&image.into(), "registry.example.com/team/app:v1");
    }
    let Ok(answer) = cri::ListImagesResponse::decode(data) else { return };
    let list = ImageList::parse("images: [registry.example.com/team/app:v1, nginx]").expect("a list");
    let list = SourcedList {
        source: "fuzz".into(),
        revision: "r".into(),
        namespace: None,
        selected: false,
        list: Arc::new(list),
    };
    let desired = Desired::merge(&[list], &NodeFacts::default());
    let observation = Observation::new(
        Moment::default(),
        Some(answer.images.into_iter().map(ListedImage::from).collect()),
        HashMap::new(),
    );
    let mut stock = Stock::new(true);
    stock.apply(desired, Moment::default());
    stock.looked_at(&observation, Moment::default());
    stock.plan(Moment::default());
    told(&stock.warmth().reason);
}

/// What a registry sends as a manifest.
pub(crate) fn manifest(data: &[u8]) {
    if let Document::Manifest(parts) = Document::read(data) {
        assert!(parts.len() <= 1025, "{} parts", parts.len());
        let digests: HashSet<_> = parts.iter().map(|part| &part.digest).collect();
        assert!(digests.len() == parts.len(), "a blob stands there twice: {parts:?}");
        assert!(parts.iter().all(|part| Digest::parse(part.digest.as_str()).is_ok()));
    }
}

/// The small grammars of Go that configurations are written in: base64, durations, globs and keys of registries.
pub(crate) fn go_rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = (base64::decode_padded(text), base64::decode_unpadded(text));
    let _ = duration::GoDuration::parse(text);
    let (pattern, name) = text.split_once('\n').unwrap_or((text, "registry.example.com/team/app"));
    glob::matches(pattern.as_bytes(), name.as_bytes());
    keyring::pattern_matches(pattern, name);
    if let Ok(key) = Key::normalise(pattern) {
        told(&key.to_string());
    }
}
