//! Image names and default policies against the cases in `tests/vectors`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use prepull::image_ref::{ImageRef, PullPolicy};
use serde::Deserialize;

fn cases<T: serde::de::DeserializeOwned>(file: &str) -> Vec<T> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<T> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(!cases.is_empty(), "{path} has no case");
    cases
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NameCase {
    input: String,
    valid: bool,
    registry: Option<String>,
    repository: Option<String>,
    tag: Option<String>,
    digest: Option<String>,
    canonical: Option<String>,
    lookup_key: Option<String>,
    cri_image: Option<String>,
}

#[test]
fn names_are_read_as_the_kubelet_reads_them() {
    for case in cases::<NameCase>("image-names.json") {
        let parsed = ImageRef::parse(&case.input);
        assert_eq!(parsed.is_ok(), case.valid, "{:?}: {parsed:?}", case.input);
        let Ok(image) = parsed else { continue };
        let input = &case.input;
        assert_eq!(Some(image.registry().as_str()), case.registry.as_deref(), "registry of {input:?}");
        assert_eq!(Some(image.repository()), case.repository.as_deref(), "repository of {input:?}");
        assert_eq!(image.tag(), case.tag.as_deref(), "tag of {input:?}");
        assert_eq!(
            image.digest().map(prepull::image_ref::Digest::as_str),
            case.digest.as_deref(),
            "digest of {input:?}"
        );
        assert_eq!(Some(image.canonical()), case.canonical, "canonical name of {input:?}");
        assert_eq!(Some(image.lookup_key()), case.lookup_key, "lookup key of {input:?}");
        assert_eq!(Some(image.cri_image()), case.cri_image, "what the runtime is sent for {input:?}");
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyCase {
    image: String,
    expected_policy: String,
}

#[test]
fn default_policies_are_the_api_servers() {
    for case in cases::<PolicyCase>("default-policy.json") {
        assert_eq!(PullPolicy::default_for(&case.image).as_str(), case.expected_policy, "{:?}", case.image);
    }
}
