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
    assert_eq!(ImageRef::parse("https://quay.io/a"), Err(NameError::Scheme("https://".to_owned())));
    assert_eq!(ImageRef::parse("busybox "), Err(NameError::WhiteSpace));
    assert!(matches!(ImageRef::parse("quay.io/App"), Err(NameError::UpperCase(_))));
    let cut = |name: &str| ImageRef::parse(name).unwrap_err();
    assert_eq!(cut("busybox@sha256:abc"), NameError::DigestLength { wanted: 64, found: 3 });
    assert_eq!(cut("quay.io/a:1@sha256:"), NameError::DigestLength { wanted: 64, found: 0 });
    assert_eq!(cut("busybox@md5:abc"), NameError::DigestAlgorithm("md5".to_owned()));
    assert_eq!(cut(&format!("busybox@sha256:{}", "g".repeat(64))), NameError::DigestCharacters);
    for other in
        ["busybox@sha256", "busybox@", "-//", "Bad//", "Bad//@sha256:abc", "@sha256:abc", "busybox@a:b@sha256:abc"]
    {
        assert_eq!(cut(other), NameError::Malformed, "{other}");
    }
}

#[test]
fn a_refused_name_is_explained_by_its_cause() {
    for (name, message) in [
        (
            "docker-pullable://nginx@sha256:abc",
            "an image name does not start with a scheme such as `docker-pullable://`",
        ),
        ("containerd://0123abc", "an image name does not start with a scheme such as `containerd://`"),
        ("cri-o://quay.io/a:1", "an image name does not start with a scheme such as `cri-o://`"),
        ("HTTP://quay.io/a:1", "an image name does not start with a scheme such as `HTTP://`"),
        ("oci://quay.io/a:1", "an image name does not start with a scheme such as `oci://`"),
        ("my_registry:5000/x", "the registry host `my_registry` has an underscore"),
        ("my_registry.example.com:5000/x:1", "the registry host `my_registry.example.com` has an underscore"),
        ("registry.example.com./app:1", "the registry host `registry.example.com.` ends with a dot"),
        ("registry.example.com.:5000/app:1", "the registry host `registry.example.com.` ends with a dot"),
        ("registry.example.com:port/app:1", "the registry port `port` is not a number"),
        ("nginx.", "the image name ends with `.`"),
        ("nginx:", "the image name ends with `:`"),
        ("quay.io/a/", "the image name ends with `/`"),
        ("NGINX:1.25", "the repository `NGINX` has upper-case letters"),
        ("quay.io/Team/App:1", "the repository `Team/App` has upper-case letters"),
        ("nginx:1.0+build.5", "`1.0+build.5` is not a valid tag"),
        ("nginx:{{ .Values.tag }}", "the template expression `{{ .Values.tag }}` is not rendered"),
        ("nginx:${TAG}", "the template expression `${TAG}` is not rendered"),
        ("${REGISTRY}/nginx", "the template expression `${REGISTRY}` is not rendered"),
        ("nginx:$(TAG)", "the template expression `$(TAG)` is not rendered"),
        ("<registry>/nginx:1", "the template expression `<registry>` is not rendered"),
        ("nginx:<your tag>", "the template expression `<your tag>` is not rendered"),
        ("nginx:1.25,redis:7", "several image names are written here, separated by a comma"),
        ("nginx:1.25, redis:7,", "several image names are written here, separated by a comma"),
        ("nginx:1.25 redis:7", "several image names are written here, separated by white space"),
        ("nginx:1.25;redis:7", "several image names are written here, separated by a semicolon"),
        ("nginx redis,busybox", "several image names are written here, separated by commas and white space"),
        ("\u{201c}nginx:1.25\u{201d}", "the image name contains the quotation mark `\u{201c}`"),
        ("\"nginx:1.25\"", "the image name contains the quotation mark `\"`"),
        ("nginx:1.25\u{a0}", "the image name contains a non-breaking space (U+00A0)"),
        ("nginx\u{200b}:1.25", "the image name contains a zero-width space (U+200B)"),
        ("nginx\u{2013}slim", "the image name contains a typographic dash (U+2013)"),
        (
            "nginx:\u{441}1",
            "the image name contains the letter `\u{441}` (U+0441), which is not in the English alphabet",
        ),
        ("nginx\t", "the image name has white space in or around it"),
    ] {
        let error = ImageRef::parse(name).unwrap_err();
        assert_eq!(error.to_string(), message, "{name:?}");
        let whole = format!("{error}; {}", error.remedy());
        assert!(whole.len() <= 200, "{} bytes: {whole}", whole.len());
    }
}

#[test]
fn a_valid_name_that_is_probably_a_mistake_is_doubted() {
    let digits = "0123456789abcdef".repeat(4);
    for (name, doubt) in [
        (format!("sha256:{digits}"), Some("this is probably an image ID")),
        ("4bb46517cac3".to_owned(), Some("this is probably a short image ID")),
        (
            "my_registry.example.com/app:1".to_owned(),
            Some("the registry host `my_registry.example.com` has an underscore"),
        ),
        ("MyTeam/app:1".to_owned(), Some("`MyTeam` is read as a registry host")),
        ("hub.docker.com/nginx:1".to_owned(), Some("`hub.docker.com` is a website")),
        ("quay.io/repository/team/app".to_owned(), Some("`quay.io/repository/…` is the address of a web page")),
        ("quay.io/a:__TAG__".to_owned(), Some("the template expression `__TAG__` is probably not rendered")),
        (format!("nginx@sha256:{digits}"), None),
        ("nginx:1.25".to_owned(), None),
        ("my_team/app:1".to_owned(), None),
        ("localhost:5000/app".to_owned(), None),
        ("deadbeef".to_owned(), None),
    ] {
        let found = ImageRef::parse(&name).unwrap().doubt();
        assert_eq!(found.is_some(), doubt.is_some(), "{name}: {found:?}");
        if let (Some(found), Some(doubt)) = (found, doubt) {
            assert!(found.starts_with(doubt) && found.contains(". Fix: ") && found.len() <= 200, "{name}: {found}");
        }
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
