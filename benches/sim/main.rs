//! prepull-sim: many nodes with the agent's own planner, budget and spread, in simulated time; writes the tables and
//! pictures of docs/scaling.md. `make sim`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::print_stdout,
    clippy::expect_used,
    clippy::format_push_string,
    reason = "a bench"
)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts and seconds of a simulation")]

mod cluster;
mod registry;
mod svg;

use std::{fs, path::Path, time::Duration};

use cluster::{Faults, Outcomes, Scenario, Simulation, WATCH_LASTS};
use registry::Capacity;
use svg::{Line, chart};

/// Twelve images of 4.2 GB together.
const IMAGES: [u64; 12] = [1000, 800, 600, 400, 300, 300, 200, 200, 150, 100, 100, 50];
/// 50 Gbit/s, and 320 Mbit/s for each pull: 156 pulls of three a node, 52 nodes, fill the line.
const REGISTRY: Capacity =
    Capacity { bandwidth: 6.25e9, each: 40e6, connections: 2000, begun_each_second: 100.0, burst: 500.0 };
/// What the cap may cost at 5,000 nodes and 50 slots, over the ideal.
const MOST_OVER: f64 = 0.1;
/// Runs of that, each with another order of everything.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=5;
/// Body of a Lease as a kube-apiserver 1.35 sends it when a node holds it, and as an agent writes it.
const LEASE_BYTES: (u64, u64) = (840, 400);

fn scenario(name: &str, nodes: usize, cap: Option<u32>, spread: u64) -> Scenario {
    Scenario {
        name: name.to_owned(),
        nodes,
        cap,
        spread: Duration::from_secs(spread),
        images: IMAGES.to_vec(),
        registry: REGISTRY,
        faults: Faults::default(),
    }
}

fn main() {
    let mut table = String::from(
        "| nodes | list | 50 % warm | 99 % warm | all warm | ideal | nodes at once | pulls at once | 429s | requests a node | bodies a node | busiest second | in the hour after |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let alone = last(&Simulation::new(&scenario("", 1, None, 0), 1).run());
    let mut pictures: Vec<(Scenario, Outcomes)> = Vec::new();
    for (nodes, cap, spread) in [(100, 10, 60), (1000, 50, 600), (5000, 50, 3600), (20_000, 200, 3600)] {
        for scenario in [
            scenario("no limit", nodes, None, 0),
            scenario(&format!("`spread: {}m`", spread / 60), nodes, None, spread),
            scenario(&format!("`pullingNodes: {cap}`"), nodes, Some(cap), 0),
        ] {
            let outcomes = Simulation::new(&scenario, 1).run();
            assert!(outcomes.warm.len() == nodes, "every node becomes warm");
            assert!(outcomes.afterwards == 0, "a warm node asks for nothing");
            let ideal = ideal(&scenario, alone);
            if let Some(cap) = scenario.cap {
                assert!(outcomes.most_nodes <= cap as usize, "{} nodes pulled at once", outcomes.most_nodes);
            }
            let row = row(&scenario, &outcomes, ideal);
            print!("{row}");
            table += &row;
            if nodes == 5000 {
                pictures.push((scenario, outcomes));
            }
        }
    }
    let seeds = seeds(alone);
    let faults = faults();
    let renewals = format!(
        "A warm agent begins its watch again each {WATCH_LASTS:.0} s: {:.1} requests a second of 5,000 nodes together, and nothing else.\n",
        5000.0 / WATCH_LASTS
    );
    let text = format!("{table}\nOne node alone takes {alone:.0} s. {renewals}\n{seeds}\n{faults}");
    println!("{seeds}{faults}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("PREPULL_SIM_WRITE").is_some() {
        put(&root.join("docs/scaling.md"), &text);
        for (file, picture) in [("scaling-warm.svg", warm(&pictures)), ("scaling-pulling.svg", pulling(&pictures))] {
            fs::write(root.join("docs/images").join(file), picture).expect("the picture can be written");
        }
    }
}

fn last(outcomes: &Outcomes) -> f64 {
    outcomes.warm.last().copied().unwrap_or(f64::NAN)
}

/// The larger of two times: all bytes over the whole line, and what one node takes alone, by all nodes, over the slots.
fn ideal(scenario: &Scenario, alone: f64) -> f64 {
    let bytes = IMAGES.iter().sum::<u64>() as f64 * 1e6;
    let line = bytes * scenario.nodes as f64 / REGISTRY.bandwidth;
    scenario.cap.map_or(alone, |cap| alone * scenario.nodes as f64 / f64::from(cap)).max(line)
}

/// What is promised of 5,000 nodes and 50 slots holds in whichever order things happen.
fn seeds(alone: f64) -> String {
    let scenario = scenario("", 5000, Some(50), 0);
    let ideal = ideal(&scenario, alone);
    let over: Vec<f64> = SEEDS
        .map(|seed| {
            let outcomes = Simulation::new(&scenario, seed).run();
            let (most, over) = (outcomes.most_nodes, last(&outcomes) / ideal - 1.0);
            assert!(most <= 50, "{most} of 5,000 nodes pulled at once under pullingNodes: 50 (seed {seed})");
            assert!(
                over <= MOST_OVER,
                "5,000 nodes under pullingNodes: 50 were warm {:.1} % after the ideal of {ideal:.0} s, more than {:.0} % (seed {seed})",
                over * 100.0,
                MOST_OVER * 100.0
            );
            over * 100.0
        })
        .collect();
    let (least, most) = (over.iter().copied().fold(f64::INFINITY, f64::min), over.iter().copied().fold(0.0, f64::max));
    format!(
        "5,000 nodes with `pullingNodes: 50`, {} times in another order of everything: all were warm {least:.1} to {most:.1} % after the ideal, and never more than 50 pulled at once. `make sim` fails above {:.0} %.\n",
        over.len(),
        MOST_OVER * 100.0
    )
}

fn row(scenario: &Scenario, outcomes: &Outcomes, ideal: f64) -> String {
    let share = |share: f64| outcomes.warm[((outcomes.warm.len() as f64 * share).ceil() as usize).max(1) - 1];
    let asked = outcomes.looks + outcomes.writes;
    let nodes = scenario.nodes as u64;
    let bytes = outcomes.looks * LEASE_BYTES.0 + outcomes.writes * (LEASE_BYTES.0 + LEASE_BYTES.1);
    format!(
        "| {nodes} | {} | {:.0} s | {:.0} s | {:.0} s | {ideal:.0} s ({:+.1} %) | {} | {} | {} | {:.1} | {:.0} KB | {} | {} |\n",
        scenario.name,
        share(0.5),
        share(0.99),
        last(outcomes),
        (last(outcomes) / ideal - 1.0) * 100.0,
        outcomes.most_nodes,
        outcomes.most_pulls,
        outcomes.refused,
        asked as f64 / nodes as f64,
        bytes as f64 / nodes as f64 / 1000.0,
        outcomes.busiest_second,
        outcomes.afterwards
    )
}

/// Long pulls, and holders that lose the API server or are gone.
fn faults() -> String {
    let faults = Faults { at: 120.0, cut_off: (10, 900.0), gone: 10 };
    let scenario = Scenario { images: vec![20_000, 2000], faults, ..scenario("", 1000, Some(50), 0) };
    let outcomes = Simulation::new(&scenario, 1).run();
    assert!(
        outcomes.most_reachable <= 50,
        "{} nodes that the API server reaches pulled at once",
        outcomes.most_reachable
    );
    assert!(
        outcomes.most_nodes <= 50 + faults.cut_off.0,
        "{} nodes pulled at once, {} of them at most cut off from the API server",
        outcomes.most_nodes,
        faults.cut_off.0
    );
    format!(
        "With 1,000 nodes, `pullingNodes: 50` and an image of 20 GB, two minutes after the edit 10 nodes that hold a slot are cut off from the API server for 15 minutes and 10 others are gone for good: at most {} nodes pull at once that the API server reaches, and {} with those that are cut off and finish their pull. {} nodes are warm in the end, after {:.0} s.\n",
        outcomes.most_reachable,
        outcomes.most_nodes,
        outcomes.warm.len(),
        last(&outcomes)
    )
}

fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let each = (points.len() / 240).max(1);
    let end = points.last().copied();
    points.into_iter().step_by(each).chain(end).collect()
}

fn warm(runs: &[(Scenario, Outcomes)]) -> String {
    let line = |(scenario, outcomes): &(Scenario, Outcomes)| {
        let share = |n: usize| (n + 1) as f64 / scenario.nodes as f64 * 100.0;
        let points = outcomes.warm.iter().enumerate().map(|(n, at)| (at / 60.0, share(n))).collect();
        Line { name: scenario.name.replace('`', ""), points: thinned(points) }
    };
    chart(
        "5,000 nodes: which part of them is warm",
        "minutes since the edit",
        "%",
        &runs.iter().map(line).collect::<Vec<_>>(),
    )
}

fn pulling(runs: &[(Scenario, Outcomes)]) -> String {
    let line = |(scenario, outcomes): &(Scenario, Outcomes)| {
        let points = outcomes.pulling.iter().enumerate().map(|(n, nodes)| (n as f64 / 6.0, *nodes as f64)).collect();
        Line { name: scenario.name.replace('`', ""), points: thinned(points) }
    };
    chart(
        "5,000 nodes: how many pull at once",
        "minutes since the edit",
        "nodes",
        &runs.iter().map(line).collect::<Vec<_>>(),
    )
}

/// Replaces what stands between the two marks.
fn put(file: &Path, text: &str) {
    const MARKS: (&str, &str) = ("<!-- made by `make sim` -->\n", "<!-- end of what `make sim` makes -->\n");
    let old = fs::read_to_string(file).expect("docs/scaling.md can be read");
    let (before, rest) = old.split_once(MARKS.0).expect("the first mark stands in docs/scaling.md");
    let (_, after) = rest.split_once(MARKS.1).expect("the last mark stands in docs/scaling.md");
    fs::write(file, format!("{before}{}{text}{}{after}", MARKS.0, MARKS.1)).expect("docs/scaling.md can be written");
}
