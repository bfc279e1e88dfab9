//! Cloud registries' names against the cases in `tests/vectors`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use prepull::{
    credentials::cloud::{
        CloudProvider,
        names::{AcrHost, EcrHost, google_pattern, is_ecr_public},
        provider_of,
    },
    image_ref::ImageRef,
};
use serde::Deserialize;

fn cases<T: serde::de::DeserializeOwned>(file: &str) -> Vec<T> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<T> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(!cases.is_empty(), "{path} has no case");
    cases
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EcrCase {
    image: String,
    host: String,
    is_ecr: bool,
    is_ecr_public: bool,
    account: Option<String>,
    region: Option<String>,
    partition_suffix: Option<String>,
    fips: bool,
}

#[test]
fn ecr_hosts() {
    for case in cases::<EcrCase>("ecr-urls.json") {
        let image = &case.image;
        let host = EcrHost::parse(&case.host);
        assert_eq!(host.is_some(), case.is_ecr, "{image}");
        assert_eq!(is_ecr_public(&case.host), case.is_ecr_public, "{image}");
        if let Some(host) = host {
            assert_eq!(Some(host.account), case.account, "{image}");
            assert_eq!(Some(host.region), case.region, "{image}");
            assert_eq!(Some(host.suffix), case.partition_suffix.as_deref(), "{image}");
            assert_eq!(host.fips, case.fips, "{image}");
        }
        // some cases are hosts that no image name can have
        let Ok(parsed) = ImageRef::parse(image) else { continue };
        let expected = match (case.is_ecr, case.is_ecr_public) {
            (true, _) => Some(CloudProvider::Ecr),
            (_, true) => Some(CloudProvider::EcrPublic),
            _ => None,
        };
        assert_eq!(provider_of(&parsed), expected, "{image}");
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GoogleCase {
    image: String,
    #[serde(rename = "match")]
    matches: bool,
    matched_patterns: Vec<String>,
}

#[test]
fn google_registries() {
    for case in cases::<GoogleCase>("gcr-match.json") {
        // the digests of some cases are cut short, and only the registry counts
        let registry = case.image.split('/').next().unwrap();
        let matched: Vec<String> = google_pattern(registry).into_iter().map(str::to_owned).collect();
        assert_eq!(matched, case.matched_patterns, "{}", case.image);
        assert_eq!(!matched.is_empty(), case.matches, "{}", case.image);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AcrCase {
    image: String,
    login_server: String,
    source_registry: String,
}

#[test]
fn acr_login_servers() {
    let mut compared = 0;
    for case in cases::<AcrCase>("acr-match.json") {
        // mirrors and custom suffixes come from azure.json, which only Azure's own plugin reads
        let from_azure_json = !case.source_registry.is_empty() || !case.login_server.contains(".azurecr.");
        if from_azure_json && !case.login_server.is_empty() {
            continue;
        }
        // The vector holds the rule of older plugins, which know no hyphens and no regional names. Such registries exist
        // (cloud-provider-azure#10720), so both are login servers here.
        let host = case.image.split('/').next().unwrap_or_default();
        if case.login_server.is_empty()
            && (host.contains('-') || host.contains(".geo."))
            && host.ends_with(".azurecr.io")
        {
            assert!(AcrHost::parse(&case.image).is_some(), "{}", case.image);
            continue;
        }
        let found = AcrHost::parse(&case.image).map(|host| host.login_server).unwrap_or_default();
        assert_eq!(found, case.login_server, "{}", case.image);
        compared += 1;
    }
    assert!(compared > 0, "no case was about the name alone");
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CloudCase {
    cloud: String,
    match_images: Vec<String>,
}

/// What a cloud's own plugin is configured for is what is recognised here, apart from a mirror that needs `azure.json`.
#[test]
fn every_pattern_of_the_clouds_plugins_is_recognised() {
    for case in cases::<CloudCase>("cloud-match-images.json") {
        for pattern in case.match_images.iter().filter(|pattern| *pattern != "mcr.microsoft.com") {
            let mut stars = ["123456789012", "eu-west-1"].into_iter();
            let host: String = pattern
                .split('.')
                .map(|label| if label == "*" { stars.next().unwrap() } else { label })
                .collect::<Vec<_>>()
                .join(".");
            let provider = provider_of(&ImageRef::parse(&format!("{host}/team/app:1")).unwrap());
            let expected = match (case.cloud.as_str(), pattern.contains('*')) {
                ("aws", true) => CloudProvider::Ecr,
                ("aws", false) => CloudProvider::EcrPublic,
                ("gcp", _) => CloudProvider::Gcp,
                ("azure", _) => CloudProvider::Acr,
                (other, _) => panic!("unknown cloud {other}"),
            };
            assert_eq!(provider, Some(expected), "{pattern} as {host}");
        }
    }
}
