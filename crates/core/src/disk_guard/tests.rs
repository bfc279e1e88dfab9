use super::*;

const GIB: u64 = 1 << 30;

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

fn key(name: &str) -> TargetKey {
    TargetKey { canonical: name.into(), runtime_handler: "".into() }
}

/// A disk of 100 GiB of which so many are used.
fn used(gib: u64) -> Usage {
    Usage { capacity: 100 * GIB, available: (100 - gib) * GIB, inodes: 1000, inodes_free: 900 }
}

fn name(stop: Option<Stop>) -> Option<&'static str> {
    stop.map(|stop| stop.name())
}

#[test]
fn usage_is_what_is_not_available() {
    let usage = used(80);
    assert!((usage.ratio() - 0.8).abs() < 1e-9);
    assert!(!usage.above(80, 0) && usage.above(80, 1) && !usage.below(80) && usage.below(81));
    let nothing = Usage { capacity: 0, available: 0, inodes: 0, inodes_free: 0 };
    assert!(!nothing.above(80, 0) && !nothing.lacks_inodes());
}

#[test]
fn pulls_stop_above_one_mark_and_go_on_below_another() {
    let mut guard = DiskGuard::default();
    let mut seen = Vec::new();
    for gib in [70, 79, 80, 81, 79, 75, 74, 79] {
        guard.measured(Some(used(gib)), at(0));
        seen.push(guard.node_stop(at(0)).is_some());
    }
    assert_eq!(seen, [false, false, false, true, true, true, false, false]);
}

#[test]
fn a_list_that_moves_the_marks_is_obeyed_at_once() {
    let mut guard = DiskGuard::default();
    guard.measured(Some(used(82)), at(0));
    assert_eq!(name(guard.node_stop(at(0))), Some("Full"));
    guard.set_marks(Marks { max: 90, resume: 85 });
    assert_eq!(guard.node_stop(at(0)), None);
    guard.set_marks(Marks { max: 60, resume: 50 });
    assert_eq!(name(guard.node_stop(at(0))), Some("Full"));
    guard.set_marks(Marks::OFF);
    assert_eq!(guard.node_stop(at(0)), None, "100 % switches it off");
}

#[test]
fn what_cannot_be_seen_stops_nothing() {
    let mut guard = DiskGuard::default();
    guard.measured(Some(used(90)), at(0));
    guard.measured(None, at(0));
    guard.measured(None, at(301));
    guard.removed(&key("a"), 90 * GIB, at(0));
    guard.refused(&key("b"), at(0));
    assert_eq!(
        (guard.node_stop(at(0)), guard.image_stop(&key("a"), 0, at(0)), guard.image_stop(&key("b"), 0, at(0))),
        (None, None, None)
    );
}

#[test]
fn one_look_in_vain_opens_nothing() {
    let mut guard = DiskGuard::default();
    guard.measured(Some(used(90)), at(100));
    guard.measured(None, at(400));
    assert_eq!(name(guard.node_stop(at(400))), Some("Full"));
    guard.measured(Some(used(90)), at(401));
    guard.measured(None, at(4000));
    assert_eq!(
        name(guard.node_stop(at(4000))),
        Some("Full"),
        "an idle agent looks seldom, and the first look in vain counts"
    );
    guard.measured(None, at(4299));
    assert_eq!(name(guard.node_stop(at(4299))), Some("Full"));
    guard.measured(None, at(4301));
    assert_eq!(guard.node_stop(at(4301)), None, "five minutes in vain");
}

#[test]
fn a_collected_image_comes_back_when_it_fits() {
    let mut guard = DiskGuard::default();
    guard.measured(Some(used(70)), at(0));
    guard.removed(&key("a"), 10 * GIB, at(0));
    assert_eq!(guard.image_stop(&key("a"), 0, at(0)), None, "70 and 10 are not above 80");
    assert_eq!(name(guard.image_stop(&key("a"), 1, at(0))), Some("NoRoom"), "another one takes its place");
    guard.measured(Some(used(71)), at(0));
    assert_eq!(name(guard.image_stop(&key("a"), 0, at(0))), Some("NoRoom"));
    assert_eq!(guard.image_stop(&key("b"), 0, at(0)), None, "of others nothing is known");
}

#[test]
fn what_came_back_is_asked_for_again_whatever_it_took() {
    let mut guard = DiskGuard::default();
    for by_pull in [true, false] {
        guard.measured(Some(used(60)), at(0));
        guard.began(&key("a"));
        guard.pulled(&key("a"));
        guard.measured(Some(used(75)), at(0));
        guard.removed(&key("a"), 5 * GIB, at(0));
        assert_eq!(name(guard.image_stop(&key("a"), 0, at(0))), Some("NoRoom"));
        if by_pull {
            guard.pulled(&key("a"));
        } else {
            guard.found(&key("a"));
        }
        assert_eq!((guard.image_stop(&key("a"), 0, at(0)), guard.size(&key("a"))), (None, 0), "it is there: {by_pull}");
    }
    guard.removed(&key("a"), 5 * GIB, at(9000));
    assert_eq!(guard.size(&key("a")), 15 * GIB, "what it took is known still");
}

#[test]
fn an_image_takes_what_the_disk_lost_when_it_was_pulled_alone() {
    let mut guard = DiskGuard::default();
    guard.measured(Some(used(40)), at(0));
    guard.began(&key("a"));
    guard.pulled(&key("a"));
    guard.measured(Some(used(55)), at(0));
    guard.removed(&key("a"), 5 * GIB, at(0));
    assert_eq!(guard.size(&key("a")), 15 * GIB, "unpacked it is larger than the runtime says");
    for image in ["b", "c"] {
        guard.began(&key(image));
    }
    for image in ["b", "c"] {
        guard.pulled(&key(image));
    }
    guard.measured(Some(used(70)), at(0));
    guard.removed(&key("c"), 5 * GIB, at(0));
    assert_eq!(guard.size(&key("c")), 5 * GIB, "what two took together is no measure for one");
    guard.began(&key("d"));
    guard.pulled(&key("d"));
    guard.measured(Some(used(79)), at(0));
    guard.removed(&key("d"), GIB, at(0));
    assert_eq!(guard.size(&key("d")), 6 * GIB, "somebody else wrote as well");
}

#[test]
fn an_image_that_is_removed_again_stops_pulls_for_longer_and_longer() {
    let mut guard = DiskGuard::default();
    let minute = |m: u64| at(m * 60);
    guard.removed(&key("a"), 1, minute(0));
    assert_eq!(guard.node_stop(minute(0)), None);
    guard.removed(&key("b"), 1, minute(1));
    guard.removed(&key("a"), 1, minute(11));
    assert_eq!(guard.node_stop(minute(11)), None, "eleven minutes later is no sign");
    guard.removed(&key("a"), 1, minute(15));
    assert_eq!(name(guard.node_stop(minute(24))), Some("Contested"));
    assert_eq!(guard.node_stop(minute(25)), None, "after ten minutes by itself");
    guard.removed(&key("a"), 1, minute(30));
    assert_eq!(name(guard.node_stop(minute(49))), Some("Contested"), "it went again at once: twenty minutes");
    assert_eq!(guard.node_stop(minute(50)), None);
    guard.removed(&key("a"), 1, minute(100));
    assert_eq!(guard.node_stop(minute(100)), None, "long afterwards it counts anew");
}

#[test]
fn a_hold_for_an_image_ends_with_its_entry_and_with_the_marks() {
    let contested = || {
        let mut guard = DiskGuard::default();
        guard.removed(&key("a"), 1, at(0));
        guard.removed(&key("a"), 1, at(60));
        assert_eq!(name(guard.node_stop(at(61))), Some("Contested"));
        guard
    };
    let mut guard = contested();
    guard.retain(|key| &*key.canonical == "a");
    guard.set_marks(Marks::default());
    assert_eq!(name(guard.node_stop(at(61))), Some("Contested"), "an edit of something else says nothing");
    guard.retain(|key| &*key.canonical == "b");
    assert_eq!(guard.node_stop(at(61)), None);
    let mut guard = contested();
    guard.set_marks(Marks { max: 70, resume: 60 });
    assert_eq!(guard.node_stop(at(61)), None);
}

#[test]
fn no_space_waits_until_there_is_more() {
    let mut guard = DiskGuard::default();
    guard.set_marks(Marks::OFF);
    guard.measured(Some(used(70)), at(0));
    guard.began(&key("a"));
    guard.measured(Some(used(99)), at(0));
    guard.refused(&key("a"), at(0));
    guard.measured(Some(used(70)), at(0));
    assert_eq!(name(guard.image_stop(&key("a"), 0, at(0))), Some("Refused"), "what it had was not enough");
    assert!(guard.needs_usage());
    assert_eq!(guard.image_stop(&key("a"), 0, at(3600)), None, "space may have been missing where nobody looks");
    guard.measured(Some(used(69)), at(0));
    assert_eq!(guard.image_stop(&key("a"), 0, at(0)), None);
    guard.began(&key("a"));
    guard.pulled(&key("a"));
    assert!(!guard.needs_usage());
}

/// Pulls `images` together, in vain.
fn refused_together(guard: &mut DiskGuard, images: &[&str]) {
    for image in images {
        guard.began(&key(image));
    }
    for image in images {
        guard.refused(&key(image), at(0));
    }
}

#[test]
fn images_that_failed_together_are_tried_apart_and_not_for_ever() {
    let mut guard = DiskGuard::default();
    guard.set_marks(Marks::OFF);
    guard.measured(Some(used(70)), at(0));
    let mut at_once = Vec::new();
    loop {
        let (mut begin, mut reserved) = (Vec::new(), 0);
        for image in ["a", "b", "c"] {
            if guard.image_stop(&key(image), reserved, at(0)).is_none() {
                reserved += guard.size(&key(image));
                begin.push(image);
            }
        }
        if begin.is_empty() {
            break;
        }
        at_once.push(begin.len());
        refused_together(&mut guard, &begin);
        assert!(at_once.len() < 20, "{at_once:?}");
    }
    assert_eq!(at_once[..2], [3, 2], "a third of 30 GiB each may be enough, but not for three of them");
    assert!(at_once[2..].iter().all(|n| *n == 1), "then each has all the room: {at_once:?}");
    assert!(at_once.len() <= 6, "one that had all the room in vain waits: {at_once:?}");
}

#[test]
fn what_an_image_that_found_no_space_waits_for_is_told_and_can_be() {
    let mut guard = DiskGuard::default();
    guard.set_marks(Marks::OFF);
    guard.measured(Some(used(40)), at(0));
    for _ in 0..3 {
        refused_together(&mut guard, &["a"]);
    }
    let stop = guard.image_stop(&key("a"), GIB, at(600)).unwrap();
    assert_eq!(
        stop.why(at(600)),
        "it found no space on the image filesystem; it is tried again when 100.0 GiB are available (now 60.0 GiB of 100.0 GiB are, of which pulls under way take 1.0 GiB), or in 50 min"
    );
}

#[test]
fn no_space_under_the_marks_goes_on_below_the_lower_one() {
    let mut guard = DiskGuard::default();
    guard.measured(Some(used(79)), at(0));
    guard.began(&key("a"));
    guard.refused(&key("a"), at(0));
    assert_eq!(name(guard.node_stop(at(0))), Some("Full"));
    guard.measured(Some(used(76)), at(0));
    assert_eq!(name(guard.node_stop(at(0))), Some("Full"));
    guard.measured(Some(used(74)), at(0));
    assert_eq!(guard.node_stop(at(0)), None);
}

#[test]
fn the_node_and_its_inodes_have_a_say() {
    let mut guard = DiskGuard::default();
    guard.measured(Some(used(10)), at(0));
    guard.set_node_pressure(true);
    assert_eq!(guard.node_stop(at(0)), Some(Stop::NodePressure));
    assert!(guard.is_short(at(0)));
    guard.removed(&key("a"), 1, at(0));
    guard.removed(&key("a"), 1, at(0));
    guard.set_node_pressure(false);
    assert_eq!(guard.node_stop(at(0)), None, "what was removed under pressure is no sign after its end");
    guard.measured(Some(Usage { inodes_free: 49, ..used(10) }), at(0));
    assert_eq!(name(guard.node_stop(at(0))), Some("Inodes"));
    guard.set_marks(Marks::OFF);
    guard.set_node_pressure(true);
    assert_eq!(guard.node_stop(at(0)), None);
}

#[test]
fn what_is_no_longer_wanted_is_forgotten() {
    let mut guard = DiskGuard::default();
    guard.measured(Some(used(75)), at(0));
    guard.removed(&key("a"), 10 * GIB, at(0));
    guard.began(&key("b"));
    guard.retain(|key| &*key.canonical == "c");
    assert_eq!((guard.image_stop(&key("a"), 0, at(0)), guard.known.len(), guard.running.len()), (None, 0, 0));
}
