//! Secrets from manifest files: YAML or JSON, several documents, lists.

use serde_yaml::{Mapping, Value};
use zeroize::Zeroizing;

use super::{
    super::{document::documents, go_rules::base64, text::shown},
    Secret,
};

/// Lists inside lists are read this deep.
const MAX_DEPTH: usize = 4;
/// The type that Kubernetes gives a Secret without one.
const DEFAULT_TYPE: &str = "Opaque";

/// The Secrets of a manifest file, and what is wrong with the rest of it, one clause each, without the file's name.
/// Nothing of the text is quoted but kinds, names, types and keys.
pub fn parse(text: &[u8]) -> (Vec<Secret>, Vec<String>) {
    let mut secrets = Vec::new();
    let mut problems = Vec::new();
    for document in documents(text) {
        match document {
            Ok(document) => read(document.value(), 0, &mut secrets, &mut problems),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if secrets.is_empty() && problems.is_empty() {
        problems.push("it holds no Secret; write the manifest of one into it".to_owned());
    }
    (secrets, problems)
}

fn read(value: &Value, depth: usize, secrets: &mut Vec<Secret>, problems: &mut Vec<String>) {
    let fields = match value {
        Value::Null => return,
        Value::Mapping(fields) => fields,
        _ => {
            problems.push("a document is no Kubernetes object; write the manifest of a Secret".to_owned());
            return;
        }
    };
    match text(fields, "kind") {
        Some("Secret") => {
            let secret = secret(fields, problems);
            secrets.extend(secret);
        }
        Some("List" | "SecretList") if depth < MAX_DEPTH => match fields.get("items") {
            Some(Value::Sequence(items)) => {
                for item in items {
                    read(item, depth + 1, secrets, problems);
                }
            }
            Some(Value::Null) | None => {}
            Some(_) => problems.push("`items` of a list must be a list".to_owned()),
        },
        Some(kind) => problems.push(format!("an object of kind `{}` is no Secret and is skipped", shown(kind))),
        None => problems.push("an object without `kind` is skipped; write `kind: Secret`".to_owned()),
    }
}

fn text<'a>(fields: &'a Mapping, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

fn secret(fields: &Mapping, problems: &mut Vec<String>) -> Option<Secret> {
    let metadata = fields.get("metadata").and_then(Value::as_mapping);
    let named = |name| metadata.and_then(|m| text(m, name)).unwrap_or_default().to_owned();
    let mut secret = Secret {
        namespace: named("namespace"),
        name: named("name"),
        secret_type: text(fields, "type").filter(|t| !t.is_empty()).unwrap_or(DEFAULT_TYPE).to_owned(),
        ..Secret::default()
    };
    // stringData comes last because it outranks data
    for (field, encoded) in [("data", true), ("stringData", false)] {
        let values = match fields.get(field) {
            None | Some(Value::Null) => continue,
            Some(Value::Mapping(values)) => values,
            Some(_) => {
                problems.push(format!("secret {}: `{field}` must be a map; the Secret is skipped", secret.origin()));
                return None;
            }
        };
        for (key, value) in values {
            match read_value(value, encoded) {
                Ok(content) => drop(secret.data.insert(key.as_str().unwrap_or_default().to_owned(), content)),
                Err(clause) => {
                    let key = shown(key.as_str().unwrap_or("?"));
                    problems.push(format!(
                        "secret {}: `{field}` key `{key}` {clause}; the Secret is skipped",
                        secret.origin()
                    ));
                    return None;
                }
            }
        }
    }
    Some(secret)
}

fn read_value(value: &Value, encoded: bool) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    match value {
        Value::Null => Ok(Zeroizing::default()),
        Value::String(text) if encoded => base64::decode_padded(text).ok_or("is not valid base64"),
        Value::String(text) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        Value::Bool(_) | Value::Number(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            Err("must be a string")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YAML: &str = "
apiVersion: v1
kind: Secret
metadata: {name: one, namespace: ns}
type: kubernetes.io/dockerconfigjson
data:
  .dockerconfigjson: |
    eyJhdXRocyI6
    e319
---
kind: List
items:
- kind: Secret
  metadata: {name: two}
  type: kubernetes.io/dockercfg
  data: {.dockercfg: e30=}
  stringData: {.dockercfg: '{\"r\":{}}'}
---
";

    #[test]
    fn yaml_documents_and_lists_are_read() {
        let (secrets, problems) = parse(YAML.as_bytes());
        assert!(problems.is_empty(), "{problems:?}");
        let origins: Vec<_> = secrets.iter().map(Secret::origin).collect();
        assert_eq!(origins, ["ns/one", "two"]);
        assert_eq!(secrets[0].data[".dockerconfigjson"].as_slice(), br#"{"auths":{}}"#);
        assert_eq!(secrets[1].data[".dockercfg"].as_slice(), br#"{"r":{}}"#);
    }

    #[test]
    fn json_is_read() {
        let text =
            br#" {"kind":"Secret","metadata":{"name":"j"},"stringData":{"k":"\ud83d\ude00\/"}} {"kind":"Secret"}"#;
        let (secrets, problems) = parse(text);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(secrets[0].data["k"].as_slice(), "\u{1f600}/".as_bytes());
        assert_eq!(secrets[1].secret_type, "Opaque");
        assert_eq!(secrets[1].origin(), "(without a name)");
    }

    #[test]
    fn what_is_wrong_is_one_problem_and_the_rest_counts() {
        let good = "---\nkind: Secret\nmetadata: {name: good}\n";
        for (bad, wanted) in [
            ("kind: ConfigMap\n", "an object of kind `ConfigMap`"),
            ("data: {}\n", "an object without `kind`"),
            ("- 1\n", "a document is no Kubernetes object"),
            ("kind: List\nitems: 1\n", "`items` of a list"),
            ("kind: Secret\nmetadata: {name: b}\ndata: hunter2\n", "secret b: `data` must be a map"),
            ("kind: Secret\nmetadata: {name: b}\ndata: {k: hunter2}\n", "secret b: `data` key `k` is not valid base64"),
            (
                "kind: Secret\nmetadata: {name: b}\nstringData: {k: [hunter2]}\n",
                "secret b: `stringData` key `k` must be",
            ),
        ] {
            let (secrets, problems) = parse(format!("{bad}{good}").as_bytes());
            assert_eq!(secrets.len(), 1, "{bad}");
            assert_eq!(problems.len(), 1, "{bad}: {problems:?}");
            assert!(problems[0].starts_with(wanted) && !problems[0].contains("hunter2"), "{problems:?}");
        }
    }

    #[test]
    fn no_yaml_at_all_says_where() {
        for text in ["kind: Secret\n  hunter2: [", "{\"hunter2\": ", "\t\u{0}hunter2", "a: &x hunter2\na: *y"] {
            let (secrets, problems) = parse(text.as_bytes());
            assert!(secrets.is_empty());
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(
                problems[0].starts_with("not valid YAML or JSON") && !problems[0].contains("hunter2"),
                "{problems:?}"
            );
        }
        assert_eq!(parse(b"").1, ["it holds no Secret; write the manifest of one into it"]);
    }

    proptest! {
        #[test]
        fn never_panics(text in "(kind: Secret\n|data:\n|  k: |items:\n|- |\\{|\\}|\\[|\"|&a|\\*a|:|---\n|[a-z]| |\n){0,30}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn never_panics_on_bytes(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&text);
        }
    }
}
