use proptest::prelude::*;

use super::*;

/// A node and its network, as far as they decide how many pulls are best.
#[derive(Debug, Clone, Copy)]
struct World {
    cores: f64,
    /// From a pull's begin to its first byte.
    latency: f64,
    /// Seconds of one image's download.
    download: f64,
    /// Seconds of one processor that one image takes.
    work: f64,
    images: usize,
}

const STEP_MILLIS: u64 = 5;

/// Seconds until all images are there, and the number at the end. The processors are shared evenly; each pull uses one
/// at most, while it downloads as well as afterwards.
fn warm(world: World, mut auto: Option<&mut Parallelism>, fixed: usize) -> f64 {
    let dt = STEP_MILLIS as f64 / 1000.0;
    let mut waiting = world.images;
    let mut pulls: Vec<(f64, f64)> = Vec::new();
    let (mut now, mut next, mut idle, mut looked) = (0_u64, None, 0.0, 0_u64);
    while waiting > 0 || !pulls.is_empty() {
        let moment = Moment::after_start(Duration::from_millis(now));
        if let Some(auto) = auto.as_deref_mut().filter(|_| waiting > 0) {
            match next {
                None => next = Some(now + u64::try_from(auto.until_next_look(moment).as_millis()).unwrap()),
                Some(at) if now >= at => {
                    auto.looked(Sight {
                        pulling: pulls.len(),
                        idle: idle / (now - looked) as f64 * STEP_MILLIS as f64,
                    });
                    (idle, looked) = (0.0, now);
                    next = Some(now + u64::try_from(auto.until_next_look(moment).as_millis()).unwrap());
                }
                Some(_) => {}
            }
        }
        let most = auto.as_deref().map_or(fixed, Parallelism::number);
        while waiting > 0 && pulls.len() < most {
            waiting -= 1;
            pulls.push((world.latency + world.download, world.work));
        }
        // what has begun to arrive can be worked on
        let ready = |p: &(f64, f64)| p.0 <= world.download && p.1 > 0.0;
        let working = pulls.iter().filter(|p| ready(p)).count() as f64;
        let speed = if working > 0.0 { (world.cores / working).min(1.0) } else { 0.0 };
        idle += 1.0 - working * speed / world.cores;
        for pull in &mut pulls {
            if ready(pull) {
                pull.1 -= dt * speed;
            }
            pull.0 -= dt;
        }
        pulls.retain(|(left, work)| *left > 0.0 || *work > 0.0);
        now += STEP_MILLIS;
    }
    now as f64 / 1000.0
}

/// How much longer `auto` takes than the best fixed number.
fn ratio(world: World) -> f64 {
    let best = (1..=MOST).map(|n| warm(world, None, n)).fold(f64::INFINITY, f64::min);
    warm(world, Some(&mut Parallelism::default()), 0) / best
}

#[test]
fn as_good_as_the_best_number_on_near_and_far_registries() {
    let near = World { cores: 2.0, latency: 0.01, download: 0.1, work: 0.3, images: 12 };
    assert!(ratio(near) < 1.02, "{}", ratio(near));
    let far = World { latency: 0.4, download: 2.0, work: 0.2, images: 8, ..near };
    assert!(ratio(far) < 1.06, "{}", ratio(far));
    let many = World { images: 200, ..far };
    assert!(ratio(many) < 1.02, "{}", ratio(many));
    let large_node = World { cores: 64.0, images: 100, ..near };
    assert!(ratio(large_node) < 1.15, "{}", ratio(large_node));
}

#[test]
fn busy_processors_keep_the_number_where_it_begins() {
    let mut auto = Parallelism::default();
    for _ in 0..100 {
        auto.looked(Sight { pulling: auto.number(), idle: 0.0 });
        assert_eq!(auto.number(), FIRST);
    }
}

#[test]
fn idle_processors_raise_it_quickly_and_busy_ones_lower_it_again() {
    let mut auto = Parallelism::default();
    let mut look = |idle| {
        auto.looked(Sight { pulling: auto.number(), idle });
        auto.number()
    };
    let rise: Vec<_> = (0..7).map(|_| look(0.9)).collect();
    assert_eq!(rise, [6, 8, 10, 12, 14, 16, 16]);
    let fall: Vec<_> = (0..60).map(|_| look(0.0)).collect();
    assert_eq!(fall[..4], [16, 16, 15, 15]);
    assert_eq!(fall[59], FIRST);
}

/// The number in each second, on a node without room and with a registry that gives so many MB/s to so many pulls.
fn numbers_on_a_busy_node(rate_at: impl Fn(usize) -> u64, seconds: u64) -> Vec<usize> {
    let mut auto = Parallelism::default();
    let numbers = (0..=seconds).map(|second| {
        auto.looked(Sight { pulling: auto.number(), idle: 0.0 });
        let bytes = rate_at(auto.number()) * 1_000_000;
        auto.downloaded(bytes, auto.number(), Moment::after_start(Duration::from_secs(second)));
        auto.number()
    });
    numbers.collect()
}

#[test]
fn on_a_busy_node_more_are_tried_and_kept_while_they_bring_more() {
    let far = numbers_on_a_busy_node(|n| n as u64 * 10, 30);
    assert_eq!(far[..6], [3, 6, 8, 10, 12, 14]);
    assert!(far[6..].iter().all(|n| *n >= 14), "{far:?}");
    let narrow = numbers_on_a_busy_node(|n| (n as u64 * 10).min(60), 30);
    assert_eq!(narrow[..3], [3, 6, 8]);
    assert!(narrow[3..].iter().all(|n| *n == 6), "more than six bring nothing: {narrow:?}");
    let full = numbers_on_a_busy_node(|_| 60, 60);
    assert_eq!(full[..4], [3, 6, 3, 3], "one trial that brings nothing");
    assert!(full[2..30].iter().all(|n| *n == 3), "and none for a while: {full:?}");
    assert_eq!(full.iter().filter(|n| **n == 6).count(), 2, "then one more: {full:?}");
    let unknown = numbers_on_a_busy_node(|_| 0, 30);
    assert!(unknown.iter().all(|n| *n == FIRST), "nothing to compare");
}

#[test]
fn what_another_limit_holds_up_is_not_raised() {
    let mut auto = Parallelism::default();
    auto.looked(Sight { pulling: 2, idle: 1.0 });
    assert_eq!(auto.number(), FIRST, "two are under way although three might be");
}

#[test]
fn cri_o_gets_one_pull_and_two_while_the_node_idles() {
    let mut auto = Parallelism::of("cri-o");
    assert_eq!(auto.number(), 1);
    for _ in 0..5 {
        auto.looked(Sight { pulling: auto.number(), idle: 0.9 });
    }
    assert_eq!(auto.number(), 2);
    assert_eq!(Parallelism::of("containerd"), Parallelism::default());
}

#[test]
fn it_begins_anew_after_a_rest() {
    let mut auto = Parallelism::default();
    auto.looked(Sight { pulling: 3, idle: 1.0 });
    assert!(auto.number() > FIRST);
    auto.rest();
    assert_eq!(auto, Parallelism::default());
}

proptest! {
    #[test]
    fn it_never_leaves_its_bounds(
        looks in prop::collection::vec((0usize..40, 0.0f64..=1.0, 0u64..1_000_000_000), 0..200)
    ) {
        let mut auto = Parallelism::default();
        for (second, (pulling, idle, bytes)) in looks.into_iter().enumerate() {
            auto.looked(Sight { pulling, idle });
            auto.downloaded(bytes, pulling, Moment::after_start(Duration::from_secs(second as u64)));
            prop_assert!((FIRST..=MOST).contains(&auto.number()));
        }
    }
}
