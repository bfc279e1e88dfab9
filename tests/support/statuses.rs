//! Statuses as an agent would give them, made by hand: for what is shown of them.

use std::{sync::Arc, time::Duration};

use prepull::{
    error_class::ErrorClass,
    image_state::Wait,
    status::{ImageStatus, ListStatus, Status},
};

/// An image with what all states have.
pub fn image(name: &str, state: &'static str) -> ImageStatus {
    let canonical: Arc<str> = name.into();
    ImageStatus { image: name.into(), canonical: Some(canonical), state, required: true, ..ImageStatus::default() }
}

/// One that is in the store.
pub fn present(name: &str, size: u64) -> ImageStatus {
    ImageStatus {
        digest: Some(super::images::digest(name.as_bytes()).into()),
        size_bytes: Some(size),
        present: true,
        ..image(name, "Present")
    }
}

/// One that is being downloaded.
pub fn downloading(name: &str, done: u64, total: u64) -> ImageStatus {
    ImageStatus {
        reason: Some("Pulling"),
        attempt: 1,
        elapsed_seconds: Some(12),
        phase: Some("downloading"),
        downloaded_bytes: Some(done),
        total_bytes: Some(total),
        bytes_per_second: Some(12 << 20),
        seconds_left: Some((total - done) / (12 << 20)),
        ..image(name, "Pulling")
    }
}

/// One whose attempts fail.
pub fn failing(name: &str, class: ErrorClass, message: &str, attempt: u32) -> ImageStatus {
    ImageStatus {
        reason: Some("ImagePullBackOff"),
        class: Some(class),
        message: Some(format!("ErrImagePull: {message}")),
        remedy: Some(class.remedy().to_owned()),
        attempt,
        next_attempt: Some("2026-03-01T03:12:42Z".to_owned()),
        next_attempt_in: Some(Duration::from_secs(42)),
        ..image(name, "BackOff")
    }
}

/// One that waits.
pub fn waiting(name: &str, why: Wait) -> ImageStatus {
    ImageStatus {
        reason: Some(why.as_str()),
        message: Some(why.sentence().to_owned()),
        wait: Some(why),
        ..image(name, "Pending")
    }
}

/// A node at work, with every kind of state.
pub fn at_work() -> Status {
    let names = [
        failing(
            "ghcr.io/acme/web:2.9",
            ErrorClass::NotFound,
            "failed to resolve image: ghcr.io/acme/web:2.9: not found",
            4,
        ),
        ImageStatus {
            problems: vec!["pull secret team/acme-registry: there is no such Secret".to_owned()],
            ..failing(
                "quay.io/acme/model-server:v3",
                ErrorClass::Unauthorized,
                "failed to authorize: 401 Unauthorized",
                2,
            )
        },
        ImageStatus {
            canonical: Some("docker.io/library/nightly:latest".into()),
            present: true,
            required: false,
            ..failing("nightly", ErrorClass::NotFound, "nightly: not found", 1)
        },
        ImageStatus {
            reason: Some("ErrImageNeverPull"),
            message: Some("Container image \"local/base:1\" is not present with pull policy of Never".to_owned()),
            remedy: Some("Load the image onto the node.".to_owned()),
            ..image("local/base:1", "Missing")
        },
        ImageStatus {
            canonical: None,
            reason: Some("InvalidImageName"),
            class: Some(ErrorClass::InvalidName),
            message: Some("the repository `Acme/web` has upper-case letters".to_owned()),
            remedy: Some("Correct the entry in the list.".to_owned()),
            ..image("ghcr.io/Acme/web:1.4", "Invalid")
        },
        ImageStatus { priority: 100, ..downloading("ghcr.io/acme/trainer:v7", 1_300_000_000, 2_000_000_000) },
        ImageStatus {
            reason: Some("Pulling"),
            attempt: 3,
            elapsed_seconds: Some(75),
            ..image("registry.k8s.io/pause:3.10", "Pulling")
        },
        waiting("ghcr.io/acme/worker:1", Wait::Queue),
        ImageStatus { attempt: 1, ..waiting("docker.io/library/redis:7", Wait::Cooldown) },
        ImageStatus {
            pinned: true,
            credential: Some("pull-secret team/acme-registry".to_owned()),
            ..present("ghcr.io/acme/base:1", 120 << 20)
        },
        present("registry.k8s.io/kube-proxy:v1.35.0", 87 << 20),
        ImageStatus {
            required: false,
            message: Some("its nodeSelector or nodeAffinity selects other nodes".to_owned()),
            ..image("ghcr.io/acme/gpu:1", "NotForThisNode")
        },
    ];
    Status {
        node: "node-1".into(),
        runtime: "containerd 2.1.9".to_owned(),
        lists: vec![ListStatus {
            source: "prepull/prepull".into(),
            revision: "bb5d57948290".into(),
            problems: vec![
                "line 4, column 22: images[1].imagePullPolicy: `Sometimes` is no pull policy; write one of Always, IfNotPresent, Never".to_owned(),
            ],
            notes: vec!["limits.pullingNodes has no effect here: the list is a file".to_owned()],
            pins: false,
        }],
        warm: false,
        not_warm_reason: "2 of 10 required images are present; missing: ghcr.io/acme/web:2.9, quay.io/acme/model-server:v3, local/base:1 and 5 more".to_owned(),
        required: (2, 10),
        images: names.into(),
        pulls_in_flight: 2,
        cooldowns: vec![("docker.io".to_owned(), Duration::from_secs(95))],
        image_fs_used_ratio: Some(0.73),
        ..Status::default()
    }
}

/// A warm node.
pub fn warm() -> Status {
    Status {
        node: "node-1".into(),
        runtime: "containerd 2.1.9".to_owned(),
        warm: true,
        required: (1, 1),
        images: vec![present("registry.k8s.io/pause:3.10", 300 << 10)],
        ..Status::default()
    }
}

/// So many images that the page must leave some out: a tenth fails, a tenth waits, the rest is there.
pub fn many(count: usize) -> Status {
    let one = |n: usize| {
        let name = format!("registry-{}.example.com/team/application-{n}:v1.2.{n}", n % 7);
        match n % 10 {
            0 => failing(&name, ErrorClass::RegistryUnavailable, "dial tcp 192.0.2.1:443: i/o timeout", 3),
            1 => waiting(&name, Wait::Queue),
            _ => present(&name, 50 << 20),
        }
    };
    Status { required: (count * 8 / 10, count), images: (0..count).map(one).collect(), warm: false, ..at_work() }
}

/// What those write who want to be more than text.
pub const HOSTILE: [&str; 8] = [
    "<script>window.hit=1</script>",
    "\"><img src=x onerror=window.hit=1>",
    "' autofocus onfocus='window.hit=1",
    "</code></th></tr></table><h1>pwned</h1>",
    "<style>*{display:none}</style><base href=//evil.example.com><meta http-equiv=refresh content='0;url=//evil.example.com'>",
    "javascript:window.hit=1//{{7*7}}{% raw %}&lt;b&gt;<!--",
    "safe\u{202e}gpj.exe\u{2066}\u{200f}\u{61c}\u{feff}\u{2028}\u{e0041}",
    "\u{0}\u{7}\u{1b}[31mred\u{1b}]8;;http://evil.example.com\u{7}\r\n\u{9b}2J",
];

/// A node all of whose texts are hostile, in every state.
pub fn hostile() -> Status {
    let long = format!("registry.example.com/{}", "long/".repeat(600));
    let texts = HOSTILE.map(str::to_owned).into_iter().chain([long]);
    let images = texts.flat_map(|text| {
        let every = ["BackOff", "Missing", "Invalid", "Pulling", "Pending", "Present", "NotForThisNode"];
        every.map(|state| ImageStatus {
            canonical: Some(text.as_str().into()),
            message: Some(text.clone()),
            remedy: matches!(state, "BackOff" | "Missing" | "Invalid").then(|| text.clone()),
            attempt: 2,
            next_attempt: Some(text.clone()),
            downloaded_bytes: Some(u64::MAX),
            total_bytes: Some(1),
            bytes_per_second: Some(u64::MAX),
            seconds_left: Some(u64::MAX),
            elapsed_seconds: Some(u64::MAX),
            digest: Some(text.as_str().into()),
            size_bytes: Some(u64::MAX),
            credential: Some(text.clone()),
            problems: vec![text.clone(); 5],
            priority: i64::MIN,
            pin_problem: Some(text.clone()),
            ..image(&text, state)
        })
    });
    let all = HOSTILE.concat();
    Status {
        node: all.as_str().into(),
        runtime: all.clone(),
        runtime_problem: Some(all.clone()),
        lists: vec![ListStatus {
            source: all.as_str().into(),
            revision: all.as_str().into(),
            problems: HOSTILE.map(str::to_owned).into(),
            notes: HOSTILE.map(str::to_owned).into(),
            pins: true,
        }],
        warm: false,
        not_warm_reason: all,
        required: (0, 7),
        images: images.collect(),
        cooldowns: HOSTILE.map(|text| (text.to_owned(), Duration::MAX)).into(),
        image_fs_used_ratio: Some(f64::NAN),
        ..Status::default()
    }
}
