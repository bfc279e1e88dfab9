//! Image names and their default policies.

use prepull::image_ref::{ImageRef, PullPolicy};
use serde_json::json;

use crate::{
    Plan,
    oracle::Oracle,
    random::{Random, compare_all},
};

const CASES: u64 = 10_000;
const HOSTS: [&str; 22] = [
    "docker.io",
    "index.docker.io",
    "localhost",
    "LOCALHOST",
    "Upper",
    "quay.io",
    "r.example.com",
    "R.Example.COM",
    "127.0.0.1",
    "[2001:db8::1]",
    "[::1]",
    "[fe80::1%eth0]",
    "[::ffff:1.2.3.4]",
    "reg_istry.example.com",
    "-a.io",
    "a-.io",
    "a..io",
    "library",
    "é.io",
    "xn--e.io",
    "1.2",
    "a",
];
const PARTS: [&str; 22] = [
    "app", "team", "library", "busybox", "a.b", "a..b", "a__b", "a___b", "a--b", "a.-b", "a_.b", "App", "é", "a1", "0",
    ".a", "a.", "-a", "a-", "_a", "a b", "",
];
const TAGS: [&str; 12] = ["latest", "LATEST", "v1", "1.36", "_x", ".x", "-x", "x..y", "x+y", "", "é", "a:b"];
const NASTY: [&str; 26] = [
    "/", ":", "@", ".", "-", "_", "A", "a", "0", "[", "]", "%", " ", "\t", "\n", "é", "\u{130}", "\u{1c5}", "//", "::",
    "sha256:", "#", "?", "+", "=", "~",
];

pub(crate) fn compare(oracle: &mut Oracle, plan: Plan) -> Result<u64, String> {
    let mut random = Random::new(plan.seed);
    compare_all(CASES * plan.multiplier, |_| name(&mut random), |image| differs(oracle, image))
}

fn name(random: &mut Random) -> String {
    let mut name = String::new();
    if !random.one_in(4) {
        name.push_str(random.pick(&HOSTS));
        if random.one_in(3) {
            name.push(':');
            name.push_str(random.pick(&["5000", "443", "", "99999999", "x", "05"]));
        }
        name.push('/');
    }
    for index in 0..=random.below(3) {
        if index > 0 {
            name.push('/');
        }
        let good = !random.one_in(4);
        name.push_str(random.pick(if good { &PARTS[..5] } else { &PARTS }));
    }
    if random.one_in(40) {
        name.push_str(&"/long".repeat(random.below(60)));
    }
    if random.one_in(2) {
        name.push(':');
        name.push_str(random.pick(&TAGS));
        if random.one_in(20) {
            name.push_str(&"t".repeat(118 + random.below(12)));
        }
    }
    if random.one_in(4) {
        name.push('@');
        name.push_str(&digest(random));
    }
    match random.below(8) {
        0 => random.spoil(&name, &NASTY, 3),
        1 if random.one_in(8) => random.text(&["a", "0", "f"], 63, 65),
        _ => name,
    }
}

fn digest(random: &mut Random) -> String {
    let (algorithm, length) = match random.below(8) {
        0 => ("sha384", 96),
        1 => ("sha512", 128),
        2 => ("sha1", 40),
        3 => ("md5", 32),
        4 => ("sha256+b64", 64),
        _ => ("sha256", 64),
    };
    let length = if random.one_in(6) { length - 1 - random.below(31) } else { length };
    let digits: &[&str] = if random.one_in(6) { &["a", "F", "0"] } else { &["a", "f", "0", "9"] };
    format!("{algorithm}:{}", random.text(digits, length, length))
}

fn differs(oracle: &mut Oracle, image: &String) -> Option<String> {
    let answer = oracle.ask(&json!({"op": "name", "image": image}));
    let text = |field: &str| answer[field].as_str().unwrap().to_owned();
    let kubelet = text("error").is_empty().then(|| (text("repo"), text("tag"), text("digest")));
    let ours = ImageRef::parse(image).ok().map(|parsed| {
        let digest = parsed.digest().map(ToString::to_string).unwrap_or_default();
        let default = if digest.is_empty() { "latest" } else { "" };
        (parsed.lookup_key(), parsed.tag().unwrap_or(default).to_owned(), digest)
    });
    if ours != kubelet {
        return Some(format!("the kubelet reads {image:?} as {kubelet:?}, and this reads {ours:?}"));
    }
    let policy = PullPolicy::default_for(image).as_str();
    (policy != text("policy"))
        .then(|| format!("the default policy of {image:?} is {}, and here {policy}", text("policy")))
}
