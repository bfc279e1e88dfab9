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
                        disks: 0.0,
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
        if let Some(auto) = auto.as_deref_mut().filter(|_| pulls.iter().any(|p| p.0 <= world.download)) {
            auto.moved();
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

/// The number after each of so many looks.
fn looks(auto: &mut Parallelism, count: usize, idle: f64, disks: f64) -> Vec<usize> {
    let look = |_| {
        auto.looked(Sight { pulling: auto.number(), idle, disks });
        auto.number()
    };
    (0..count).map(look).collect()
}

#[test]
fn the_first_eight_come_quickly_whatever_the_processors_do() {
    for idle in [0.0, 0.1, 0.9] {
        assert_eq!(looks(&mut Parallelism::default(), 4, idle, 0.0), [6, 8, 8, 8], "{idle}");
    }
}

#[test]
fn idle_processors_raise_it_further_once_bytes_came_and_busy_ones_lower_it_again() {
    let mut auto = Parallelism::default();
    assert_eq!(looks(&mut auto, 10, 0.9, 0.0)[9], FREELY, "nothing came yet");
    auto.moved();
    assert_eq!(looks(&mut auto, 5, 0.9, 0.0), [10, 12, 14, 16, 16]);
    assert_eq!(looks(&mut auto, 20, 0.1, 0.0)[19], MOST, "neither idle nor busy");
    let fall = looks(&mut auto, 60, 0.0, 0.0);
    assert_eq!((&fall[..4], fall[59]), (&[16, 16, 15, 15][..], FREELY));
}

#[test]
fn waiting_for_disks_lowers_it_to_one() {
    let mut auto = Parallelism::default();
    auto.moved();
    looks(&mut auto, 2, 0.9, 0.0);
    let fall = looks(&mut auto, 60, 0.2, 0.5);
    assert_eq!((&fall[..4], fall[59]), (&[8, 8, 7, 7][..], 1), "idle processors beside do not count");
    assert_eq!(looks(&mut auto, 5, 0.5, 0.0), [2, 4, 8, 10, 12], "it comes back as it began");
    assert_eq!(looks(&mut Parallelism::default(), 3, 0.5, 0.5), [3, 3, 2], "from the start");
}

#[test]
fn what_another_limit_holds_up_is_not_raised() {
    let mut auto = Parallelism::default();
    auto.looked(Sight { pulling: 2, idle: 1.0, disks: 0.0 });
    assert_eq!(auto.number(), FIRST, "two are under way although three might be");
}

#[test]
fn cri_o_gets_one_pull_and_two_while_the_node_idles() {
    let mut auto = Parallelism::of("cri-o");
    assert_eq!(auto.number(), 1);
    auto.moved();
    assert_eq!(looks(&mut auto, 3, 0.0, 0.0), [1, 1, 1]);
    assert_eq!(looks(&mut auto, 3, 0.9, 0.0), [2, 2, 2]);
    assert_eq!(Parallelism::of("containerd"), Parallelism::default());
}

#[test]
fn it_begins_anew_after_a_rest() {
    let mut auto = Parallelism::default();
    auto.moved();
    looks(&mut auto, 3, 0.9, 0.0);
    assert!(auto.number() > FIRST);
    auto.rest();
    assert_eq!(auto, Parallelism::default());
}

proptest! {
    #[test]
    fn it_never_leaves_its_bounds(
        looks in prop::collection::vec((0usize..40, 0.0f64..=1.0, 0.0f64..=1.0, any::<bool>()), 0..200)
    ) {
        let mut auto = Parallelism::default();
        for (pulling, idle, disks, moved) in looks {
            if moved {
                auto.moved();
            }
            auto.looked(Sight { pulling, idle, disks });
            prop_assert!((1..=MOST).contains(&auto.number()));
        }
    }
}
