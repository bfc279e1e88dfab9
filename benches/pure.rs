//! The pure parts: reading a list of 10,000 entries, merging it, looking at 10,000 present images, and planning.
#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use std::{collections::HashMap, fmt::Write as _, hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use prepull::{
    clock::Moment,
    desired::{Desired, SourcedList},
    image_ref::ImageRef,
    list::{ImageList, affinity::NodeFacts},
    stock::{ListedImage, Observation, Stock},
};

const ENTRIES: usize = 10_000;

fn name(n: usize) -> String {
    format!("registry-{}.example.com/team/app-{n}:v{n}", n % 7)
}

fn text() -> String {
    (0..ENTRIES).fold("images:\n".to_owned(), |mut text, n| {
        writeln!(text, "  - image: {}\n    priority: {}", name(n), n % 10).unwrap();
        text
    })
}

fn lists() -> [SourcedList; 1] {
    let list = Arc::new(ImageList::parse(&text()).unwrap());
    [SourcedList { source: "bench".into(), revision: "r".into(), namespace: None, selected: false, list }]
}

fn present() -> Vec<ListedImage> {
    (0..ENTRIES)
        .map(|n| ListedImage { id: format!("sha256:{n:064x}"), repo_tags: vec![name(n)], ..ListedImage::default() })
        .collect()
}

fn benches(c: &mut Criterion) {
    let text = text();
    c.bench_function("read a list of 10,000 entries", |b| b.iter(|| ImageList::parse(black_box(&text)).unwrap()));
    let lists = lists();
    c.bench_function("merge 10,000 entries", |b| b.iter(|| Desired::merge(black_box(&lists), &NodeFacts::default())));
    let mut stock = Stock::new(true);
    stock.apply(Desired::merge(&lists, &NodeFacts::default()), Moment::default());
    let observation = Observation::new(Moment::default(), Some(present()), HashMap::new());
    c.bench_function("look at 10,000 present of 10,000 listed", |b| {
        b.iter(|| stock.looked_at(black_box(&observation), Moment::default()));
    });
    c.bench_function("plan 10,000 listed, all present", |b| b.iter(|| stock.plan(Moment::default())));
    c.bench_function("read an image name", |b| b.iter(|| ImageRef::parse(black_box("ghcr.io/acme/app:v1")).unwrap()));
}

criterion_group!(pure, benches);
criterion_main!(pure);
