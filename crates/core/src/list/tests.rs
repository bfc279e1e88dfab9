use super::*;
use crate::image_ref::PullPolicy;
use proptest::prelude::*;

fn parse(text: &str) -> ImageList {
    ImageList::parse(text).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    parse(text).problems.iter().map(ToString::to_string).collect()
}

/// The example of the design, every field written.
const FULL: &str = r#"
defaults:
  imagePullSecrets: [{name: acme-registry}]
limits:
  parallelPulls: auto
  parallelPullsPerRegistry: 2
  pullingNodes: 50
  spread: 30s
  maxDiskUsage: 80%
  resumeDiskUsage: 75%
  maxPinnedSize: 20Gi
  maxIOPressure: 40
  pullTimeout: 30m
  stallTimeout: 2m
images:
  - registry.k8s.io/pause:3.10
  - image: ghcr.io/acme/model-server:v3
    imagePullPolicy: IfNotPresent
    imagePullSecrets: [{name: other}]
    serviceAccountName: runner
    nodeSelector: {accelerator: h100}
    runtimeHandler: ""
    nodeAffinity:
      nodeSelectorTerms: []
    priority: 100
    refreshInterval: 1h
    required: true
    pin: false
    pullTimeout: 1h
"#;

#[test]
fn every_field_is_read() {
    let list = parse(FULL);
    assert_eq!(list.problems, []);
    assert_eq!(list.limits.max_pinned_size, Some(20 << 30));
    assert_eq!(list.limits.parallel_pulls_per_registry, Some(2));
    let specs: Vec<_> = list.entries.iter().map(|e| e.spec.clone().unwrap()).collect();
    assert_eq!(*specs[0].image_pull_secrets, ["acme-registry".to_owned()]);
    assert_eq!(*specs[1].image_pull_secrets, ["other".to_owned()]);
    assert_eq!(specs[1].priority, 100);
    assert_eq!(specs[1].pull_timeout, Some(std::time::Duration::from_hours(1)));
    assert_eq!(specs[1].node_selector.get("accelerator").map(String::as_str), Some("h100"));
}

#[test]
fn comments_are_nothing_wherever_they_stand() {
    let text = "# first\n---\n# head\ndefaults: # why\n  # above\n  priority: 1 # beside\nimages: # all\n  # the first\n  - q.io/a:1 # small\n\n  # the second\n  - image: q.io/b:1 # large\n    # more\n    pin: true\n  - {image: q.io/c:1, # flow\n     pin: true}\n# last\n";
    let list = parse(text);
    assert_eq!(list.problems, []);
    let images: Vec<_> = list.entries.iter().map(|e| &*e.image).collect();
    assert_eq!(images, ["q.io/a:1", "q.io/b:1", "q.io/c:1"]);
}

#[test]
fn an_empty_list_is_a_list() {
    for text in ["images:\n", "images: []\n", "{}"] {
        assert!(parse(text).entries.is_empty(), "{text:?}");
        assert_eq!(parse(text).problems, [], "{text:?}");
    }
}

#[test]
fn an_empty_text_is_not_an_empty_list() {
    for text in ["", " \n\n", "\u{feff}", "---\n", "# nothing yet\n", "---\n---\n# nothing\n...\n", "~", "null\n"] {
        let refused = ImageList::parse(text).unwrap_err().to_string();
        assert!(refused.contains("the list is empty; write `images: []`"), "{text:?}: {refused}");
    }
}

#[test]
fn empty_documents_around_the_list_are_ignored() {
    let list = "images: [q.io/a:1]\n";
    for (before, after) in [
        ("---\n", "---\n"),
        ("---\n---\n", "...\n"),
        ("# generated\n---\n", "---\n# the end\n"),
        ("---\n# nothing here\n---\n# nor here\n---\n", "---\n---\n# the end\n---\n"),
        ("---\nnull\n---\n", "---\n~\n"),
    ] {
        let text = format!("{before}{list}{after}");
        let list = parse(&text);
        assert_eq!((list.entries.len(), &list.problems[..]), (1, &[][..]), "{text:?}");
        let two = ImageList::parse(&format!("{text}---\nimages: []\n")).unwrap_err();
        assert!(two.message.contains("a second document begins"), "{two}");
    }
}

#[test]
fn comments_are_left_out_wherever_they_stand() {
    let list = parse(
        "# top\nlimits: # here\n  # and here\n  parallelPulls: 2 # two\nimages: # below\n  # each\n  - quay.io/a:1 # this\n  # between\n  - image: quay.io/b:1\n    # inside\n    pin: true\n# end\n",
    );
    assert_eq!(list.problems, []);
    assert_eq!(list.entries.len(), 2);
}

#[test]
fn a_list_without_images_beside_unknown_fields_is_refused() {
    let refused = |text: &str| ImageList::parse(text).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            refused("limits: {parallelPulls: 2}\nimges:\n  - quay.io/a:1\n"),
            refused("images: text\n"),
            refused("images: {a: 1}\n"),
            refused("x-anchors: &a {pin: true}\n"),
            refused("data:\n  images.yaml: text\n"),
        ]
        .join("\n")
    );
    for empty in ["defaults: {pin: true}\n", "limits: {parallelPulls: 2}\n", "limits:\ndefaults:\n", "images: ~\n"] {
        assert_eq!(parse(empty).entries.len(), 0, "{empty:?}");
    }
    let list = parse("x-anchors: &a {pin: true}\nimages: []\n");
    assert_eq!((list.entries.len(), list.problems.len()), (0, 0));
}

#[test]
fn a_mistake_in_defaults_never_widens_what_entries_do() {
    let why = |text: &str| -> Vec<String> {
        let told = |e: &Entry| e.spec.as_ref().map_or_else(Clone::clone, |_| "fine".to_owned());
        parse(text).entries.iter().map(told).collect()
    };
    let own = "{image: quay.io/b:1, nodeSelector: {gpu: a}}";
    for (defaults, named) in [
        ("{nodeSelector: {gpu: true}}", "`defaults.nodeSelector` (line 1)"),
        ("{nodeSelecter: {gpu: a}}", "`defaults.nodeSelecter` (line 1)"),
        ("{selector: {gpu: a}}", "`defaults.selector` (line 1)"),
        ("{nodeSelector: {gpu: a}, nodeSelector: {gpu: b}}", "`defaults.nodeSelector` (line 1)"),
    ] {
        let told = why(&format!("defaults: {defaults}\nimages: [quay.io/a:1, {own}]\n"));
        assert!(told[0].starts_with(named), "{defaults}: {told:?}");
        assert!(told[0].contains("write `nodeSelector` in this entry"), "{told:?}");
        assert_eq!(told[1], "fine", "{defaults}");
    }
    for defaults in ["text", "[a]", "{<<: 1}", "{nodeAffinity: {nodeSelectorTerms: 1}}", "{affinity: {}}"] {
        let told = why(&format!("defaults: {defaults}\nimages: [quay.io/a:1, {own}]\n"));
        assert!(told.iter().all(|t| t.starts_with("`defaults")), "{defaults}: {told:?}");
    }
    // the fields that select nothing, and names that look like none of those that do
    let told = why("defaults: {priority: high}\nimages: [quay.io/a:1, {image: quay.io/b:1, priority: 1}]\n");
    assert!(told[0].starts_with("`defaults.priority` (line 1)") && told[1] == "fine", "{told:?}");
    for defaults in ["{imagePullPolcy: Never}", "{burst: 1, burst: 2}", "{image: quay.io/a:1}"] {
        let text = format!("defaults: {defaults}\nimages: [quay.io/a:1]\n");
        assert_eq!(why(&text), ["fine"], "{defaults}");
        assert!(!parse(&text).problems.is_empty());
    }
    assert!(parse("defaults: {required: perhaps}\nimages: [quay.io/a:1]").entries[0].required);
}

#[test]
fn tags_aliases_and_nothing_have_a_word_of_their_own() {
    let list = parse("images:\n  - !!str 12\n  - {image: !!str true}\n");
    assert_eq!(list.problems, []);
    assert_eq!(&*list.entries[0].image, "12");
    let text = "\
images:
  - !custom quay.io/a:1
  - image: quay.io/b:1
    priority: 0x10
  - image: quay.io/b:2
    priority: !!int 3
  -
  - image: &name Bad//name
  - *name
  - !!map {image: quay.io/c:1}
  - image: quay.io/d:1
    refreshInterval: 500ms
";
    insta::assert_snapshot!(problems(text).join("\n"));
}

#[test]
fn one_bad_entry_never_stops_the_others() {
    let list = parse(
        "images:\n  - quay.io/a:1\n  - Not//valid\n  - quay.io/b:1\n  - image: quay.io/c:1\n    imagePullPolicy: Sometimes\n",
    );
    let usable: Vec<_> = list.entries.iter().filter(|e| e.spec.is_ok()).map(|e| &*e.image).collect();
    assert_eq!(usable, ["quay.io/a:1", "quay.io/b:1"]);
    assert_eq!(list.invalid_entries(), 2);
    assert_eq!(&*list.entries[1].image, "Not//valid");
    assert_eq!(&*list.entries[3].image, "quay.io/c:1");
}

#[test]
fn problems_have_a_place_a_path_and_a_remedy() {
    let text = "\
limits:
  parallelPulls: many
  maxDiskUsage: 80
  spread: 30
  resumeDiskUsage: 90%
  burst: 1
images:
  - image: quay.io/a:1
    imagePullPolcy: Always
  - image: quay.io/b:1
    imagePullPolicy: always
  - image: 5
  - 12
  - {}
  - image: quay.io/d:1
    refreshInterval: soon
    required: yes
    priority: high
    nodeSelector: {gpu: true}
    imagePullSecrets: [acme]
  - image: quay.io/e:1
    nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {}}
  - image: quay.io/f:1
    serviceAccountName: team/runner
extra: 1
";
    insta::assert_snapshot!(problems(text).join("\n"));
}

#[test]
fn a_text_that_is_no_list_is_refused_with_its_place() {
    let refused = |text: &str| ImageList::parse(text).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            refused("images: [a\n"),
            refused("- quay.io/a:1\n"),
            refused("just text"),
            refused("images:\n\t- a\n"),
            refused("images: []\n---\nimages: []\n"),
            refused("images: [*nothing]\n"),
            refused(&format!("{}1{}", "[".repeat(40), "]".repeat(40))),
        ]
        .join("\n")
    );
}

#[test]
fn anchors_and_merges_work_and_a_bomb_does_not() {
    let list = parse("x: &d {pin: true}\nimages:\n  - <<: *d\n    image: quay.io/a:1\n");
    assert!(list.entries[0].spec.as_ref().unwrap().pin);
    let mut bomb = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
    for level in 1..9 {
        let before = level - 1;
        let refs = vec![format!("*a{before}"); 10].join(",");
        bomb.extend([format!("a{level}: &a{level} [{refs}]\n")]);
    }
    assert!(ImageList::parse(&bomb).unwrap_err().message.contains("more than"));
}

#[test]
fn repeated_fields_are_named() {
    assert_eq!(
        problems("images:\n  - image: quay.io/a:1\n    pin: true\n    pin: false\n"),
        [
            "line 4, column 5: images[0]: duplicate key `pin` (the first is on line 3): this value is ignored; keep one of them"
        ]
    );
}

#[test]
fn policies_default_as_in_kubernetes() {
    let list =
        parse("defaults: {imagePullPolicy: Never}\nimages: [quay.io/a, {image: quay.io/b, imagePullPolicy: Always}]");
    let policies: Vec<_> = list.entries.iter().map(|e| e.spec.as_ref().unwrap().policy).collect();
    assert_eq!(policies, [PullPolicy::Never, PullPolicy::Always]);
    assert_eq!(parse("images: [quay.io/a]").entries[0].spec.as_ref().unwrap().policy, PullPolicy::Always);
}

#[test]
fn ten_thousand_entries_are_read() {
    use std::fmt::Write as _;
    let mut text = "images:\n".to_owned();
    for n in 0..10_000 {
        writeln!(text, "  - image: registry.example.com/team/app-{n}:v{n}\n    priority: {n}").unwrap();
    }
    let list = parse(&text);
    assert_eq!(list.entries.len(), 10_000);
    assert_eq!(list.problems, []);
}

/// Anybody may write a team's ConfigMap, and one thread does everything on the node.
#[test]
fn hostile_lists_take_no_time() {
    const MOST: usize = 1 << 20;
    const LESS: usize = MOST / 8;
    let many = |most: usize, one: &dyn Fn(usize) -> String| {
        let mut all = String::new();
        for n in 0.. {
            all += &one(n);
            if all.len() > most - 200 {
                return all;
            }
        }
        all
    };
    let labels = many(MOST, &|n| format!("k{n}: v, "));
    let less = many(LESS, &|n| format!("k{n}: v, "));
    let same = many(LESS, &|_| "k: v, ".to_owned());
    let shapes = [
        ("labels", format!("images: [{{image: a, nodeSelector: {{{labels}}}}}]")),
        ("labels of defaults", format!("defaults: {{nodeSelector: {{{less}}}}}\nimages: [a]")),
        ("one label over and over", format!("images: [{{image: a, nodeSelector: {{{same}}}}}]")),
        ("fields of an entry", format!("images: [{{image: a, {less}}}]")),
        ("fields of the list", format!("{{images: [a], {less}}}")),
        ("merged fields", format!("x: &x {{{labels}}}\nimages: [{{image: a, nodeSelector: {{<<: *x, <<: *x}}}}]")),
        (
            "secrets",
            format!("images: [{{image: a, imagePullSecrets: [{}]}}]", many(LESS, &|n| format!("{{name: s{n}}}, "))),
        ),
        ("entries with a problem", format!("images: [{}]", many(LESS, &|n| format!("{{a: {n}}}, ")))),
        (
            "wrong values",
            format!("images: [{{image: a, nodeAffinity: {{nodeSelectorTerms: [{}]}}}}]", "1,".repeat(LESS / 2)),
        ),
        ("a long name", format!("images: [{{image: a, {}: 1}}]", "x".repeat(MOST))),
        ("a long image over and over", format!("x: &x {}\nimages: [{}]", "x".repeat(MOST / 2), "*x,".repeat(MOST / 6))),
    ];
    for (shape, text) in shapes {
        let began = tokio::time::Instant::now();
        let list = ImageList::parse(&text);
        assert!(began.elapsed() < std::time::Duration::from_secs(15), "{shape}: {:?}", began.elapsed());
        if let Ok(list) = list {
            assert!((1..=501).contains(&list.problems.len()), "{shape}: {} problems", list.problems.len());
            let all_valid = list.entries.iter().all(|e| e.spec.is_ok());
            assert!(!all_valid, "{shape} was taken");
        }
    }
}

#[test]
fn the_strictest_limits_win() {
    let a = Limits { max_disk_usage: 70, max_pinned_size: Some(7), ..Limits::default() };
    let b = Limits { parallel_pulls: Parallel::Fixed(2), max_io_pressure: Some(10.0), ..Limits::default() };
    let both = a.strictest(&b);
    assert_eq!(both.max_pinned_size, Some(7), "a list without a cap is under the other's");
    let larger = Limits { max_pinned_size: Some(8), ..Limits::default() };
    assert_eq!(larger.strictest(&both).max_pinned_size, Some(7), "and none can raise it");
    assert_eq!((both.max_disk_usage, both.parallel_pulls, both.max_io_pressure), (70, Parallel::Fixed(2), Some(10.0)));
}

#[test]
fn a_limit_that_cannot_be_read_does_not_mean_that_there_is_none() {
    let list =
        ImageList::parse("limits: {pullingNodes: 0, maxPinnedSize: 20GB, maxIOPressure: high}\nimages: [q.io/a:1]")
            .unwrap();
    assert_eq!((list.limits.pulling_nodes, list.limits.max_io_pressure), (Some(1), Some(10.0)));
    assert!(list.limits.pin_cap_is_unknown());
    assert_eq!(list.problems.len(), 3);
    for problem in &list.problems {
        assert!(problem.message.contains("not in force"), "{problem}");
    }
    let good = ImageList::parse("limits: {maxPinnedSize: 0}\nimages: []").unwrap();
    assert!(good.problems.is_empty() && good.limits.max_pinned_size == Some(0) && !good.limits.pin_cap_is_unknown());
    assert!(good.limits.strictest(&list.limits).pin_cap_is_unknown(), "what the other list wants is not known");
}

#[test]
fn a_revision_is_the_texts_own() {
    assert_eq!(revision(""), "e3b0c44298fc");
    assert_ne!(revision("images: []"), revision("images: [ ]"));
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,200}|([a-zA-Z:{}\\[\\]&*<\"'#\n -]{0,200})") {
        let _ = ImageList::parse(&text);
    }
}
