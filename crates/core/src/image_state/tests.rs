use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{backoff::IMAGE, error_class::ErrorClass};

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

fn stored(digest: &str) -> Stored {
    Stored { digest: digest.into(), size: 1, pinned: false }
}

fn looked(found: Option<Stored>, policy: PullPolicy) -> Event {
    Event::Looked { found, policy }
}

fn failed(now: Moment) -> Event {
    let failures = IMAGE.failed(None, now);
    Event::Failed { error: PullError::own(ErrorClass::Unknown, "no"), failures, until: IMAGE.until(failures, 0.0) }
}

#[test]
fn a_missing_image_is_pulled_and_stays() {
    let state = step(ImageState::new(at(0)), looked(None, PullPolicy::IfNotPresent), at(1));
    assert!(matches!(state, ImageState::Pending { why: Wait::Queue, .. }), "{state:?}");
    let state = step(state, Event::Started, at(2));
    assert!(matches!(state, ImageState::Pulling { attempt: 1, .. }), "{state:?}");
    let state = step(state, Event::Pulled { stored: stored("sha256:1"), credential: None }, at(3));
    let state = step(state, looked(Some(stored("sha256:1")), PullPolicy::IfNotPresent), at(4));
    assert!(matches!(state, ImageState::Present { since, .. } if since == at(3)), "{state:?}");
    let state = step(state, looked(None, PullPolicy::IfNotPresent), at(5));
    assert!(matches!(state, ImageState::Pending { why: Wait::Queue, .. }), "a collected image comes back: {state:?}");
}

#[test]
fn failures_count_until_success() {
    let state = step(ImageState::new(at(0)), Event::Started, at(0));
    let state = step(state, failed(at(1)), at(1));
    let state = step(state, Event::Started, at(11));
    assert!(matches!(state, ImageState::Pulling { attempt: 2, .. }), "{state:?}");
    let state = step(state, Event::Pulled { stored: stored("sha256:1"), credential: None }, at(12));
    let state = step(step(state, looked(None, PullPolicy::IfNotPresent), at(13)), Event::Started, at(14));
    assert!(matches!(state, ImageState::Pulling { attempt: 1, .. }), "success ends the row: {state:?}");
}

#[test]
fn never_is_missing_or_present_and_nothing_else() {
    let state = step(ImageState::new(at(0)), looked(None, PullPolicy::Never), at(1));
    assert!(matches!(state, ImageState::Missing { .. }), "{state:?}");
    let state = step(state, looked(Some(stored("sha256:1")), PullPolicy::Never), at(2));
    assert!(matches!(state, ImageState::Present { .. }), "{state:?}");
}

#[test]
fn always_asks_the_registry_even_when_present() {
    let state = step(ImageState::new(at(0)), looked(Some(stored("sha256:1")), PullPolicy::Always), at(1));
    assert!(matches!(state, ImageState::Pending { why: Wait::Queue, .. }), "{state:?}");
}

#[test]
fn an_interrupted_pull_is_nobodys_failure() {
    let state = step(step(ImageState::new(at(0)), Event::Started, at(1)), Event::Interrupted, at(2));
    assert!(matches!(state, ImageState::Pending { why: Wait::Runtime, failures: None, .. }), "{state:?}");
}

#[test]
fn a_download_that_broke_off_is_no_failure_and_waits_for_its_turn_alone() {
    let before = step(ImageState::new(at(0)), Event::Started, at(1));
    let Event::Failed { error, failures, .. } = failed(at(2)) else { unreachable!() };
    let state = step(before, Event::BrokeOff { error: error.clone() }, at(2));
    assert_eq!(state, ImageState::Pending { why: Wait::Queue, since: at(2), failures: None });
    let second = ImageState::Pulling { attempt: 2, started: at(3), failures: Some(failures), answered: false };
    let again = step(step(second, Event::BrokeOff { error }, at(4)), Event::Started, at(4));
    assert!(matches!(again, ImageState::Pulling { attempt: 2, .. }), "the same attempt goes on: {again:?}");
}

fn any_policy() -> impl Strategy<Value = PullPolicy> {
    prop_oneof![Just(PullPolicy::Always), Just(PullPolicy::IfNotPresent), Just(PullPolicy::Never)]
}

fn any_event() -> impl Strategy<Value = Event> {
    let found = || proptest::option::of(prop_oneof![Just(stored("sha256:1")), Just(stored("sha256:2"))]);
    prop_oneof![
        (found(), any_policy()).prop_map(|(found, policy)| Event::Looked { found, policy }),
        (found(), any_policy()).prop_map(|(found, policy)| Event::Forgiven { policy, found }),
        Just(Event::Held(Wait::Queue)),
        Just(Event::Held(Wait::Cooldown)),
        Just(Event::Started),
        Just(Event::Answered),
        Just(Event::Pulled { stored: stored("sha256:1"), credential: None }),
        Just(failed(at(7))),
        Just(Event::Interrupted),
        Just(match failed(at(7)) {
            Event::Failed { error, .. } => Event::BrokeOff { error },
            other => other,
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_not_for_pulling_never_moves(events in proptest::collection::vec(any_event(), 0..20)) {
        for fixed in [ImageState::NotForThisNode, ImageState::Invalid { why: "x".into() }] {
            let end = events.iter().cloned().fold(fixed.clone(), |s, e| step(s, e, at(9)));
            prop_assert_eq!(end, fixed);
        }
    }

    #[test]
    fn only_a_start_leads_to_pulling_and_only_its_end_leads_out(events in proptest::collection::vec(any_event(), 0..40)) {
        let mut state = ImageState::new(at(0));
        for event in events {
            let was = matches!(state, ImageState::Pulling { .. });
            let (starts, ends) = (
                matches!(event, Event::Started),
                matches!(event, Event::Pulled { .. } | Event::Failed { .. } | Event::Interrupted | Event::BrokeOff { .. }),
            );
            state = step(state, event, at(9));
            let is = matches!(state, ImageState::Pulling { .. });
            prop_assert_eq!(is, starts || (was && !ends), "{:?}", state);
        }
    }
}
