//! Lists as people have them: each given text with the problem that its writer reads.

use std::fmt::Write as _;

use super::{ImageList, ListProblem};

/// What is given, and the problems in order. Problems of a refused list are the only one.
const CASES: &[(&str, &str, &[&str])] = &[
    (
        "a template in a name",
        "images:\n- nginx:{{ .Values.tag }}\n",
        &["line 2, column 3: images[0]: the template expression `{{ .Values.tag }}` is not rendered"],
    ),
    (
        "a template as a whole value",
        "images:\n- {{ .Values.image }}\n",
        &["line 2, column 3: the template expression `{{ .Values.image }}` is not rendered"],
    ),
    (
        "a loop of a template",
        "images:\n{{- range .Values.images }}\n- {{ . }}\n{{- end }}\n",
        &["line 2, column 1: the template expression `{{- range .Values.images }}` is not rendered"],
    ),
    (
        "variables",
        "images:\n- nginx:${TAG}\n- $(IMAGE)\n- <registry>/app:1\n",
        &[
            "line 2, column 3: images[0]: the template expression `${TAG}` is not rendered",
            "line 3, column 3: images[1]: the template expression `$(IMAGE)` is not rendered",
            "line 4, column 3: images[2]: the template expression `<registry>` is not rendered",
        ],
    ),
    (
        "templates in other fields",
        "limits: {pullTimeout: '${TIMEOUT}', parallelPulls: '{{ .n }}'}\nimages:\n- image: a:1\n  priority: $(N)\n- image: b:1\n  nodeSelector: {zone: '${ZONE}'}\n- image: c:1\n  serviceAccountName: <account>\n- image: d:1\n  pin: ${PIN}\n",
        &[
            "line 1, column 23: limits.pullTimeout: the template expression `${TIMEOUT}` is not rendered (not in force: the last good value stays, and where there is none, the default)",
            "line 1, column 52: limits.parallelPulls: the template expression `{{ .n }}` is not rendered (not in force: the last good value stays, and where there is none, the default)",
            "line 4, column 13: images[0].priority: the template expression `$(N)` is not rendered",
            "line 6, column 24: images[1].nodeSelector.zone: the template expression `${ZONE}` is not rendered",
            "line 8, column 23: images[2].serviceAccountName: the template expression `<account>` is not rendered",
            "line 10, column 8: images[3].pin: the template expression `${PIN}` is not rendered",
        ],
    ),
    (
        "keys of the writer's own",
        "x-common: &c {imagePullSecrets: [{name: acme}], x-why: all}\nimages:\n- {<<: *c, image: 'a:1', x-owner: team-a}\n",
        &[],
    ),
    (
        "merge keys",
        "x-a: &a {pin: true}\nx-b: &b {<<: *a, priority: 1}\nimages:\n- {<<: *b, image: 'a:1'}\n- {<<: [*a, *b], image: 'b:1'}\n",
        &[],
    ),
    (
        "a merge key without a mapping",
        "images:\n- {<<: text, image: 'a:1'}\n",
        &["line 2, column 4: images[0]: a merge key takes a mapping; write `<<: *name`"],
    ),
    (
        "no images but keys of the writer's own",
        "x-common: {pin: true}\n",
        &[
            "line 1, column 1: the list has no `images`, only fields of its writer's own; add `images:` with its entries, or `images: []` for none",
        ],
    ),
    (
        "two names",
        "images:\n- nginx:1.25,redis:7\n- nginx:1.25 redis:7\n",
        &[
            "line 2, column 3: images[0]: `nginx:1.25,redis:7`: several image names are written here, separated by a comma; write each name as a list item on its own line",
            "line 3, column 3: images[1]: `nginx:1.25 redis:7`: several image names are written here, separated by white space; write each name as a list item on its own line",
        ],
    ),
    (
        "a duplicate key with entries",
        "images: [a:1]\nimages:\n- b:1\n- c:1\n",
        &[
            "line 2, column 1: duplicate key `images` (the first is on line 1): its 2 entries are ignored; keep one of them",
        ],
    ),
    (
        "a duplicate key with one entry",
        "images: [a:1]\nimages: [b:1]\n",
        &[
            "line 2, column 1: duplicate key `images` (the first is on line 1): its 1 entry is ignored; keep one of them",
        ],
    ),
    (
        "truth values",
        "images:\n- {image: 'a:1', pin: yes}\n- {image: 'b:1', pin: on}\n- {image: 'c:1', pin: True}\n- {image: 'd:1', required: off}\n- {image: 'e:1', pin: 'true'}\n- {image: 'f:1', pin: 0}\n- {image: 'g:1', pin: maybe}\n",
        &[
            "line 2, column 23: images[0].pin: expected true or false, got the text \"yes\"; write `pin: true`",
            "line 3, column 23: images[1].pin: expected true or false, got the text \"on\"; write `pin: true`",
            "line 5, column 28: images[3].required: expected true or false, got the text \"off\"; write `required: false`",
            "line 6, column 23: images[4].pin: expected true or false, got the text \"true\"; write `pin: true`",
            "line 7, column 23: images[5].pin: expected true or false, got the number 0; write `pin: false`",
            "line 8, column 23: images[6].pin: expected true or false, got the text \"maybe\"; write `pin: true` or `pin: false`",
        ],
    ),
    (
        "numbers as tags",
        "images:\n- image: nginx:1.10\n- {image: nginx, tag: 1.10}\n- nginx: 1.10\n- {repository: nginx, tag: 1.10}\n",
        &[
            "line 3, column 18: images[1].tag: there is no field `tag` here; write it in `image`, as in `image: registry/repository:tag`",
            "line 4, column 3: images[2]: the space behind the colon makes a mapping of `nginx:1.10`; write `nginx:1.10`",
            "line 5, column 3: images[3]: the field `image` is missing; write `image: registry/repository:tag`",
            "line 5, column 4: images[3].repository: there is no field `repository` here; write the whole name in `image`, as in `image: registry/repository:tag`",
            "line 5, column 23: images[3].tag: there is no field `tag` here; write it in `image`, as in `image: registry/repository:tag`",
        ],
    ),
    ("tabs", "images:\n\t- nginx:1\n", &["line 2, column 1: a tab is used for indentation; use plain spaces"]),
    ("line ends and a mark of another system", "\u{feff}images:\r\n- nginx:1\r\n- image: b:1\r\n  pin: true\r\n", &[]),
    (
        "typographic quotes",
        "images:\n- \u{201c}nginx:1\u{201d}\n",
        &[
            "line 2, column 3: images[0]: `\u{201c}nginx:1\u{201d}`: the image name contains the quotation mark `\u{201c}`; remove it; YAML takes only the straight quotes \" and ' around a value",
        ],
    ),
    (
        "a non-breaking space in the indentation",
        "images:\n\u{a0}\u{a0}- nginx:1\n",
        &["line 2, column 1: a non-breaking space (U+00A0) is used for indentation; use plain spaces"],
    ),
    (
        "a non-breaking space behind the dash",
        "images:\n-\u{a0}nginx:1\n",
        &["line 2, column 2: a non-breaking space (U+00A0) is used for indentation; use plain spaces"],
    ),
    (
        "a non-breaking space behind the name",
        "images:\n- nginx:1\u{a0}\n",
        &[
            "line 2, column 3: images[0]: `nginx:1\\u{a0}`: the image name contains a non-breaking space (U+00A0); type the name again with letters, digits and the separators . _ - / : @",
        ],
    ),
    (
        "the node affinity of a pod",
        "images:\n- image: a:1\n  nodeAffinity:\n    requiredDuringSchedulingIgnoredDuringExecution:\n      nodeSelectorTerms: [{matchExpressions: [{key: gpu, operator: Exists}]}]\n",
        &[],
    ),
    (
        "a preference of a pod",
        "images:\n- image: a:1\n  nodeAffinity:\n    preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1}]\n",
        &[
            "line 4, column 54: images[0].nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution: a preference cannot decide whether a node gets an image; remove it, or write its terms below requiredDuringSchedulingIgnoredDuringExecution",
        ],
    ),
    (
        "a required affinity without terms",
        "images:\n- image: a:1\n  nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {a: 1}}\n",
        &[
            "line 3, column 66: images[0].nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution: the field `nodeSelectorTerms` is missing; write the terms below it, as in a Pod",
            "line 3, column 67: images[0].nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.a: there is no field `a` here; known here: nodeSelectorTerms",
        ],
    ),
    (
        "terms in both places",
        "images:\n- image: a:1\n  nodeAffinity: {nodeSelectorTerms: [], requiredDuringSchedulingIgnoredDuringExecution: {}}\n",
        &[
            "line 3, column 89: images[0].nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution: nodeSelectorTerms and requiredDuringSchedulingIgnoredDuringExecution are both set; keep one of them",
        ],
    ),
    (
        "the whole affinity of a pod",
        "images:\n- {image: 'a:1', affinity: {nodeAffinity: {}}, pullPolicy: Always, pullSecrets: [a], tolerations: []}\n",
        &[
            "line 2, column 18: images[0].affinity: there is no field `affinity` here; write its nodeAffinity directly here; affinity to pods has no meaning for images",
            "line 2, column 48: images[0].pullPolicy: there is no field `pullPolicy` here; write `imagePullPolicy`",
            "line 2, column 68: images[0].pullSecrets: there is no field `pullSecrets` here; write `imagePullSecrets: [{name: SECRET}]`",
            "line 2, column 86: images[0].tolerations: there is no field `tolerations` here; remove it; the agent's DaemonSet decides on which tainted nodes it runs",
        ],
    ),
];

/// What a template needs, which all of its problems say.
const RENDER: &str = "; render the file first, for instance with `helm template` or `envsubst`, or write the value";

#[test]
fn each_list_has_the_problem_that_its_writer_needs() {
    for (case, text, wanted) in CASES {
        let found: Vec<ListProblem> = match ImageList::parse(text) {
            Ok(list) => list.problems,
            Err(problem) => vec![problem],
        };
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        let wanted: Vec<_> = wanted
            .iter()
            .map(|w| if w.contains("is not rendered") { format!("{w}{RENDER}") } else { (*w).to_owned() })
            .collect();
        assert_eq!(found, wanted, "{case}");
    }
}

#[test]
fn merged_fields_count_in_order() {
    let list = ImageList::parse(
        "x-a: &a {priority: 1}\nx-b: &b {<<: *a, priority: 2, pin: true}\nimages:\n- {<<: [*a, *b], image: 'a:1'}\n- {<<: *b, image: 'b:1'}\n- {<<: *b, image: 'c:1', priority: 3}\n",
    )
    .unwrap();
    let priorities: Vec<_> = list.entries.iter().map(|e| e.spec.as_ref().unwrap().priority).collect();
    assert_eq!(priorities, [1, 2, 3]);
    assert!(list.pins());
}

#[test]
fn merges_of_merges_are_bounded() {
    let mut text = "x0: &x0 {pin: true}\n".to_owned();
    for n in 1..20 {
        writeln!(text, "x-{n}: &x{n} {{<<: *x{}}}", n - 1).unwrap();
    }
    text = text.replace("x0: &", "x-0: &");
    let shallow = ImageList::parse(&format!("{text}images:\n- {{<<: *x7, image: 'a:1'}}\n")).unwrap();
    assert!(shallow.problems.is_empty() && shallow.pins(), "{:?}", shallow.problems);
    let deep = ImageList::parse(&format!("{text}images:\n- {{<<: *x8, image: 'a:1'}}\n")).unwrap();
    assert_eq!(deep.problems[0].message, "merge keys are nested too deeply");
}

#[test]
fn the_affinity_of_a_pod_selects_as_the_terms_alone() {
    let terms = "nodeSelectorTerms: [{matchExpressions: [{key: gpu, operator: Exists}]}]";
    let read = |affinity: &str| {
        let list = ImageList::parse(&format!("images: [{{image: 'a:1', nodeAffinity: {{{affinity}}}}}]")).unwrap();
        list.entries[0].spec.as_ref().unwrap().node_selector_terms.clone()
    };
    let pod = format!("requiredDuringSchedulingIgnoredDuringExecution: {{{terms}}}");
    assert_eq!(read(&pod), read(terms));
    assert_eq!(read(&pod).len(), 1);
}
