use super::rules::RULES;
use super::*;
use crate::image_ref::ImageRef;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    image: String,
    grpc_code: String,
    grpc_message: String,
    expected_reason: String,
    expected_message: String,
}

fn code(name: &str) -> Code {
    (0..17).map(Code::from_number).find(|c| c.as_str() == name).unwrap_or_else(|| panic!("no code {name}"))
}

fn image(name: &str) -> ImageRef {
    ImageRef::parse(name).unwrap()
}

fn classify(image: &ImageRef, code: Code, text: &str) -> ErrorClass {
    diagnose(image, code, text).class
}

#[test]
fn reasons_and_messages_are_the_kubelets() {
    let cases: Vec<Mapping> =
        serde_json::from_str(include_str!("../../../../tests/vectors/error-mapping.json")).unwrap();
    for case in cases {
        let (reason, message) = kubelet_words(&case.image, code(&case.grpc_code), &case.grpc_message);
        assert_eq!(reason, case.expected_reason, "{}", case.grpc_message);
        assert_eq!(message, case.expected_message, "{}", case.grpc_message);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Recorded {
    runtime: String,
    case: String,
    code: String,
    message: String,
    expected_class: String,
    expected_cause: Option<String>,
}

/// What is recorded, with the code and the image that it is about.
fn recorded() -> Vec<(Recorded, Code, ImageRef)> {
    let cases: Vec<Recorded> =
        serde_json::from_str(include_str!("../../../../tests/vectors/runtime-errors.json")).unwrap();
    assert!(cases.len() > 50, "only {} cases are recorded", cases.len());
    cases
        .into_iter()
        // a bound that the recorder's client set itself; this agent drops the call instead, and sees no answer
        .filter(|case| case.case != "deadline" || case.code != "Cancelled")
        .map(|case| {
            let number = (0..17).find(|n| Code::from_number(*n).as_str().replace("Canceled", "Cancelled") == case.code);
            let code = Code::from_number(number.unwrap_or_else(|| panic!("no code {}", case.code)));
            // the text's own name, so that it is taken out as it is in real life
            let named = case.message.split('"').nth(1).and_then(|name| ImageRef::parse(name).ok());
            (case, code, named.unwrap_or_else(|| image("127.0.0.1:5000/app:1")))
        })
        .collect()
}

#[test]
fn texts_recorded_from_real_runtimes() {
    let mut wrong = Vec::new();
    for (case, code, named) in recorded() {
        let found = diagnose(&named, code, &case.message);
        let wanted = (case.expected_class.as_str(), case.expected_cause.as_deref());
        if (found.class.as_str(), found.cause) != wanted {
            wrong.push(format!("{} {}: {found:?}, not {wanted:?}: {}", case.runtime, case.case, case.message));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_cause_has_a_recorded_text_and_a_remedy_of_one_sentence() {
    let recorded: Vec<_> = recorded().into_iter().filter_map(|(case, ..)| case.expected_cause).collect();
    for cause in RULES.iter().filter_map(|rule| rule.cause) {
        assert!(recorded.iter().any(|name| name == cause.name), "{} has no recorded text", cause.name);
        assert!(cause.remedy.ends_with('.') && cause.remedy.len() <= 200, "{}", cause.name);
    }
}

#[test]
fn a_known_cause_is_never_the_credentials_fault() {
    for (case, code, named) in recorded() {
        let found = diagnose(&named, code, &case.message);
        let refusal = matches!(found.class, ErrorClass::NotFound | ErrorClass::Unauthorized | ErrorClass::Unknown);
        assert_eq!(found.try_next_credential, refusal && found.cause.is_none(), "{}: {}", case.case, case.message);
    }
}

#[test]
fn the_same_words_mean_damage_while_a_layer_is_unpacked_and_a_lost_connection_while_it_comes() {
    let app = image("registry.example.com/app:v1");
    let unpack = "failed to extract layer sha256:1: mount callback failed on /tmp/m: unexpected EOF: unknown";
    let error = PullError::from_runtime(&app, Code::Unknown, unpack, &[]).after_bytes();
    assert!(error.class == ErrorClass::DamagedContent && !error.broke_off && !error.class.cools_registry_down());
    let network = "failed to copy: httpReadSeeker: failed open: unexpected EOF";
    let error = PullError::from_runtime(&app, Code::Unknown, network, &[]).after_bytes();
    assert!(error.class == ErrorClass::RegistryUnavailable && error.broke_off && error.class.cools_registry_down());
    let full =
        "failed to extract layer sha256:1: mount callback failed on /tmp/m: write /tmp/m/x: no space left on device";
    assert_eq!(classify(&app, Code::Unknown, full), ErrorClass::NoSpace);
}

#[test]
fn every_5xx_is_the_registrys_and_what_its_body_says_is_not_the_nodes() {
    let app = image("registry.example.com/app:v1");
    for status in 500..600 {
        for text in [
            format!(
                "unexpected status from HEAD request to https://registry.example.com/v2/app/manifests/v1: {status} "
            ),
            format!("unexpected status code https://registry.example.com/v2/app/blobs/sha256:1: {status} Strange"),
            format!(
                "pinging container registry registry.example.com: invalid status code from registry {status} (Odd)"
            ),
            format!("failed with status code [manifests v1]: {status}"),
        ] {
            assert_eq!(classify(&app, Code::Unknown, &text), ErrorClass::RegistryUnavailable, "{text}");
        }
    }
    for (status, class) in [
        ("500 Internal Server Error", ErrorClass::RegistryUnavailable),
        ("403 Forbidden", ErrorClass::Unauthorized),
        ("404 Not Found", ErrorClass::NotFound),
    ] {
        let text = format!("unexpected status from GET request to https://h/v2/: {status}\nno space left on device");
        assert_eq!(classify(&app, Code::Unknown, &text), class, "{text}");
    }
}

#[test]
fn the_runtimes_own_state_decides_over_other_words() {
    let app = image("registry.example.com/app:v1");
    for code in [Code::Unavailable, Code::Unimplemented] {
        assert_eq!(classify(&app, code, "x509: 503 no space left on device"), ErrorClass::RuntimeUnavailable);
    }
    let snapshotter = "failed to prepare: connection error: dial unix /run/x.sock: connect: no such file or directory";
    assert_eq!(classify(&app, Code::Unavailable, snapshotter), ErrorClass::RuntimeMisconfigured);
}

#[test]
fn a_status_that_is_asked_for_is_about_the_name_by_code_or_by_text() {
    for text in ["invalid reference format", "short-name \"app\" did not resolve to an alias and no registries"] {
        assert!(is_about_the_name(Code::Unknown, text), "{text}");
        assert_eq!(classify(&image("app"), Code::Unknown, text), ErrorClass::InvalidName, "{text}");
    }
    assert!(is_about_the_name(Code::NotFound, "") && is_about_the_name(Code::InvalidArgument, ""));
    assert!(!is_about_the_name(Code::Unavailable, "invalid reference format"));
    assert!(!is_about_the_name(Code::Unknown, "database is locked"));
}

#[test]
fn texts_of_cri_o() {
    let app = image("registry.example.com/app:v1");
    for (text, class) in [
        ("RegistryUnavailable: dial tcp 10.0.0.1:443: connect: connection refused", ErrorClass::RegistryUnavailable),
        (
            "SignatureValidationFailed: Source image rejected: A signature was required",
            ErrorClass::SignatureValidationFailed,
        ),
        (
            "unable to pull image: initializing source docker://registry.example.com/app:v1: reading manifest v1 in registry.example.com/app: manifest unknown",
            ErrorClass::NotFound,
        ),
        (
            "unable to pull image: initializing source docker://registry.example.com/app:v1: reading manifest v1 in registry.example.com/app: unauthorized: authentication required",
            ErrorClass::Unauthorized,
        ),
        (
            "unable to pull image: pinging container registry registry.example.com: Get \"https://registry.example.com/v2/\": dial tcp: lookup registry.example.com: no such host",
            ErrorClass::RegistryUnavailable,
        ),
        (
            "unable to pull image: pinging container registry registry.example.com: Get \"https://registry.example.com/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ErrorClass::Tls,
        ),
        ("short name mode is enforcing, but image name app returns ambiguous list", ErrorClass::InvalidName),
        (
            "unable to pull image: choosing an image from manifest list docker://registry.example.com/app:v1: no image found in manifest list for architecture amd64",
            ErrorClass::NoMatchingPlatform,
        ),
        (
            "unable to pull image: initializing source docker://registry.example.com/app:v1: pinging container registry registry.example.com: Get \"https://registry.example.com/v2/\": dial tcp: lookup registry.example.com: Temporary failure in name resolution",
            ErrorClass::RegistryUnavailable,
        ),
        (
            "initializing source docker://registry.example.com/app:v1: reading manifest v1 in registry.example.com/app: blob unknown to registry",
            ErrorClass::NotFound,
        ),
        (
            "copying system image from manifest list: writing blob: layer 1 (blob \"sha256:1\"): processing tar file(unexpected EOF): exit status 1",
            ErrorClass::DamagedContent,
        ),
        (
            "unsupported image-specific operation on artifact with type \"application/vnd.cncf.helm.config.v1+json\"",
            ErrorClass::UnsupportedArtifact,
        ),
        ("something new", ErrorClass::Unknown),
    ] {
        assert_eq!(classify(&app, Code::Unknown, text), class, "{text}");
    }
}

#[test]
fn the_code_decides_what_the_text_does_not() {
    let app = image("registry.example.com/app:v1");
    assert_eq!(classify(&app, Code::Unavailable, "anything: not found"), ErrorClass::RuntimeUnavailable);
    assert_eq!(classify(&app, Code::DeadlineExceeded, ""), ErrorClass::Timeout);
    assert_eq!(classify(&app, Code::NotFound, "gone"), ErrorClass::NotFound);
    assert_eq!(classify(&app, Code::Cancelled, "context canceled"), ErrorClass::Stalled);
}

#[test]
fn a_download_broke_off_only_where_bytes_had_come_and_the_connection_ended() {
    let app = image("registry.example.com/app:v1");
    let error = |text| PullError::from_runtime(&app, Code::Unknown, text, &[]);
    let reset = "failed to copy: read tcp 10.0.0.1:1->10.0.0.2:443: read: connection reset by peer";
    assert!(!error(reset).broke_off, "nobody said that bytes had come");
    assert!(error(reset).after_bytes().broke_off);
    assert!(error("failed to copy: httpReadSeeker: failed open: unexpected EOF").after_bytes().broke_off);
    assert!(!error("unexpected status: 503 Service Unavailable").after_bytes().broke_off, "the registry's answer");
    assert!(!error("dial tcp 10.0.0.2:443: connect: connection refused").after_bytes().broke_off, "nobody is there");
}

#[test]
fn a_name_does_not_decide() {
    for name in ["registry.example.com/x509:/", "evil.example.com/no-space/429"] {
        let Ok(app) = ImageRef::parse(name.trim_end_matches(":/")) else { continue };
        let text = format!("failed to resolve reference \"{}\": {}: not found", app.canonical(), app.canonical());
        assert_eq!(classify(&app, Code::NotFound, &text), ErrorClass::NotFound, "{text}");
    }
    let app = image("registry.example.com/toomanyrequests/certificate:unauthorized");
    let text = format!("pulling {}: something new", app.canonical());
    assert_eq!(classify(&app, Code::Unknown, &text), ErrorClass::Unknown);
}

#[test]
fn every_class_has_a_remedy_of_one_sentence() {
    for class in ErrorClass::ALL {
        assert!(class.remedy().ends_with('.'), "{class}");
        assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
    }
}

#[test]
fn an_echoed_secret_is_not_shown() {
    let error = PullError::from_runtime(
        &image("quay.io/app:1"),
        Code::Unknown,
        "denied for canary-pass, sorry",
        &["canary-pass"],
    );
    assert!(!error.message.contains("canary-pass"), "{}", error.message);
}

proptest::proptest! {
    #[test]
    fn hostile_texts_are_classified_without_panic(text in "\\PC{0,300}", number in -3i32..20) {
        let app = image("registry.example.com/app:v1");
        let error = PullError::from_runtime(&app, Code::from_number(number), &text, &[]);
        proptest::prop_assert!(!error.message.contains('\n'));
    }
}
