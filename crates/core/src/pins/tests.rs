use super::*;

fn record(name: &str, digest: &str, labels: &str) -> Record {
    Record {
        name: name.to_owned(),
        digest: digest.to_owned(),
        size: 10,
        pinned: matches!(labels, "ours" | "foreign"),
        ours: matches!(labels, "ours" | "mark"),
    }
}

/// The three records of an image, of which the name's and the ID's have these labels.
fn image(name: &str, labels: &str) -> Vec<Record> {
    vec![
        record(&format!("q.io/{name}:1"), name, labels),
        record(&format!("q.io/{name}@sha256:{name}"), name, ""),
        record(&format!("sha256:id-{name}"), name, labels),
    ]
}

fn want(name: &str, size: u64) -> Wanted {
    Wanted { name: format!("q.io/{name}:1").into(), digest: name.into(), size }
}

fn pinning(wanted: &[Wanted], cap: Option<u64>) -> Pinning {
    Pinning { wanted: wanted.to_vec(), complete: true, cap, held: Vec::new() }
}

/// Steps in short: `+name` and `-name`.
fn steps(plan: &Plan) -> Vec<String> {
    let sign = |step: &Step| if step.change == Change::Unpin { "-" } else { "+" };
    plan.steps.iter().map(|step| format!("{}{}", sign(step), step.record)).collect()
}

fn carried_out(records: &[Record], plan: &Plan) -> Vec<Record> {
    let mut records = records.to_vec();
    for step in &plan.steps {
        let record = records.iter_mut().find(|r| r.name == step.record).unwrap();
        (record.pinned, record.ours) = match step.change {
            Change::Pin(_) => (true, true),
            Change::Unpin => (false, false),
        };
    }
    records
}

#[test]
fn name_and_id_are_labelled_and_then_nothing_is_left_to_do() {
    let records = image("a", "");
    let pinning = pinning(&[want("a", 1)], None);
    let first = plan(&pinning, &records);
    assert_eq!(steps(&first), ["+sha256:id-a", "+q.io/a:1"]);
    assert!(first.ours_left && first.witness.is_none());
    let second = plan(&pinning, &carried_out(&records, &first));
    assert_eq!((steps(&second), second.ours_left), (vec![], true));
    assert_eq!(second.witness.as_deref(), Some("q.io/a:1"));
}

#[test]
fn a_pull_that_took_the_names_label_away_brings_it_back() {
    let mut records = image("a", "ours");
    records[0] = record("q.io/a:1", "a", "");
    assert_eq!(steps(&plan(&pinning(&[want("a", 1)], None), &records)), ["+q.io/a:1"]);
    // the label that counts was taken away by somebody, and ours was left
    records[0] = record("q.io/a:1", "a", "mark");
    assert_eq!(steps(&plan(&pinning(&[want("a", 1)], None), &records)), ["+q.io/a:1"]);
}

#[test]
fn a_moved_tag_takes_its_pin_along() {
    let mut records = image("b", "");
    records[0] = record("q.io/a:1", "b", "");
    records.extend([record("sha256:id-a", "a", "ours"), record("q.io/a@sha256:a", "a", "")]);
    let moved = plan(&pinning(&[want("a", 1)], None), &records);
    assert_eq!(steps(&moved), ["-sha256:id-a", "+sha256:id-b", "+q.io/a:1"]);
}

#[test]
fn what_is_no_longer_listed_is_unpinned_and_what_somebody_else_pinned_is_not() {
    let records = [image("a", "ours"), image("b", "foreign"), image("c", "mark")].concat();
    let none = plan(&pinning(&[], None), &records);
    assert_eq!(steps(&none), ["-q.io/a:1", "-sha256:id-a", "-q.io/c:1", "-sha256:id-c"]);
    assert!(!none.ours_left);
    assert_eq!(steps(&none), take_back(&records).iter().map(|s| format!("-{}", s.record)).collect::<Vec<_>>());
}

#[test]
fn a_foreign_pin_is_enough() {
    let records = image("a", "foreign");
    let foreign = plan(&pinning(&[want("a", 1)], Some(0)), &records);
    assert_eq!(steps(&foreign), Vec::<String>::new());
    assert!(foreign.left_out.is_empty() && !foreign.ours_left);
    assert_eq!(foreign.witness.as_deref(), Some("q.io/a:1"));
    // ours was there first: it stays while it is wanted, and goes alone
    let mut both = image("a", "ours");
    both[1].pinned = true;
    assert_eq!(steps(&plan(&pinning(&[want("a", 1)], None), &both)), Vec::<String>::new());
    assert_eq!(steps(&plan(&pinning(&[], None), &both)), ["-q.io/a:1", "-sha256:id-a"]);
}

#[test]
fn nothing_is_unpinned_while_not_everything_that_is_wanted_is_known() {
    let records = [image("a", "ours"), image("b", "")].concat();
    let unknown = Pinning { complete: false, ..pinning(&[want("b", 1)], None) };
    assert_eq!(steps(&plan(&unknown, &records)), ["+sha256:id-b", "+q.io/b:1"]);
    // what stays counts
    let capped = Pinning { cap: Some(10), ..unknown };
    let plan = plan(&capped, &records);
    assert_eq!((steps(&plan), plan.left_out[0].pinned, plan.ours_left), (vec![], 10, true));
}

#[test]
fn an_entry_that_cannot_be_used_unpins_nothing() {
    let records = image("a", "ours");
    let held = Pinning { held: vec!["q.io/a:1".into()], ..pinning(&[], None) };
    let plan = plan(&held, &records);
    assert!(plan.steps.is_empty() && plan.ours_left);
}

#[test]
fn the_cap_goes_by_order_and_each_that_still_fits_is_pinned() {
    let records = [image("a", "ours"), image("b", ""), image("c", ""), image("f", "foreign")].concat();
    // 10 of somebody else's
    let capped = |cap| pinning(&[want("b", 20), want("a", 30), want("c", 5)], Some(cap));
    let plan = plan(&capped(40), &records);
    assert_eq!(steps(&plan), ["-q.io/a:1", "-sha256:id-a", "+sha256:id-b", "+q.io/b:1", "+sha256:id-c", "+q.io/c:1"]);
    assert_eq!(plan.left_out, [LeftOut { name: "q.io/a:1".into(), size: 30, pinned: 30 }]);
    assert!(super::plan(&capped(65), &records).left_out.is_empty());
    assert_eq!(super::plan(&capped(64), &records).left_out.len(), 1);
    assert_eq!(super::plan(&capped(0), &records).left_out.len(), 3);
}

#[test]
fn two_names_of_one_image_count_once() {
    let mut records = image("a", "");
    records.push(record("q.io/other:1", "a", ""));
    let plan = plan(&pinning(&[want("a", 7), want("other", 7)], Some(7)), &records);
    assert_eq!(steps(&plan), ["+sha256:id-a", "+q.io/a:1", "+q.io/other:1"]);
    assert!(plan.left_out.is_empty());
}

#[test]
fn what_has_gone_from_the_store_is_left_alone() {
    let plan = plan(&pinning(&[want("a", 7)], Some(7)), &image("b", ""));
    assert_eq!(plan, Plan::default());
}

mod properties {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn any_records() -> impl Strategy<Value = Vec<Record>> {
        let labels = prop::sample::select(vec!["", "ours", "foreign", "mark"]);
        let one = ("[a-f]", labels.clone(), labels.clone(), labels);
        vec(one, 0..6).prop_map(|images| {
            let mut seen = HashSet::new();
            let mut all = Vec::new();
            for (name, a, b, c) in images {
                if seen.insert(name.clone()) {
                    let of_it = image(&name, "");
                    all.extend(of_it.iter().zip([a, b, c]).map(|(r, labels)| record(&r.name, &r.digest, labels)));
                }
            }
            all
        })
    }

    fn any_pinning() -> impl Strategy<Value = Pinning> {
        (vec("[a-f]", 0..6), prop::option::of(0_u64..60), any::<bool>()).prop_map(|(names, cap, complete)| {
            let wanted: Vec<_> = names.iter().map(|n| want(n, 10)).collect();
            Pinning { complete, ..pinning(&wanted, cap) }
        })
    }

    proptest! {
        #[test]
        fn one_round_is_enough_and_nobody_elses_label_changes(records in any_records(), pinning in any_pinning()) {
            let first = plan(&pinning, &records);
            let after = carried_out(&records, &first);
            let second = plan(&pinning, &after);
            prop_assert!(second.steps.is_empty(), "{second:?}");
            prop_assert_eq!(first.ours_left, after.iter().any(|r| r.ours));
            for (before, after) in records.iter().zip(&after).filter(|(before, _)| before.is_foreign()) {
                prop_assert_eq!(before, after);
            }
        }

        #[test]
        fn the_cap_holds_where_this_agent_decides(records in any_records(), pinning in any_pinning()) {
            let Some(cap) = pinning.cap.filter(|_| pinning.complete) else { return Ok(()) };
            let after = carried_out(&records, &plan(&pinning, &records));
            let digests = |which: &dyn Fn(&&Record) -> bool| {
                after.iter().filter(which).map(|r| r.digest.clone()).collect::<HashSet<_>>().len() as u64 * 10
            };
            let foreign = digests(&|r: &&Record| r.is_foreign());
            prop_assert!(digests(&|r: &&Record| r.pinned) <= cap.max(foreign));
        }
    }
}
