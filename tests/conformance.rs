//! Random cases, compared with what the kubelet's own packages make of them.
//!
//! `tests/conformance/main.go` imports these packages and answers. `PREPULL_CONFORMANCE_SEED` chooses the cases (a
//! number, or `fresh`), `PREPULL_CONFORMANCE_CASES` multiplies how many there are, and what differs is shrunk to a
//! small case. Without Go the comparisons are ignored, unless `PREPULL_TEST_REQUIRE_ALL=1` demands them.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stdout, reason = "a test's output is for people")]

#[path = "conformance/keys.rs"]
mod keys;
#[path = "conformance/lookups.rs"]
mod lookups;
#[path = "conformance/names.rs"]
mod names;
#[path = "conformance/oracle.rs"]
mod oracle;
#[path = "conformance/plugins.rs"]
mod plugins;
#[path = "conformance/random.rs"]
mod random;

use std::{env, process::ExitCode, time::SystemTime};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::oracle::Oracle;

/// The cases that run where nobody chooses others.
const DEFAULT_SEED: u64 = 20_260_701;

/// How many cases of each kind are compared, and which.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    multiplier: u64,
}

impl Plan {
    fn from_env() -> Self {
        let seed = match env::var("PREPULL_CONFORMANCE_SEED").as_deref() {
            Ok("fresh") => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(DEFAULT_SEED, |since| u64::from(since.subsec_nanos()) ^ since.as_secs()),
            Ok(text) => text.parse().expect("PREPULL_CONFORMANCE_SEED is a number or `fresh`"),
            Err(_) => DEFAULT_SEED,
        };
        let multiplier = env::var("PREPULL_CONFORMANCE_CASES").map_or(1, |text| text.parse().expect("a whole number"));
        Self { seed, multiplier }
    }
}

/// Compares and returns how many cases there were, or the smallest case that differs.
type Compare = fn(&mut Oracle, Plan) -> Result<u64, String>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // a plugin's script that is being written in one thread must not be inherited by a process that another starts
    arguments.test_threads = Some(1);
    let plan = Plan::from_env();
    let comparisons: [(&str, Compare); 6] = [
        ("image_names_and_default_policies", names::compare),
        ("patterns", keys::compare),
        ("lookups", lookups::compare),
        ("plugin_sequences", plugins::compare_sequences),
        ("plugin_configurations", plugins::compare_configurations),
        ("plugin_answers", plugins::compare_answers),
    ];
    let missing = if arguments.list { None } else { oracle::build().err() };
    let required = env::var("PREPULL_TEST_REQUIRE_ALL").is_ok_and(|value| value == "1");
    if let Some(missing) = &missing {
        println!("conformance: {missing}");
    } else if !arguments.list {
        println!("conformance: PREPULL_CONFORMANCE_SEED={}", plan.seed);
    }
    let ignored = missing.is_some() && !required;
    let trials = comparisons.into_iter().map(|(name, compare)| {
        let missing = missing.clone();
        let run = move || match missing {
            Some(missing) => Err(Failed::from(missing)),
            None => compare(&mut Oracle::start(), plan)
                .map_err(Failed::from)
                .map(|count| println!("{name}: {count} cases agree")),
        };
        Trial::test(name, run).with_kind(if ignored { "needs Go" } else { "" }).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
