use super::*;

fn one(text: &str) -> Listed {
    let mut manifest = Manifest::read(text).unwrap();
    assert_eq!((manifest.lists.len(), manifest.problems.as_slice()), (1, &[][..]), "{:?}", manifest.notes);
    manifest.lists.remove(0)
}

const HEAD: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: prepull, namespace: prepull}\n";

#[test]
fn lines_and_columns_are_those_of_the_file() {
    for (style, data) in [
        ("literal", "data:\n  images.yaml: |\n    images:\n    - nginx:1\n    - {image: 'a:1', pin: perhaps}\n"),
        (
            "literal with a comment and blank lines",
            "data:\n  images.yaml: |-\n\n    # mine\n\n    images:\n      - nginx:1\n\n      - image: a:1\n        pin: perhaps\n",
        ),
        (
            "literal with an indentation",
            "data:\n  images.yaml: |2\n      images:\n        - nginx:1\n        - {image: 'a:1', pin: perhaps}\n",
        ),
        (
            "literal with a tag and an anchor",
            "data:\n  images.yaml: !!str &a |\n    images:\n    - nginx:1\n    - {image: 'a:1', pin: perhaps}\n",
        ),
        ("folded", "data:\n  images.yaml: >\n    images:\n      - nginx:1\n      - {image: 'a:1', pin: perhaps}\n"),
        ("a block of JSON", "data:\n  images.yaml: |\n    \"images\": [\"nginx:1\", {image: \"a:1\", pin: perhaps}]\n"),
        ("double quotes", "data:\n  images.yaml: \"images:\\n- nginx:1\\n- {image: \\\"a:1\\\", pin: perhaps}\\n\"\n"),
        (
            "JSON in double quotes",
            "data: {\"images.yaml\": \"{\\\"images\\\":[\\\"nginx\\u003a1\\\",{\\\"image\\\":\\\"a:1\\\",\\n\\\"pin\\\":\\\"perhaps\\\"}]}\"}\n",
        ),
        ("single quotes", "data:\n  images.yaml: 'images: [nginx:1, {image: ''a:1'', pin: perhaps}]'\n"),
        (
            "single quotes over lines",
            "data:\n  images.yaml: 'images:\n\n    - nginx:1\n\n    - {image: ''a:1'', pin: perhaps}'\n",
        ),
        ("plain", "data:\n  images.yaml: '{images: [nginx:1,\n     {image: a, pin: perhaps}]}'\n"),
    ] {
        for (ending, text) in
            [("\n", format!("{HEAD}{data}")), ("\r\n", format!("\u{feff}{HEAD}{data}").replace('\n', "\r\n"))]
        {
            let listed = one(&text);
            let list = listed.list.unwrap_or_else(|e| panic!("{style}, {ending:?}: {e}"));
            let place = |word: &str| {
                let before = &text[..text.find(word).unwrap()];
                let line = before.rsplit('\n').next().unwrap();
                (before.matches('\n').count() + 1, line.trim_start_matches('\u{feff}').chars().count() + 1)
            };
            assert_eq!(list.entries[0].line, place("nginx").0, "{style}, {ending:?}");
            let problem = place(if text.contains("\\\"perhaps") { "\\\"perhaps" } else { "perhaps" });
            let found: Vec<_> = list.problems.iter().map(|p| (p.line, p.column, p.path.as_str())).collect();
            assert_eq!(found, [(problem.0, problem.1, "images[1].pin")], "{style}, {ending:?}");
            let why = list.entries[1].spec.as_ref().unwrap_err();
            assert!(why.contains(&format!("(line {})", problem.0)), "{style}: {why}");
        }
    }
}

#[test]
fn a_list_that_cannot_be_read_has_its_place_in_the_file() {
    let listed = one(&format!("{HEAD}data:\n  images.yaml: |\n    images:\n    - nginx:1\n    - [\n"));
    let problem = listed.list.unwrap_err();
    assert!(problem.line >= 8, "{problem}");
    let listed = one(&format!("{HEAD}data:\n  images.yaml: |\n    images:\n    - {{{{ .Values.image }}}}\n"));
    let problem = listed.list.unwrap_err();
    assert_eq!((problem.line, problem.column), (7, 7), "{problem}");
    assert_eq!(problem.message, "the template expression `{{ .Values.image }}` is not rendered");
    let listed = one(&format!("{HEAD}data:\n  images.yaml: >\n    images:\n    - nginx:1\n    - redis:7\n"));
    let problem = listed.list.unwrap_err();
    assert_eq!(problem.message, "`>` joins the lines below it, so that no list is left");
    assert_eq!((problem.line, problem.column), (5, 16), "{problem}");
}

#[test]
fn several_documents_are_read_and_others_are_noted() {
    let text = format!(
        "# head\n---\n{HEAD}data:\n  images.yaml: |\n    images: [nginx:1]\n---\n# nothing\n---\napiVersion: v1\nkind: Secret\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: team-4f6b8c9d2h}}\ndata:\n  images.yaml: |\n    limits: {{parallelPulls: 1}}\n    images: [redis:7]\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: other}}\ndata: {{a: b}}\n"
    );
    let manifest = Manifest::read(&text).unwrap();
    let names: Vec<_> = manifest.lists.iter().map(|l| (l.name.as_str(), l.line)).collect();
    assert_eq!(names, [("prepull/prepull", 8), ("team-4f6b8c9d2h", 20)]);
    assert_eq!(manifest.lists[0].revision, revision("images: [nginx:1]\n"), "as agents report it");
    assert_eq!(
        manifest.notes,
        [
            "the name team-4f6b8c9d2h ends with a hash of kustomize, and the agent follows a fixed name: set `disableNameSuffixHash: true` in generatorOptions",
            "ignored, because only lists of ConfigMaps are read: Secret (line 12), ConfigMap other without images.yaml (line 23)",
        ]
    );
    let list = manifest.into_list().unwrap();
    let images: Vec<_> = list.entries.iter().map(|e| &*e.image).collect();
    assert_eq!(images, ["nginx:1", "redis:7"]);
    assert_eq!(list.limits.parallel_pulls, crate::list::Parallel::Fixed(1), "the strictest limits count");
}

#[test]
fn a_list_of_objects_is_read_as_kubectl_prints_it() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: a}\n  data:\n    images.yaml: |\n      images: [nginx:1]\n";
    assert_eq!(one(text).list.unwrap().entries[0].line, 9);
    assert_eq!(one(&text.replace("kind: List", "kind: ConfigMapList")).name, "a");
}

#[test]
fn a_manifest_without_a_list_says_what_it_has() {
    for (data, message) in [
        (
            "data: {list.yaml: a, b: c}\n",
            "the ConfigMap prepull/prepull has no key `images.yaml`; it has `list.yaml`, `b`",
        ),
        ("", "the ConfigMap prepull/prepull has no key `images.yaml`; it has no data"),
        ("data:\n  images.yaml:\n    images: [a]\n", "the value of a ConfigMap's key must be text, and is a mapping"),
        ("binaryData: {images.yaml: aW1hZ2VzOiBbXQo=}\n", "the agent does not read binaryData"),
    ] {
        let manifest = Manifest::read(&format!("{HEAD}{data}")).unwrap();
        assert!(manifest.lists.is_empty());
        let found: Vec<_> = manifest.problems.iter().map(|p| p.message.as_str()).collect();
        assert_eq!(found, [message]);
        assert!(manifest.problems[0].to_string().len() <= 200);
        assert!(manifest.into_list().is_err());
    }
    assert!(Manifest::read("images: [nginx]\n# a ConfigMap\n").is_none());
    assert!(Manifest::read("apiVersion: v1\nkind: Secret\n# ConfigMap\n").is_none());
}

/// An agent that is given a manifest in place of a list says so.
#[test]
fn a_list_file_that_is_a_manifest_is_refused_with_what_it_is() {
    let text = format!("{HEAD}data:\n  images.yaml: |\n    images: []\n");
    let refused = ImageList::parse(&text).unwrap_err();
    assert_eq!(refused.message, "the list must be a mapping with the key `images`, and this is a ConfigMap manifest");
    assert!(refused.remedy.contains("write the text of its key `images.yaml` alone"), "{refused}");
}

proptest::proptest! {
    #[test]
    fn any_text_has_places_within_the_file(text in "[a\n \"'\\\\|>:&!*é-]{0,60}", line in 1usize..8, column in 1usize..20) {
        let places = Places::find(&text, line, column, &text);
        let (line, _) = places.of(line, column);
        proptest::prop_assert!(line <= text.lines().count() + 8);
    }
}
