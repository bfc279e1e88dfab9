//! YAML or JSON that may hold secrets: what is parsed is wiped again, and no error quotes the text.

use serde::Deserialize as _;
use serde_yaml::Value;
use zeroize::Zeroize as _;

use super::go_rules::json;

/// A parsed document. Its strings are wiped when it is dropped.
#[derive(Default)]
pub struct Document(Value);

impl Document {
    /// What it says.
    pub fn value(&self) -> &Value {
        &self.0
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Sequence(items) => items.iter_mut().for_each(wipe),
        Value::Mapping(fields) => fields.iter_mut().for_each(|(_, value)| wipe(value)),
        Value::Tagged(tagged) => wipe(&mut tagged.value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Why a document cannot be read. The parsers' own words are left out: they may quote the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The text is neither YAML nor JSON there, or repeats a field.
    #[error("not valid YAML or JSON, or a repeated field, at line {line}, column {column}; correct it there")]
    At {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// As above, where the parser names no place.
    #[error("not valid YAML or JSON; check its quotes, brackets, anchors and depth")]
    Somewhere,
}

impl From<serde_yaml::Error> for DocumentError {
    fn from(error: serde_yaml::Error) -> Self {
        error.location().map_or(Self::Somewhere, |at| Self::At { line: at.line(), column: at.column() })
    }
}

/// All documents of a text, up to the first that cannot be read. Text that begins with a brace is read as JSON, as the
/// Kubernetes tools do; where it is none, YAML has the last word.
pub fn documents(text: &[u8]) -> Vec<Result<Document, DocumentError>> {
    if text.trim_ascii_start().starts_with(b"{") {
        let text = json::forgiving(text);
        let parsed: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(&text).into_iter().collect();
        if let Ok(values) = parsed {
            return values.into_iter().map(|value| Ok(Document(value))).collect();
        }
    }
    let mut documents = Vec::new();
    // a byte order mark, as some editors write it
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    for document in serde_yaml::Deserializer::from_slice(text) {
        let document = Value::deserialize(document).map(Document).map_err(DocumentError::from);
        let broken = document.is_err();
        documents.push(document);
        if broken {
            break;
        }
    }
    documents
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(text: &str) -> Result<usize, DocumentError> {
        documents(text.as_bytes()).into_iter().collect::<Result<Vec<_>, _>>().map(|all| all.len())
    }

    #[test]
    fn yaml_and_json_are_read() {
        assert_eq!(count("a: 1\n---\nb: 2\n"), Ok(2));
        assert_eq!(count(" {\"a\": \"\\ud83d\\ude00\\/\"} {}"), Ok(2));
        assert_eq!(count("{a: b}"), Ok(1));
        assert_eq!(count("\u{feff}a: b"), Ok(1));
    }

    #[test]
    fn errors_say_where_and_quote_nothing() {
        for text in ["a: [hunter2", "{\"hunter2\": ", "\t\u{0}hunter2", "a: hunter2\na: hunter2", "a: *hunter2"] {
            let error = count(text).unwrap_err().to_string();
            assert!(error.starts_with("not valid YAML or JSON") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_alias_cannot_blow_up() {
        let level =
            |level: usize| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "));
        let text = format!("a0: &a0 [x]\n{}", (1..12).map(level).collect::<String>());
        assert_eq!(count(&text), Err(DocumentError::Somewhere));
    }

    proptest! {
        #[test]
        fn never_panics(text in "(a: |- |\\{|\\}|\\[|\\]|\"|'|&a |\\*a|!t |---\n|[a-z]|:|,|#|\\||>| |\n|\t){0,40}") {
            let _ = documents(text.as_bytes());
        }

        #[test]
        fn never_panics_on_bytes(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = documents(&text);
        }
    }
}
