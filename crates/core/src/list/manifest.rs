//! Lists in ConfigMap manifests, as `prepull check` and `prepull pull` read them from files: plain, of a kustomization, or
//! as `kubectl get` prints them.

use super::{
    ImageList, ListProblem,
    fields::shown,
    foreign::{kind_of, objects},
    places::Places,
    revision, tree,
    tree::{Key, Node, Value},
};

/// The key of a ConfigMap that has the list.
pub const KEY: &str = "images.yaml";
/// Most objects of a file that notes name.
const MAX_NOTED: usize = 20;
/// What kustomize puts behind a name: so many characters of these.
const KUSTOMIZE_HASH: (usize, &str) = (10, "2456789bcdfghkmt");

/// What a file with ConfigMap manifests has.
#[derive(Debug, Default)]
pub struct Manifest {
    /// The lists, in order.
    pub lists: Vec<Listed>,
    /// What is wrong with the manifests themselves.
    pub problems: Vec<ListProblem>,
    /// What their writer should know though nothing is wrong.
    pub notes: Vec<String>,
}

/// The list of one ConfigMap.
#[derive(Debug)]
pub struct Listed {
    /// Namespace and name of the ConfigMap, or its name alone.
    pub name: String,
    /// The line on which the list begins.
    pub line: usize,
    /// As agents report it that read this ConfigMap.
    pub revision: String,
    /// The list, with the lines and columns of the file; or why none can be read.
    pub list: Result<ImageList, ListProblem>,
}

impl Manifest {
    /// Reads the lists of all ConfigMaps in a file; `None` if there is none in it.
    pub fn read(text: &str) -> Option<Self> {
        // most lists are none, and need not be parsed twice
        if text.len() > super::MAX_LIST_BYTES || !text.contains("ConfigMap") {
            return None;
        }
        let documents = tree::documents(text).ok()?;
        let objects: Vec<&Node> = documents.iter().flat_map(objects).collect();
        let is_map = |object: &&Node| kind_of(object) == Some("ConfigMap");
        if !objects.iter().any(is_map) {
            return None;
        }
        let mut manifest = Self::default();
        let mut ignored = Vec::new();
        let mut without_key = Vec::new();
        for object in objects {
            if !is_map(&object) {
                // an empty document is nothing that was left out
                if !object.is_null() {
                    let kind = kind_of(object).map_or("a document without a kind".to_owned(), shown);
                    ignored.push(format!("{kind} (line {})", object.line));
                }
            } else if !manifest.add(object, text) {
                without_key.push(object);
            }
        }
        if manifest.lists.is_empty() && manifest.problems.is_empty() {
            manifest.problems.extend(without_key.iter().take(MAX_NOTED).map(|object| missing(object)));
        } else {
            ignored
                .extend(without_key.iter().map(|o| format!("ConfigMap {} without {KEY} (line {})", name(o), o.line)));
        }
        if !ignored.is_empty() {
            let more = ignored.len().saturating_sub(MAX_NOTED);
            ignored.truncate(MAX_NOTED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            manifest
                .notes
                .push(format!("ignored, because only lists of ConfigMaps are read: {}{more}", ignored.join(", ")));
        }
        Some(manifest)
    }

    /// Reads one ConfigMap; whether it has the key.
    fn add(&mut self, object: &Node, text: &str) -> bool {
        let name = name(object);
        let problem = |node: &Node, path: &str, message: String, remedy: &str| ListProblem {
            line: node.line,
            column: node.column,
            path: path.to_owned(),
            message,
            remedy: remedy.to_owned(),
        };
        if let Some(binary) = object.at(&["binaryData", KEY]) {
            self.problems.push(problem(
                binary,
                "binaryData.images.yaml",
                "the agent does not read binaryData".to_owned(),
                "save the list as UTF-8 text and write it below `data`",
            ));
            return true;
        }
        let Some(value) = object.at(&["data", KEY]) else { return false };
        let Value::Scalar { text: list, .. } = &*value.value else {
            self.problems.push(problem(
                value,
                "data.images.yaml",
                format!("the value of a ConfigMap's key must be text, and is {}", value.kind()),
                "write `images.yaml: |` and indent the list below it",
            ));
            return true;
        };
        let places = Places::find(text, value.line, value.column, list);
        self.lists.push(Listed {
            line: places.of(1, 1).0,
            revision: revision(list),
            list: ImageList::parse_at(list, Some(&places)).map_err(|problem| folded(problem, text, value)),
            name: name.clone(),
        });
        if has_kustomize_hash(&name) {
            self.notes.push(format!(
                "the name {name} ends with a hash of kustomize, and the agent follows a fixed name: set `disableNameSuffixHash: true` in generatorOptions"
            ));
        }
        true
    }

    /// The lists of all ConfigMaps as one. The error is the first problem for which a part of them cannot be used.
    pub fn into_list(self) -> Result<ImageList, ListProblem> {
        if let Some(problem) = self.problems.into_iter().next() {
            return Err(problem);
        }
        let lists = self.lists.into_iter().map(|listed| listed.list).collect::<Result<Vec<_>, _>>()?;
        Ok(ImageList::joined(lists))
    }
}

/// A block that begins with `>` joins its lines, so that no list is left.
fn folded(problem: ListProblem, text: &str, value: &Node) -> ListProblem {
    // the parser's place of a block is its first line, and the mark is on the last line before it that is not empty
    let before: Vec<&str> = text.lines().take(value.line.saturating_sub(1)).collect();
    let Some((index, header)) = before.iter().enumerate().rev().find(|(_, line)| !line.trim().is_empty()) else {
        return problem;
    };
    let header = header.split(" #").next().unwrap_or_default().trim_end();
    let mark = header.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'));
    let Some(key) = mark.strip_suffix('>').filter(|key| key.ends_with(' ')) else { return problem };
    ListProblem {
        line: index + 1,
        column: key.chars().count() + 1,
        path: "data.images.yaml".to_owned(),
        message: "`>` joins the lines below it, so that no list is left".to_owned(),
        remedy: "write `images.yaml: |`".to_owned(),
    }
}

fn missing(object: &Node) -> ListProblem {
    let keys: Vec<String> = match object.at(&["data"]).map(|data| &*data.value) {
        Some(Value::Mapping(pairs)) => {
            pairs.iter().take(3).map(|(Key { text, .. }, _)| format!("`{}`", shown(text))).collect()
        }
        _ => Vec::new(),
    };
    let has = if keys.is_empty() { "it has no data".to_owned() } else { format!("it has {}", keys.join(", ")) };
    ListProblem {
        line: object.line,
        column: object.column,
        path: "data".to_owned(),
        message: format!("the ConfigMap {} has no key `{KEY}`; {has}", name(object)),
        remedy: format!("write the list below `data` as `{KEY}: |`"),
    }
}

fn name(object: &Node) -> String {
    let part = |key: &str| object.at(&["metadata", key]).and_then(Node::scalar).filter(|text| !text.is_empty());
    let name = part("name").or_else(|| part("generateName")).map_or("without a name".to_owned(), shown);
    part("namespace").map_or(name.clone(), |namespace| format!("{}/{name}", shown(namespace)))
}

fn has_kustomize_hash(name: &str) -> bool {
    let (length, letters) = KUSTOMIZE_HASH;
    let hash = name.rsplit_once('-').map_or("", |(_, hash)| hash);
    hash.len() == length && hash.chars().all(|c| letters.contains(c)) && hash.contains(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests;
