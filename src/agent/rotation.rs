//! Which Secrets and service accounts are watched, and whose back-off their change ends. Pure.
//!
//! An object is watched only while an image that names it is in back-off. What was seen of it when the pull began is
//! compared with what the watch tells: a change in between counts as well.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    clock::Moment,
    desired::TargetKey,
    pull_secrets::{Fingerprint, ObjectKey, Seen},
};

/// Objects that are watched at the same time. Of more, those of the images that name the fewest are watched; the others are read again
/// when their image's next attempt begins. With the requests of [`crate::kubernetes::request_budget`], and a renewal of each watch every
/// five minutes, an agent makes fewer than 100 requests a minute.
const MAX_WATCHED_OBJECTS: usize = 50;

/// A pull that failed.
#[derive(Debug)]
struct Failed {
    began: Moment,
    seen: Vec<Seen>,
}

/// What was last told about an object.
#[derive(Debug)]
struct Told {
    at: Moment,
    fingerprint: Fingerprint,
}

/// Failed pulls and the objects that they used.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    failed: HashMap<TargetKey, Failed>,
    told: BTreeMap<ObjectKey, Told>,
    /// Whether more would be watched than may be.
    is_over: bool,
}

impl Rotation {
    /// A pull failed that began at `began`, with these objects. Says whether one of them changed meanwhile.
    pub(super) fn failed(&mut self, key: &TargetKey, began: Moment, seen: Vec<Seen>) -> bool {
        // what was told before the pull began is older than what the pull itself saw
        let changed = |seen: &Seen| {
            self.told.get(&seen.key).is_some_and(|told| told.at > began && told.fingerprint != seen.fingerprint)
        };
        let changed = seen.iter().any(changed);
        if !seen.is_empty() {
            self.failed.insert(key.clone(), Failed { began, seen });
        }
        changed
    }

    /// How an object looks now. Gives the targets whose failure it may end.
    pub(super) fn told(&mut self, key: &ObjectKey, fingerprint: Fingerprint, at: Moment) -> Vec<TargetKey> {
        self.told.insert(key.clone(), Told { at, fingerprint });
        let differs = |failed: &Failed| {
            failed.began <= at && failed.seen.iter().any(|s| s.key == *key && s.fingerprint != fingerprint)
        };
        self.failed.iter().filter(|(_, failed)| differs(failed)).map(|(key, _)| key.clone()).collect()
    }

    /// Forgets targets that are no longer in back-off, and gives the objects that the others wait for.
    pub(super) fn wanted(&mut self, in_back_off: impl Fn(&TargetKey) -> bool) -> BTreeSet<ObjectKey> {
        self.failed.retain(|key, _| in_back_off(key));
        let mut failed: Vec<_> = self.failed.iter().map(|(key, failed)| (failed.seen.len(), key, failed)).collect();
        failed.sort_by(|a, b| {
            (a.0, &a.1.canonical, &a.1.runtime_handler).cmp(&(b.0, &b.1.canonical, &b.1.runtime_handler))
        });
        let mut wanted = BTreeSet::new();
        let mut is_over = false;
        for seen in failed.iter().flat_map(|(_, _, failed)| &failed.seen) {
            if wanted.len() < MAX_WATCHED_OBJECTS || wanted.contains(&seen.key) {
                wanted.insert(seen.key.clone());
            } else {
                is_over = true;
                break;
            }
        }
        if is_over && !self.is_over {
            tracing::warn!(
                limit = MAX_WATCHED_OBJECTS,
                "too many Secrets and service accounts of failed images to watch all; a change of the others is noticed at the next attempt"
            );
        }
        self.is_over = is_over;
        self.told.retain(|key, _| wanted.contains(key));
        wanted
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{desired::ObjectName, pull_secrets::ObjectKind};

    fn object(name: &str) -> ObjectKey {
        let name = ObjectName { namespace: Some("team".into()), name: name.into() };
        ObjectKey { kind: ObjectKind::Secret, name }
    }

    fn target(name: &str) -> TargetKey {
        TargetKey { canonical: name.into(), runtime_handler: "".into() }
    }

    fn at(seconds: u64) -> Moment {
        Moment::after_start(Duration::from_secs(seconds))
    }

    fn seen(name: &str, fingerprint: u8) -> Vec<Seen> {
        vec![Seen { key: object(name), fingerprint: Some([fingerprint; 32]) }]
    }

    #[test]
    fn a_change_ends_the_back_off_of_those_that_saw_the_old_one() {
        let mut rotation = Rotation::default();
        assert!(!rotation.failed(&target("a"), at(1), seen("s", 1)));
        assert!(!rotation.failed(&target("b"), at(1), seen("t", 1)));
        assert!(rotation.told(&object("s"), Some([1; 32]), at(2)).is_empty(), "nothing changed");
        assert_eq!(rotation.told(&object("s"), Some([2; 32]), at(3)), [target("a")]);
        assert_eq!(rotation.told(&object("s"), None, at(4)), [target("a")]);
    }

    #[test]
    fn a_change_during_the_pull_counts_once() {
        let mut rotation = Rotation::default();
        rotation.failed(&target("a"), at(1), seen("s", 1));
        rotation.told(&object("s"), Some([2; 32]), at(5));
        assert!(rotation.failed(&target("b"), at(4), seen("s", 1)), "it began before the change was told");
        assert!(!rotation.failed(&target("b"), at(6), seen("s", 3)), "it saw something newer than was told");
    }

    #[test]
    fn of_too_many_objects_those_of_modest_images_are_watched() {
        let mut rotation = Rotation::default();
        let many = |image: usize| (0..MAX_WATCHED_OBJECTS).flat_map(|n| seen(&format!("{image}-{n}"), 1)).collect();
        rotation.failed(&target("a"), at(1), many(0));
        assert_eq!(rotation.wanted(|_| true).len(), MAX_WATCHED_OBJECTS, "at the limit all are");
        assert!(!rotation.is_over);
        for image in 1..60 {
            rotation.failed(&target(&format!("a{image}")), at(1), many(image));
        }
        rotation.failed(&target("z"), at(1), seen("single", 1));
        let watched = rotation.wanted(|_| true);
        assert!(rotation.is_over && watched.len() == MAX_WATCHED_OBJECTS, "{}", watched.len());
        assert!(watched.contains(&object("single")));
    }

    #[test]
    fn only_what_is_in_back_off_is_watched() {
        let mut rotation = Rotation::default();
        rotation.failed(&target("a"), at(1), seen("s", 1));
        rotation.failed(&target("b"), at(1), seen("t", 1));
        rotation.failed(&target("c"), at(1), Vec::new());
        assert_eq!(rotation.wanted(|_| true), [object("s"), object("t")].into());
        assert_eq!(rotation.wanted(|key| *key == target("b")), [object("t")].into());
        assert_eq!(rotation.wanted(|_| false), BTreeSet::new());
        assert!(rotation.told(&object("t"), None, at(9)).is_empty());
    }
}
