use super::*;
use crate::{error_class::PullError, image_ref::ImageRef, image_state::Stored, status::ImageStatus};

fn registry(host: &str) -> RegistryHost {
    ImageRef::parse(&format!("{host}/a")).unwrap().registry().clone()
}

fn pulled(size: u64) -> Outcome {
    Outcome::Pulled { stored: Stored { digest: "sha256:1".into(), size, pinned: false }, credential: None }
}

/// The page with what differs from run to run and from build to build masked.
fn masked(page: &str) -> String {
    let line = |line: &str| match line.split_once(' ') {
        Some((name, _)) if name.starts_with("process_") => format!("{name} [value]\n"),
        Some((name, _)) if name.contains("_timestamp_") => format!("{name} [time]\n"),
        Some((name, value)) if name.starts_with("prepull_build_info") => {
            format!("prepull_build_info{{revision=\"[revision]\",version=\"[version]\"}} {value}\n")
        }
        _ => format!("{line}\n"),
    };
    page.lines().map(line).collect()
}

#[test]
fn the_page_of_a_new_agent() {
    insta::assert_snapshot!(masked(&Metrics::new().unwrap().page(&Status::default()).unwrap()));
}

#[test]
fn the_page_of_a_busy_agent() {
    let mut metrics = Metrics::new().unwrap();
    let second = Duration::from_secs(1);
    metrics.list_reloaded(true);
    metrics.list_reloaded(false);
    metrics.credential_lookup(Source::PullSecret, lookup::Outcome::Found);
    metrics.cri_observer()("PullImage", "Unknown", second);
    metrics.turned(Duration::from_millis(2));
    metrics.first_warm(90 * second);
    metrics.pulling(&registry("a.example.com"));
    metrics.pulled(&registry("b.example.com:5000"), &pulled(1 << 20), 3 * second);
    metrics.downloaded(&registry("b.example.com:5000"), 1 << 20);
    let error = PullError::own(ErrorClass::RateLimited, "429");
    metrics.pulled(&registry("b.example.com:5000"), &Outcome::Failed(error), second);
    let error = PullError::own(ErrorClass::RegistryUnavailable, "connection reset by peer");
    metrics.pulled(&registry("b.example.com:5000"), &Outcome::BrokeOff(error), second);
    let image = |image: &str, state: &'static str, present: bool| ImageStatus {
        state,
        present,
        ..ImageStatus::empty(&image.into())
    };
    let mut waiting = image("b.example.com:5000/c:1", "Pending", false);
    waiting.wait = Some(Wait::Cooldown);
    let mut pinned = image("a.example.com/\"a\\b\n", "Present", true);
    pinned.pinned = true;
    let status = Status {
        warm: true,
        images: vec![
            pinned,
            waiting,
            image("b.example.com:5000/d:1", "BackOff", false),
            image("elsewhere:1", "NotForThisNode", false),
            image("BAD", "Invalid", false),
        ],
        pulls_in_flight: 1,
        lists_rejected: 1,
        cooldowns: vec![("b.example.com:5000".to_owned(), 12 * second)],
        image_fs_used_ratio: Some(0.5),
        ..Status::default()
    };
    insta::assert_snapshot!(masked(&metrics.page(&status).unwrap()));
}

#[test]
fn registries_beyond_the_bound_share_a_label() {
    let mut metrics = Metrics::new().unwrap();
    for n in 0..60 {
        metrics.pulled(&registry(&format!("r{n}.example.com")), &pulled(2), Duration::from_secs(1));
        metrics.downloaded(&registry(&format!("r{n}.example.com")), 2);
    }
    let page = metrics.page(&Status::default()).unwrap();
    assert!(page.contains("prepull_pulled_bytes_total{registry=\"other\"} 20"), "{page}");
    assert_eq!(page.matches("prepull_pulled_bytes_total{registry=").count(), MOST_REGISTRIES + 1);
}

#[test]
fn the_table_names_every_family_once_and_its_unit_where_the_name_has_one() {
    let mut metrics = Metrics::new().unwrap();
    metrics.pulling(&registry("a.example.com"));
    let made: BTreeSet<String> = metrics.registry.gather().iter().map(|f| f.name().to_owned()).collect();
    let named: Vec<String> = families::ALL.iter().map(|f| f.full_name()).collect();
    assert_eq!(named.len(), named.iter().collect::<BTreeSet<_>>().len());
    // a family without a series is not gathered: here only the one of listed images
    let missing: Vec<_> = named.iter().filter(|name| !made.contains(*name)).collect();
    assert_eq!(missing, ["prepull_image_present"]);
    assert_eq!(made.len() + 1, named.len(), "a family is made that the table does not have: {made:?}");
    for family in families::ALL {
        if let Some(unit) = family.unit() {
            let word = if unit == "ratio" { "from 0 to 1" } else { unit };
            assert!(family.help.to_lowercase().contains(word), "{} does not say its unit", family.name);
        }
    }
}
