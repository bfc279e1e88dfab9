//! Keys and patterns: made at random for lookups, and compared on their own.

use prepull::credentials::keyring::pattern_matches;
use serde_json::json;

use crate::{
    Plan,
    oracle::Oracle,
    random::{Random, compare_all},
};

const CASES: u64 = 10_000;
/// Repositories as lookups see them.
pub(crate) const REPOSITORIES: [&str; 24] = [
    "docker.io/library/busybox",
    "docker.io/grafana/grafana",
    "localhost/app",
    "localhost:5000/app",
    "LOCALDOMAIN/app",
    "A/app",
    "quay.io/team/app",
    "quay.io/teammate/app",
    "r.example.com/app",
    "r.example.com/team/app",
    "r.example.com:5000/team/app",
    "r.example.com:443/team/app",
    "R.Example.com/app",
    "a.b.c.example.com/x/y/z",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com/app",
    "eu.gcr.io/p/a",
    "foo.azurecr.io/v1/app",
    "127.0.0.1:5000/app",
    "[2001:db8::1]:5000/app",
    "[2001:db8::1]/app",
    "[::1]:443/v2/app",
    "reg_istry.example.com/app",
    "index.docker.io/library/x",
    "r-1.example.com/a-b_c.d",
];
const NASTY: [&str; 40] = [
    "*", "*", "**", "?", "[", "]", "[a-z]", "[^a]", "\\", "^", "-", "%", "%41", "%2f", "%25", "%2541", "%c3%a9", "%00",
    "%5b", "%zz", "@", ":", ":5000", ":x", "/", "//", "#", "#%", "#a", ".", " ", "\n", "\u{7f}", "é", "a", "0", "u:p@",
    "<", "{", "\"",
];

pub(crate) fn compare(oracle: &mut Oracle, plan: Plan) -> Result<u64, String> {
    let mut random = Random::new(plan.seed);
    let make = |_| {
        let target = random.pick(&REPOSITORIES).to_owned();
        let pattern = key(&mut random, &target);
        let target = if random.one_in(4) { random.spoil(&target, &NASTY, 3) } else { target };
        (pattern, target)
    };
    compare_all(CASES * plan.multiplier, make, |(pattern, target)| {
        let kubelet = oracle.ask(&json!({"op": "match", "pattern": pattern, "target": target}))["matched"] == true;
        let ours = pattern_matches(pattern, target);
        (ours != kubelet).then(|| format!("{pattern:?} for {target:?}: {kubelet} in the kubelet, and {ours} here"))
    })
}

/// A key that often matches the repository, in one of the many ways to write one.
pub(crate) fn key(random: &mut Random, repository: &str) -> String {
    let of = if random.one_in(5) { random.pick(&REPOSITORIES) } else { repository };
    let (host, path) = of.split_once('/').unwrap();
    if random.one_in(6) {
        return random
            .pick(&[
                "https://index.docker.io/v1/",
                "https://index.docker.io/v1",
                "https://index.docker.io/v2/",
                "index.docker.io",
                "docker.io",
                "http://index.docker.io/",
                "https://registry-1.docker.io/v2/",
                "index.docker.io/v1/library",
                "*.docker.io",
                "",
                "/",
                "*",
                "*:5000",
                "[::1]",
                "[A::b]",
                "[fe80::1%25en0]:5000",
                "[::ffff:1.2.3.4]:80",
                "[1.2.3.4]",
                "a:b:5000",
                ":5000",
                "https://https://r.example.com",
            ])
            .to_owned();
    }
    let mut key = random.pick(&["", "", "", "https://", "http://", "HTTPS://", "ftp://", "//"]).to_owned();
    if random.one_in(12) {
        key.push_str(random.pick(&["user@", "user:pass@", "u%40v@", "a b@", "é@", "@", "%@"]));
    }
    let labels: Vec<String> = host.split('.').map(|label| glob(random, label)).collect();
    key.push_str(&labels.join("."));
    if random.one_in(8) {
        key.push_str(random.pick(&[":5000", ":443", ":", ":*", ".example.com", "."]));
    }
    match random.below(6) {
        0 => key.push_str(random.pick(&["/", "/v1/", "/v2/", "/v1", "/v2/v1/", "//", "/*", "/?a=b", "#f"])),
        1 | 2 => {
            key.push_str(random.pick(&["/", "/v1/", "/v2/"]));
            key.push_str(&path[..random.below(path.len() + 1)]);
        }
        _ => {}
    }
    if random.one_in(6) { random.spoil(&key, &NASTY, 2) } else { key }
}

fn glob(random: &mut Random, label: &str) -> String {
    let cut = random.below(label.len() + 1);
    match random.below(12) {
        0 => "*".to_owned(),
        1 => format!("{}*", &label[..cut]),
        2 => format!("*{}", &label[cut..]),
        3 => format!("{}*{}", &label[..cut], &label[cut..]),
        _ => label.to_owned(),
    }
}
