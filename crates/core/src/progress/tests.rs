use std::time::Duration;

use super::{
    catalogue::{Blob, Question},
    *,
};

const STALL: Duration = Duration::from_secs(20);

fn at(seconds: u64) -> Moment {
    Moment::after_start(Duration::from_secs(seconds))
}

/// A time on the runtime's clock.
fn wall(seconds: u64) -> RuntimeTime {
    Duration::from_secs(1_000_000 + seconds)
}

fn digest(n: u8) -> Digest {
    Digest::parse(&format!("sha256:{}", format!("{n:02x}").repeat(32))).unwrap()
}

fn key(name: &str) -> TargetKey {
    TargetKey { canonical: name.into(), runtime_handler: "".into() }
}

fn registry(host: &str) -> RegistryHost {
    crate::image_ref::ImageRef::parse(&format!("{host}/a:1")).unwrap().registry().clone()
}

/// A store as a test wants it, and what of it is leased.
#[derive(Default)]
struct Store {
    sample: Sample,
}

impl Store {
    /// A manifest `n` with layers of these sizes, known to be there.
    fn manifest(&mut self, n: u8, layers: &[(u8, u64)]) {
        let config = digest(100 + n);
        let layers: Vec<_> =
            layers.iter().map(|(l, size)| format!(r#"{{"digest":"{}","size":{size}}}"#, digest(*l))).collect();
        let text = format!(r#"{{"config":{{"digest":"{config}","size":10}},"layers":[{}]}}"#, layers.join(","));
        self.sample.catalogue.learn_content(digest(n), text.as_bytes());
        self.blob(n, 90, 1);
        self.blob(100 + n, 10, 1);
    }

    fn blob(&mut self, n: u8, size: u64, created: u64) {
        self.sample.ingests.remove(&digest(n));
        self.sample.catalogue.learn_stored(digest(n), Blob { size, created: wall(created) });
    }

    fn ingest(&mut self, n: u8, offset: u64, total: u64, started: u64) {
        self.sample.ingests.insert(digest(n), Ingest { offset, total, started: wall(started) });
    }

    fn lease(&mut self, pull: u64, blobs: &[u8], ingests: &[u8]) {
        let of = |all: &[u8]| all.iter().map(|n| digest(*n)).collect();
        self.sample.leases.insert(pull, Leased { blobs: of(blobs), ingests: of(ingests) });
    }
}

fn tracker(pulls: &[(u64, &str)]) -> Tracker {
    let mut tracker = Tracker::default();
    for (number, name) in pulls {
        tracker.begin(*number, key(name), registry(&format!("{name}.test")), wall(0), at(0));
    }
    tracker
}

fn bytes(counted: &[(RegistryHost, u64)]) -> Vec<(&str, u64)> {
    counted.iter().map(|(registry, bytes)| (registry.as_str(), *bytes)).collect()
}

#[test]
fn an_image_goes_from_resolving_over_downloading_to_unpacking() {
    let (mut tracker, mut store) = (tracker(&[(1, "a")]), Store::default());
    store.lease(1, &[], &[]);
    tracker.saw(&store.sample, at(1));
    assert_eq!(tracker.of(&key("a")).unwrap().phase, Phase::Resolving);

    store.manifest(1, &[(2, 1000), (3, 500)]);
    store.ingest(2, 0, 1000, 1);
    store.lease(1, &[1, 101], &[2]);
    tracker.saw(&store.sample, at(2));
    let progress = tracker.of(&key("a")).unwrap();
    assert_eq!((progress.phase, progress.downloaded, progress.total), (Phase::Downloading, Some(100), Some(1600)));

    store.ingest(2, 800, 1000, 1);
    tracker.saw(&store.sample, at(4));
    let progress = tracker.of(&key("a")).unwrap();
    assert_eq!(
        (progress.downloaded, progress.bytes_per_second, progress.seconds_left),
        (Some(900), Some(400), Some(2))
    );

    store.blob(2, 1000, 5);
    store.blob(3, 500, 5);
    store.lease(1, &[1, 101, 2, 3], &[]);
    tracker.saw(&store.sample, at(6));
    let progress = tracker.of(&key("a")).unwrap();
    assert_eq!((progress.phase, progress.downloaded), (Phase::Unpacking, Some(1600)));
    assert_eq!((progress.bytes_per_second, progress.seconds_left), (None, None));
}

#[test]
fn a_shared_layer_counts_towards_each_image_and_once_for_the_node() {
    let (mut tracker, mut store) = (tracker(&[(1, "a"), (2, "b")]), Store::default());
    store.manifest(1, &[(5, 1000), (6, 100)]);
    store.manifest(2, &[(5, 1000), (7, 200)]);
    store.ingest(5, 600, 1000, 1);
    // the second pull waits for the first one's ingest, which is not in its own lease
    store.lease(1, &[1, 101], &[5]);
    store.lease(2, &[2, 102], &[]);
    let counted = tracker.saw(&store.sample, at(1));
    assert_eq!(bytes(&counted), [("a.test", 700), ("b.test", 100)]);
    for (name, total) in [("a", 1200), ("b", 1300)] {
        let progress = tracker.of(&key(name)).unwrap();
        assert_eq!((progress.downloaded, progress.total), (Some(700), Some(total)), "{name}");
    }
    assert_eq!((tracker.node().downloaded, tracker.node().total), (800, 1500));

    store.blob(5, 1000, 2);
    store.lease(1, &[1, 101, 5], &[]);
    store.lease(2, &[2, 102, 5], &[]);
    let counted = tracker.saw(&store.sample, at(2));
    assert_eq!(bytes(&counted), [("a.test", 400)]);
}

#[test]
fn only_bytes_that_came_are_counted() {
    let (mut tracker, mut store) = (Tracker::default(), Store::default());
    tracker.begin(1, key("a"), registry("a.test"), wall(10), at(0));
    store.manifest(1, &[(2, 1000), (3, 500), (4, 100)]);
    // a layer that was there before, one that an earlier attempt began, and one that comes between two samples
    store.blob(2, 1000, 1);
    store.ingest(3, 300, 500, 5);
    store.lease(1, &[1, 101, 2], &[3]);
    assert_eq!(bytes(&tracker.saw(&store.sample, at(1))), []);
    assert_eq!(tracker.of(&key("a")).unwrap().downloaded, Some(1400));
    store.blob(3, 500, 12);
    store.blob(4, 100, 12);
    store.lease(1, &[1, 101, 2, 3, 4], &[]);
    assert_eq!(bytes(&tracker.saw(&store.sample, at(2))), [("a.test", 300)]);
    // nothing is counted again at its end
    assert_eq!(tracker.settle(1, &store.sample, at(3)), None);
}

#[test]
fn an_ingest_that_begins_anew_is_counted_anew() {
    let (mut tracker, mut store) = (tracker(&[(1, "a")]), Store::default());
    store.manifest(1, &[(2, 1000)]);
    store.lease(1, &[1, 101], &[2]);
    store.ingest(2, 800, 1000, 1);
    assert_eq!(bytes(&tracker.saw(&store.sample, at(1))), [("a.test", 900)]);
    store.ingest(2, 200, 1000, 2);
    assert_eq!(bytes(&tracker.saw(&store.sample, at(2))), [("a.test", 200)]);
    // what people see never goes back
    assert_eq!(tracker.of(&key("a")).unwrap().downloaded, Some(900));
}

#[test]
fn a_sample_that_was_overtaken_counts_nothing_twice() {
    let (mut tracker, mut store) = (tracker(&[(1, "a"), (2, "b")]), Store::default());
    store.manifest(1, &[(3, 1000), (4, 800)]);
    store.manifest(2, &[(3, 1000)]);
    store.lease(1, &[1, 101], &[3, 4]);
    store.lease(2, &[2, 102], &[3]);
    store.ingest(3, 200, 1000, 1);
    store.ingest(4, 100, 800, 1);
    // it is under way while the second pull ends, which has seen more of the layer that both have
    let mut older = store.sample.clone();
    store.ingest(3, 600, 1000, 1);
    assert_eq!(tracker.settle(2, &store.sample, at(1)).unwrap().1, 700);
    tracker.end(2);
    older.counted = [2, 102, 3].map(digest).into();
    assert_eq!(bytes(&tracker.saw(&older, at(1))), [("a.test", 200)]);
    assert_eq!(tracker.of(&key("a")).unwrap().downloaded, Some(400), "it tells of the first one all the same");
    store.sample.leases.remove(&2);
    assert_eq!(bytes(&tracker.saw(&store.sample, at(2))), []);
    store.ingest(3, 900, 1000, 1);
    assert_eq!(bytes(&tracker.saw(&store.sample, at(3))), [("a.test", 300)]);
}

#[test]
fn layers_that_are_unpacked_already_are_not_waited_for() {
    let (mut tracker, mut store) = (tracker(&[(1, "a")]), Store::default());
    store.manifest(1, &[(2, 1000), (3, 500)]);
    store.ingest(3, 100, 500, 1);
    store.lease(1, &[1, 101], &[3]);
    tracker.saw(&store.sample, at(1));
    let counted = tracker.saw(&store.sample, at(2));
    assert_eq!(bytes(&counted), []);
    assert_eq!(tracker.of(&key("a")).unwrap().downloaded, Some(1200));
    store.blob(3, 500, 3);
    store.lease(1, &[1, 101, 3], &[]);
    tracker.saw(&store.sample, at(3));
    assert_eq!(tracker.of(&key("a")).unwrap().phase, Phase::Unpacking);
}

#[test]
fn a_layer_that_one_sample_misses_is_not_taken_for_downloaded() {
    let (mut tracker, mut store) = (tracker(&[(1, "a")]), Store::default());
    store.manifest(1, &[(2, 1000), (3, 500), (4, 200)]);
    store.ingest(4, 100, 200, 1);
    // 2 was opened after the ingests were listed, 3 comes later than 4 for once
    store.lease(1, &[1, 101], &[2, 4]);
    let shown = |tracker: &Tracker| tracker.of(&key("a")).unwrap().downloaded;
    tracker.saw(&store.sample, at(1));
    assert_eq!(shown(&tracker), Some(200));
    store.ingest(3, 50, 500, 2);
    store.lease(1, &[1, 101], &[2, 3, 4]);
    for second in 2..=4 {
        tracker.saw(&store.sample, at(second));
        assert_eq!(shown(&tracker), Some(250), "at {second}");
    }
}

#[test]
fn a_frozen_download_stalls_and_a_long_unpack_does_not() {
    let (mut tracker, mut store) = (tracker(&[(1, "a"), (2, "b")]), Store::default());
    store.manifest(1, &[(3, 1000)]);
    store.manifest(2, &[(4, 1000)]);
    store.blob(4, 1000, 1);
    store.lease(1, &[1, 101], &[3]);
    store.lease(2, &[2, 102, 4], &[]);
    for second in 0..=5 {
        store.ingest(3, second * 100, 1000, 0);
        tracker.saw(&store.sample, at(second));
    }
    for second in 6..=24 {
        tracker.saw(&store.sample, at(second));
        assert_eq!(tracker.stalled(STALL, at(second)), []);
    }
    tracker.saw(&store.sample, at(25));
    assert_eq!(tracker.stalled(STALL, at(25)), [Stall { number: 1, begun: true, silent: STALL }]);
    tracker.end(1);
    for second in 26..=200 {
        store.sample.leases.remove(&1);
        tracker.saw(&store.sample, at(second));
        assert_eq!(tracker.stalled(STALL, at(second)), []);
    }
}

#[test]
fn what_may_wait_for_its_turn_does_not_stall_while_others_move() {
    let (mut tracker, mut store) = (tracker(&[(1, "a"), (2, "b")]), Store::default());
    store.manifest(1, &[(3, 1000)]);
    store.manifest(2, &[(4, 1000), (5, 1000)]);
    store.lease(1, &[1, 101], &[3]);
    store.lease(2, &[2, 102], &[4, 5]);
    store.ingest(3, 0, 1000, 0);
    store.ingest(4, 0, 1000, 0);
    store.ingest(5, 0, 1000, 30);
    for second in 0..=40 {
        store.ingest(4, second * 10, 1000, 0);
        tracker.saw(&store.sample, at(second));
        assert_eq!(tracker.stalled(STALL, at(second)), [], "at {second}");
    }
    // one that asked for its place much later has it: so the first has had it since, and nothing came
    for second in 41..=60 {
        store.ingest(4, second * 10, 1000, 0);
        store.ingest(5, (second - 40) * 10, 1000, 30);
        tracker.saw(&store.sample, at(second));
        assert_eq!(tracker.stalled(STALL, at(second)), [], "at {second}");
    }
    store.ingest(4, 610, 1000, 0);
    tracker.saw(&store.sample, at(61));
    assert_eq!(tracker.stalled(STALL, at(61)), [Stall { number: 1, begun: true, silent: STALL }]);
}

#[test]
fn where_nothing_moves_at_all_nobody_waits_for_a_turn() {
    let (mut tracker, mut store) = (tracker(&[(1, "a"), (2, "b")]), Store::default());
    store.manifest(1, &[(3, 1000)]);
    store.manifest(2, &[(4, 1000)]);
    store.lease(1, &[1, 101], &[3]);
    store.lease(2, &[2, 102], &[4]);
    store.ingest(4, 0, 1000, 0);
    for second in 0..=25 {
        store.ingest(3, second.min(5) * 10, 1000, 0);
        tracker.saw(&store.sample, at(second));
    }
    // first those that certainly had their turn; what waited behind them gets its time
    let numbers = |tracker: &Tracker, now| tracker.stalled(STALL, now).iter().map(|s| s.number).collect::<Vec<_>>();
    assert_eq!(numbers(&tracker, at(25)), [1]);
    tracker.gave_up(at(25));
    tracker.end(1);
    store.sample.ingests.remove(&digest(3));
    store.sample.leases.remove(&1);
    tracker.saw(&store.sample, at(26));
    assert_eq!(numbers(&tracker, at(45)), [] as [u64; 0]);
    assert_eq!(numbers(&tracker, at(46)), [2]);
}

#[test]
fn a_commit_of_all_bytes_is_no_stall() {
    let (mut tracker, mut store) = (tracker(&[(1, "a")]), Store::default());
    store.manifest(1, &[(3, 1000)]);
    store.lease(1, &[1, 101], &[3]);
    for second in 0..=100 {
        store.ingest(3, (second * 500).min(1000), 1000, 0);
        tracker.saw(&store.sample, at(second));
        assert_eq!(tracker.stalled(STALL, at(second)), []);
    }
}

#[test]
fn an_empty_lease_stalls_where_leases_hold_things_or_nothing_moves() {
    let stalled = |began: bool| Stall { number: 1, begun: began, silent: Duration::from_secs(100) };
    let (mut fresh, mut store) = (tracker(&[(1, "a")]), Store::default());
    // what an interrupted pull left behind
    store.ingest(9, 50, 100, 0);
    store.lease(1, &[], &[]);
    for second in [1, 100] {
        fresh.saw(&store.sample, at(second));
    }
    assert_eq!(fresh.stalled(STALL, at(100)), [stalled(false)], "a registry that hangs, on a new node");

    // something moves, and it may be this pull: perhaps leases hold nothing in this runtime
    let (mut tracker, mut store) = (tracker(&[(1, "a")]), Store::default());
    store.lease(1, &[], &[]);
    for second in [1, 2, 100] {
        store.ingest(9, second.min(2), 100, 0);
        tracker.saw(&store.sample, at(second));
    }
    assert_eq!(tracker.stalled(STALL, at(100)), []);
    tracker.begin(2, key("b"), registry("b.test"), wall(0), at(100));
    store.manifest(2, &[(4, 1000)]);
    store.lease(2, &[2, 102], &[]);
    tracker.saw(&store.sample, at(101));
    assert_eq!(tracker.stalled(STALL, at(101)), [Stall { number: 1, begun: false, silent: Duration::from_secs(101) }]);
}

#[test]
fn the_store_is_asked_for_what_is_needed_and_no_more() {
    let mut store = Store::default();
    store.lease(1, &[1, 2, 3], &[4]);
    let ask = |store: &Store, asked: &HashSet<Digest>| {
        let mut questions = store.sample.catalogue.questions(&store.sample.leases, &store.sample.ingests, asked);
        questions.sort_by_key(|q| format!("{q:?}"));
        questions
    };
    let none = HashSet::new();
    assert_eq!(ask(&store, &none), [1, 2, 3].map(|n| Question::Stored(digest(n))));
    store.blob(1, 500, 3);
    store.blob(2, 300, 2);
    store.blob(3, 1 << 30, 1);
    assert_eq!(ask(&store, &none), [1, 2].map(|n| Question::Content(digest(n))), "a large blob is not read");
    store.manifest(1, &[(2, 300), (3, 1 << 30), (4, 50), (5, 60)]);
    store.ingest(4, 10, 50, 1);
    // a layer that is neither leased nor coming may have been there before; once for each sample
    let rest = [Question::Stored(digest(5))];
    assert_eq!(ask(&store, &none), rest);
    assert_eq!(ask(&store, &[digest(5)].into()), []);
}

#[test]
fn what_a_pull_gained_leaves_out_what_was_there() {
    let mut store = Store::default();
    // a base that was there, a layer that came, one that an earlier attempt began and one that this one did
    store.blob(1, 40 << 20, 1);
    store.blob(2, 3 << 20, 11);
    store.ingest(3, 5 << 20, 9 << 20, 2);
    store.ingest(4, 2 << 20, 9 << 20, 12);
    store.lease(7, &[1, 2], &[3, 4]);
    let begun = |from: Offsets| {
        let mut tracker = Tracker::default();
        tracker.go_on(from);
        tracker.begin(7, key("app"), registry("a.example.com"), wall(10), at(10));
        tracker
    };
    let mut first = begun(Offsets::new());
    first.settle(7, &store.sample, at(20));
    assert_eq!((first.gained(7), first.gained(8)), (5 << 20, 0));
    let mut next = begun(Offsets::from([(digest(3), 1 << 20)]));
    next.settle(7, &store.sample, at(20));
    assert_eq!(next.gained(7), 9 << 20, "it is known how far the one was that broke off");
    assert_eq!(store.sample.offsets(7), Offsets::from([(digest(3), 5 << 20), (digest(4), 2 << 20)]));
    assert_eq!(store.sample.offsets(8), Offsets::new());
}

#[test]
fn a_download_goes_on_where_it_came_on_by_a_mebibyte_and_a_sixteenth() {
    let mib = |n: u64| n << 20;
    let of = |offset| Offsets::from([(digest(1), offset)]);
    assert!(!goes_on(0, &Offsets::new()) && !goes_on(mib(1) - 1, &of(mib(1))));
    assert!(goes_on(mib(1), &of(mib(1))) && goes_on(mib(1), &of(mib(16))) && goes_on(mib(1), &Offsets::new()));
    assert!(!goes_on(mib(1), &of(mib(17))), "all of it would be read again for a fraction");
    assert!(goes_on(mib(400), &of(mib(6000))) && !goes_on(mib(400), &of(mib(20_000))));
}

#[test]
fn hostile_sizes_overflow_nothing() {
    let (mut tracker, mut store) = (tracker(&[(1, "a")]), Store::default());
    store.manifest(1, &[(2, u64::MAX), (3, u64::MAX)]);
    store.ingest(2, u64::MAX, u64::MAX, 1);
    store.ingest(3, u64::MAX, 0, 1);
    store.lease(1, &[1, 101], &[2, 3]);
    tracker.saw(&store.sample, at(1));
    tracker.saw(&store.sample, at(2));
    assert_eq!(tracker.of(&key("a")).unwrap().total, Some(u64::MAX));
}
