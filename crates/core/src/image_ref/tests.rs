use super::*;
use proptest::prelude::*;

#[test]
fn keeps_what_was_written() {
    let image = ImageRef::parse("docker.io/debian").unwrap();
    assert_eq!(image.repository(), "library/debian");
    assert_eq!(image.canonical(), "docker.io/library/debian:latest");
    assert_eq!(image.cri_image(), "docker.io/debian:latest");
    assert_eq!(image.lookup_key(), "docker.io/library/debian");
}

#[test]
fn a_first_part_that_is_no_host_is_path() {
    let image = ImageRef::parse("reg_istry.example.com/app").unwrap();
    assert_eq!(image.registry().as_str(), "");
    assert_eq!(image.canonical(), "reg_istry.example.com/app:latest");
}

#[test]
fn a_digest_outranks_the_tag() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let image = ImageRef::parse(&format!("quay.io/app:1@{digest}")).unwrap();
    assert_eq!(image.canonical(), format!("quay.io/app@{digest}"));
    assert_eq!(image.cri_image(), format!("quay.io/app:1@{digest}"));
}

#[test]
fn qualified_means_that_the_text_names_its_registry() {
    let qualified = |text: &str| ImageRef::parse(text).unwrap().is_qualified();
    assert!(qualified("docker.io/library/busybox:1"));
    assert!(qualified("index.docker.io/busybox"));
    assert!(qualified("127.0.0.1:5000/app"));
    assert!(!qualified("busybox:1.36"));
    assert!(!qualified("grafana/grafana"));
}

#[test]
fn mistakes_get_a_word_of_their_own() {
    assert_eq!(ImageRef::parse(""), Err(NameError::Empty));
    assert_eq!(ImageRef::parse(&"a".repeat(64)), Err(NameError::ImageId));
    assert_eq!(ImageRef::parse("https://quay.io/a"), Err(NameError::Scheme("https://")));
    assert_eq!(ImageRef::parse("busybox "), Err(NameError::WhiteSpace));
    assert!(matches!(ImageRef::parse("quay.io/App"), Err(NameError::UpperCase(_))));
    let cut = |name: &str| ImageRef::parse(name).unwrap_err();
    assert_eq!(cut("busybox@sha256:abc"), NameError::DigestLength { wanted: 64, found: 3 });
    assert_eq!(cut("quay.io/a:1@sha256:"), NameError::DigestLength { wanted: 64, found: 0 });
    assert_eq!(cut("busybox@md5:abc"), NameError::DigestAlgorithm("md5".to_owned()));
    assert_eq!(cut(&format!("busybox@sha256:{}", "g".repeat(64))), NameError::DigestCharacters);
    for other in ["busybox@sha256", "busybox@", "Bad//@sha256:abc", "@sha256:abc", "busybox@a:b@sha256:abc"] {
        assert_eq!(cut(other), NameError::Malformed, "{other}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_a_canonical_name_is_a_fixed_point(text in "\\PC{0,90}") {
        if let Ok(image) = ImageRef::parse(&text)
            && !image.registry().as_str().is_empty() {
                let again = ImageRef::parse(&image.canonical()).unwrap();
                prop_assert_eq!(again.canonical(), image.canonical());
                prop_assert!(again.is_qualified());
            }
    }

    #[test]
    fn well_formed_names_parse(
        host in "[a-z][a-z0-9]{0,5}\\.[a-z]{2,3}(:[0-9]{1,5})?",
        path in "[a-z0-9]{1,8}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}){0,3}",
        tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
    ) {
        let image = ImageRef::parse(&format!("{host}/{path}:{tag}")).unwrap();
        prop_assert_eq!(image.registry().as_str(), host);
        prop_assert_eq!(image.repository(), path);
        prop_assert_eq!(image.tag(), Some(tag.as_str()));
    }
}
