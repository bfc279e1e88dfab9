use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use super::*;

fn agent(node: &str, ready: bool) -> Agent {
    let settings = Settings::of(&["--configmap=prepull/prepull".to_owned()], &BTreeMap::new());
    Agent {
        pod: format!("prepull-{node}").into(),
        uid: format!("uid-{node}").into(),
        node: node.into(),
        ready,
        not_running: None,
        settings: Arc::new(settings),
    }
}

fn wanted(revision: &str) -> Vec<Wanted> {
    let revision = Some(revision.to_owned());
    vec![Wanted { source: "prepull/prepull".to_owned(), revision, problem: None, passing: false }]
}

fn answer(warm: bool, revision: &str, images: &serde_json::Value) -> Said {
    let answer = json!({
        "node": "n", "warm": warm, "notWarmReason": if warm { "" } else { "1 of 2 required images are in the store" },
        "lists": [{"source": "prepull/prepull", "revision": revision, "problems": []}],
        "images": images, "fieldOfALaterVersion": {"a": 1},
    });
    Said::Answer(Box::new(Answer::parse(answer.to_string().as_bytes()).unwrap()))
}

#[test]
fn images_are_counted_by_where_they_are() {
    let list = wanted("r2");
    let mut picture = Picture::new("prepull", 5, &list);
    let failed = |class: &str| json!({"image": "shop/web:1", "state": "BackOff", "class": class, "message": "no\nsuch tag", "remedy": "push it"});
    let there = |image: &str| json!({"image": image, "state": "Present", "digest": "sha256:1"});
    picture.add(&agent("a", false), &answer(false, "r2", &json!([there("shop/ok:1"), failed("NotFound")])), &list);
    picture.add(&agent("b", false), &answer(false, "r2", &json!([there("shop/ok:1"), failed("NotFound")])), &list);
    picture.add(
        &agent("c", true),
        &answer(true, "r2", &json!([
            // a refresh that fails: it is there all the same
            {"image": "shop/ok:1", "state": "BackOff", "digest": "sha256:1", "class": "Tls", "message": "m", "remedy": "r"},
            failed("Tls"),
            {"image": "shop/gpu:1", "state": "NotForThisNode"},
        ])),
        &list,
    );
    picture.add(
        &agent("d", false),
        &answer(
            false,
            "r2",
            &json!([
                {"image": "shop/ok:1", "state": "Pulling"},
                {"image": "shop/web:1", "state": "Pending", "reason": "queue"},
            ]),
        ),
        &list,
    );
    picture.add(&agent("e", true), &Said::NotAsked, &list);
    let picture = picture.complete();
    assert_eq!((picture.agents, picture.warm, picture.asked, picture.not_asked, picture.proven), (5, 2, 4, 1, 1));
    let [ok, web] = picture.images.as_slice() else { panic!("{:#?}", picture.images) };
    // what is for no node is no row; both are missing somewhere, and stand in the order of the list
    assert_eq!(
        (ok.image.as_str(), ok.nodes, ok.present, ok.pulling, ok.waiting, ok.failing),
        ("shop/ok:1", 4, 3, 1, 0, 0)
    );
    assert_eq!((ok.class.as_deref(), ok.class_nodes), (Some("Tls"), 1));
    assert_eq!((web.nodes, web.present, web.waiting, web.failing), (4, 0, 1, 3));
    assert_eq!((web.class.as_deref(), web.class_nodes), (Some("NotFound"), 2));
    assert_eq!(web.message.as_deref(), Some("no such tag"), "foreign text is one line");
    assert_eq!(picture.lists[0].agents, 4);
}

#[test]
fn a_node_counts_once_for_each_image() {
    let list = wanted("r");
    let entry = |state: &str| json!({"image": "shop/web:1", "state": state, "class": "NotFound"});
    let mut picture = Picture::new("prepull", 1, &list);
    // as two entries with different runtime handlers, or whoever makes things up
    let entries = json!([entry("Present"), entry("BackOff"), entry("BackOff"), entry("NotForThisNode")]);
    picture.add(&agent("a", false), &answer(false, "r", &entries), &list);
    let picture = picture.complete();
    let [web] = picture.images.as_slice() else { panic!("{:#?}", picture.images) };
    assert_eq!((web.nodes, web.present, web.failing, web.class_nodes), (1, 0, 1, 1));
    assert_eq!((picture.nodes[0].images, picture.nodes[0].failing), (1, 1));
}

#[test]
fn what_a_pod_says_of_its_lists_is_one_line() {
    let source = "a/b\u{1b}[2J\nnode x is warm".to_owned();
    let hostile = [Wanted { problem: Some(source.clone()), source, revision: None, passing: false }];
    let picture = Picture::new("prepull", 1, &hostile);
    for text in [&picture.lists[0].source, picture.lists[0].problem.as_ref().unwrap()] {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn only_an_agent_with_the_list_as_it_is_now_proves_anything() {
    let list = wanted("r2");
    let images = json!([{"image": "shop/ok:1", "state": "Present", "digest": "sha256:1"}]);
    let mut picture = Picture::new("prepull", 3, &list);
    picture.add(&agent("new", true), &answer(true, "r2", &images), &list);
    picture.add(&agent("old", true), &answer(true, "r1", &images), &list);
    picture.add(&agent("dead", false), &Said::Nothing("no\tanswer".to_owned()), &list);
    let picture = picture.complete();
    assert_eq!((picture.warm, picture.proven), (2, 1));
    assert!(picture.is_warm(33.0, true) && !picture.is_warm(34.0, true));
    assert!(picture.is_warm(66.0, false) && !picture.is_warm(100.0, false));
    assert_eq!(&*picture.nodes[0].node, "old", "what is not well stands first");
    assert_eq!(picture.nodes[0].up_to_date, Some(false));
    assert_eq!((picture.silent[0].node.as_ref(), picture.silent[0].reason.as_str()), ("dead", "no answer"));
}

#[test]
fn no_agent_is_not_warm() {
    assert!(!Picture::new("prepull", 0, &[]).complete().is_warm(0.0, false));
}

#[test]
fn a_list_that_is_gone_is_not_followed_any_more() {
    let settings = Settings {
        configmaps: vec![],
        selected: Some(("team".into(), "a=b".into())),
        ready_when_running: false,
        port: 1,
    };
    let mut agent = agent("a", true);
    agent.settings = Arc::new(settings);
    let said = |sources: &[&str]| {
        let lists: Vec<_> = sources.iter().map(|s| json!({"source": s, "revision": "r"})).collect();
        let answer = json!({"warm": true, "lists": lists, "images": []});
        Said::Answer(Box::new(Answer::parse(answer.to_string().as_bytes()).unwrap()))
    };
    let list = vec![Wanted { source: "team/a".into(), revision: Some("r".into()), problem: None, passing: false }];
    let proven = |list: &[Wanted], sources: &[&str]| {
        let mut picture = Picture::new("p", 1, list);
        picture.add(&agent, &said(sources), list);
        picture.proven
    };
    let of_one = |sources: &[&str]| proven(&list, sources);
    assert_eq!((of_one(&["team/a"]), of_one(&["team/a", "team/gone"]), of_one(&[])), (1, 0, 0));
    // a selector that selects nothing
    assert_eq!((proven(&[], &[]), proven(&[], &["team/gone"])), (1, 0));
    // one that could not be looked at
    let unread = [Wanted { source: "team/(a=b)".into(), revision: None, problem: Some("no".into()), passing: true }];
    assert_eq!(proven(&unread, &[]), 0);
}

#[test]
fn who_reads_a_file_proves_nothing() {
    let mut of_file = agent("a", true);
    of_file.settings = Arc::new(Settings::of(&["--images=/etc/prepull/images.yaml".to_owned()], &BTreeMap::new()));
    let list = wanted("r");
    let mut picture = Picture::new("prepull", 2, &list);
    picture.add(&of_file, &answer(true, "r", &json!([])), &list);
    picture.add(&agent("b", true), &answer(true, "r", &json!([])), &list);
    let picture = picture.complete();
    assert_eq!((picture.warm, picture.proven, picture.nodes[0].up_to_date), (2, 1, None));
    assert_eq!((picture.never_proven(100.0), picture.never_proven(50.0)), (Some(1), None));
}

#[test]
fn settings_are_read_as_the_agent_reads_them() {
    let args = |args: &[&str]| args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    let variables = BTreeMap::from(
        [
            ("NS", "images"),
            ("PREPULL_CONFIGMAP", "x/y, x/z"),
            ("PREPULL_READY_WHEN", "running"),
            ("PREPULL_LISTEN", ""),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    let of_manifests = Settings::of(&args(&["agent", "--configmap=$(NS)/$(NAME)", "--configmap", "a/b"]), &variables);
    assert_eq!(of_manifests.configmaps, ["images/$(NAME)", "a/b"]);
    assert!(of_manifests.ready_when_running);
    assert_eq!(of_manifests.port, 9797);
    let other = Settings::of(
        &args(&["--ready-when=warm", "--listen=:8080", "--configmap-namespace", "t", "--configmap-selector=l=true"]),
        &variables,
    );
    assert_eq!(other.configmaps, ["x/y", "x/z"]);
    assert_eq!(other.selected, Some(("t".to_owned(), "l=true".to_owned())));
    assert_eq!((other.ready_when_running, other.port), (false, 8080));
}

#[test]
fn five_thousand_nodes_are_counted() {
    let list = wanted("r");
    let images: Vec<_> = (0..200)
        .map(|n| json!({"image": format!("shop/app-{n}:1"), "state": "Present", "digest": "sha256:1"}))
        .collect();
    let said = answer(true, "r", &json!(images));
    let mut picture = Picture::new("prepull", 5_000, &list);
    for n in 0..5_000 {
        picture.add(&agent(&format!("node-{n}"), true), &said, &list);
    }
    let picture = picture.complete();
    assert_eq!((picture.proven, picture.images.len(), picture.images[7].present), (5_000, 200, 5_000));
}

#[test]
fn texts_of_all_answers_together_are_bounded() {
    let mut tally = Tally::default();
    let long = |n: usize| format!("{n}{}", "x".repeat(200));
    let images = |from: usize| -> Vec<ImageAnswer> {
        let text = |n| Some(format!("{}{}", long(n), "\u{1f4e6}".repeat(1000)));
        let image = |n| ImageAnswer {
            image: long(n),
            state: "BackOff".to_owned(),
            class: Some("C".to_owned()),
            message: text(n),
            remedy: text(n),
            ..ImageAnswer::default()
        };
        (from..from + 1000).map(image).collect()
    };
    let mut rows = 0;
    for round in 0..10 {
        let answer = Answer { images: images(round * 1000), ..Answer::default() };
        rows += tally.add(&"n".into(), &"p".into(), &answer).failing;
    }
    assert_eq!(rows, 10_000, "each node's own sums stay whole");
    let images = tally.into_images();
    let texts = |i: &ImageCount| [&i.message, &i.remedy].into_iter().flatten().map(String::len).sum::<usize>();
    let kept: usize = images.iter().map(|i| i.image.len() + texts(i)).sum();
    assert!((32 << 20..=64 << 20).contains(&kept), "{kept} bytes of {} images", images.len());
    assert!(images.iter().any(|i| i.message.is_none()), "errors stop before images do");
}
