//! Typed access to a mapping's fields: every mismatch becomes a problem with its place, path and remedy.

use std::{collections::HashSet, time::Duration};

use super::{
    ListProblem,
    problems::Problems,
    tree::{Key, Node, Value},
    units,
};

/// Most fields of one mapping. No object of Kubernetes has nearly as many labels.
const MOST_FIELDS: usize = 500;
/// A longer name is no typing mistake of a known one.
const LONGEST_NAME: usize = 64;

/// The fields of one mapping, each taken at most once.
pub(super) struct Fields<'a> {
    path: String,
    node: &'a Node,
    pairs: Vec<(&'a Key, &'a Node)>,
    /// Names of which it is not clear what they mean: those that stand there twice, and `<<` where it merges nothing.
    unclear: Vec<(&'a str, usize)>,
}

/// One field's value.
pub(super) struct Field<'a> {
    pub(super) node: &'a Node,
    pub(super) path: String,
}

impl<'a> Fields<'a> {
    /// The document's own mapping. An empty document is an error: a file that is written in two steps, or by a redirection
    /// that failed, is empty for a moment, and would unpin and forget every image.
    pub(super) fn of_document(root: &'a Node, problems: &mut Problems) -> Result<Self, ListProblem> {
        let field = Field { node: root, path: String::new() };
        if root.is_null() {
            return Err(field.problem(
                "the list is empty".to_owned(),
                "write `images: []` if no image is wanted; an empty text changes nothing",
            ));
        }
        let mut own = Problems::default();
        let fields = Self::of(&field, &mut own);
        match (fields, own.first()) {
            (Some(fields), _) => {
                problems.append(own);
                Ok(fields)
            }
            (None, Some(first)) if matches!(*root.value, Value::Mapping(_)) => Err(first.clone()),
            (None, _) => Err(field.problem(
                format!("the list must be a mapping with the key `images`, and is {}", root.kind()),
                "write `images:` and below it one `- registry/repository:tag` a line",
            )),
        }
    }

    /// A field's value as a mapping.
    pub(super) fn of(field: &Field<'a>, problems: &mut Problems) -> Option<Self> {
        let Value::Mapping(pairs) = &*field.node.value else {
            problems.push(field.wrong_type("a mapping", "write `name: value` lines below it"));
            return None;
        };
        let mut fields = Self { path: field.path.clone(), node: field.node, pairs: Vec::new(), unclear: Vec::new() };
        let mut names = HashSet::new();
        let mut merged = Vec::new();
        for (key, value) in pairs {
            if key.text == "<<" {
                if let Value::Mapping(more) = &*value.value {
                    merged.extend(more.iter().map(|(k, v)| (k, v)));
                } else {
                    let message = "a merge key takes a mapping".to_owned();
                    problems.push(place(key, &field.path, message, "write `<<: *name`"));
                    fields.unclear.push((&key.text, key.line));
                }
            } else if names.insert(key.text.as_str()) {
                fields.pairs.push((key, value));
            } else {
                let message = format!("the field `{}` stands here twice", shown(&key.text));
                problems.push(place(key, &field.path, message, "keep one of them"));
                fields.unclear.push((&key.text, key.line));
            }
        }
        fields.pairs.extend(merged.into_iter().filter(|(key, _)| names.insert(&key.text)));
        if fields.pairs.len() > MOST_FIELDS {
            let message = format!("{} fields stand here, at most {MOST_FIELDS} are read", fields.pairs.len());
            problems.push(field.problem(message, "write fewer"));
            return None;
        }
        Some(fields)
    }

    /// Names of which it is not clear what they mean, each with its line.
    pub(super) fn unclear(&self) -> &[(&'a str, usize)] {
        &self.unclear
    }

    /// Whether a field stands there, also one with nothing in it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, _)| key.text == name)
    }

    /// Names that were not taken yet, each with its line.
    pub(super) fn left(&self) -> impl Iterator<Item = &'a Key> {
        self.pairs.iter().map(|(key, _)| *key)
    }

    /// The problem of a field that is not known.
    pub(super) fn unknown(&self, key: &Key, known: &[&str]) -> ListProblem {
        unknown(key, &self.path, known)
    }

    /// Takes a field out. A field with nothing in it counts as left out.
    pub(super) fn take(&mut self, name: &str) -> Option<Field<'a>> {
        let at = self.pairs.iter().position(|(key, _)| key.text == name)?;
        let (_, node) = self.pairs.swap_remove(at);
        (!node.is_null()).then(|| Field { node, path: join(&self.path, name) })
    }

    /// As [`Fields::take`], with a problem where the field is missing.
    pub(super) fn take_required(&mut self, name: &str, remedy: &str, problems: &mut Problems) -> Option<Field<'a>> {
        let field = self.take(name);
        if field.is_none() {
            let here = Field { node: self.node, path: self.path.clone() };
            problems.push(here.problem(format!("the field `{name}` is missing"), remedy));
        }
        field
    }

    /// Whatever was not taken is unknown; the nearest known name is the remedy.
    pub(super) fn refuse_the_rest(mut self, known: &[&str], problems: &mut Problems) {
        self.pairs.sort_by_key(|(key, _)| (key.line, key.column));
        for (key, _) in self.pairs {
            problems.push(unknown(key, &self.path, known));
        }
    }

    /// All fields, for mappings whose keys are the user's own (labels).
    pub(super) fn into_all(self) -> impl Iterator<Item = (&'a Key, Field<'a>)> {
        let path = self.path;
        self.pairs.into_iter().map(move |(key, node)| (key, Field { node, path: join(&path, &key.text) }))
    }
}

impl<'a> Field<'a> {
    /// A problem at this value.
    pub(super) fn problem(&self, message: String, remedy: &str) -> ListProblem {
        ListProblem {
            line: self.node.line,
            column: self.node.column,
            path: self.path.clone(),
            message,
            remedy: remedy.to_owned(),
        }
    }

    /// The value has another type than wanted.
    pub(super) fn wrong_type(&self, wanted: &str, remedy: &str) -> ListProblem {
        if let Value::Tagged(tag) = &*self.node.value {
            return self.problem(format!("the tag `{}` means nothing here", shown(tag)), "remove the tag");
        }
        self.problem(format!("{wanted} is wanted here, and {} was found", self.node.kind()), remedy)
    }

    /// Text. A plain number or truth value is refused as a Pod refuses it: quotes make it text.
    pub(super) fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        match &*self.node.value {
            Value::Scalar { text, .. } if self.node.kind() == "text" => Some(text),
            Value::Scalar { text, .. } => {
                problems.push(self.wrong_type("text", &format!("put it in quotes: \"{}\"", shown(text))));
                None
            }
            _ => {
                problems.push(self.wrong_type("text", "write one value"));
                None
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn truth(&self, problems: &mut Problems) -> Option<bool> {
        match &*self.node.value {
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "true" | "True" | "TRUE") => Some(true),
            Value::Scalar { text, plain: true } if matches!(text.as_str(), "false" | "False" | "FALSE") => Some(false),
            _ => {
                problems.push(self.wrong_type("true or false", "write true or false, without quotes"));
                None
            }
        }
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, least: i64, most: i64, problems: &mut Problems) -> Option<i64> {
        let plain = match &*self.node.value {
            Value::Scalar { text, plain: true } => Some(text),
            _ => None,
        };
        match plain.and_then(|text| text.parse::<i64>().ok()) {
            Some(number) if (least..=most).contains(&number) => Some(number),
            Some(number) => {
                problems.push(self.problem(
                    format!("{number} is outside of {least} to {most}"),
                    &format!("write a whole number from {least} to {most}"),
                ));
                None
            }
            None => {
                let remedy = format!("write a whole number from {least} to {most}");
                problems.push(match plain.filter(|_| self.node.kind() == "a number") {
                    Some(text) => {
                        let message = format!("`{}` is no whole number in decimal digits that fits here", shown(text));
                        self.problem(message, &remedy)
                    }
                    None => self.wrong_type("a whole number", &remedy),
                });
                None
            }
        }
    }

    /// A value that is written as text or as a plain number, read by one of [`units`]' functions.
    pub(super) fn unit<T>(&self, read: fn(&str) -> Result<T, units::UnitError>, problems: &mut Problems) -> Option<T> {
        let Value::Scalar { text, .. } = &*self.node.value else {
            problems.push(self.wrong_type("one value", "write one value"));
            return None;
        };
        read(text).map_err(|e| problems.push(self.problem(e.message, e.remedy))).ok()
    }

    /// A duration such as `1h30m`, longer than nothing.
    pub(super) fn duration(&self, problems: &mut Problems) -> Option<Duration> {
        let duration = self.unit(units::duration, problems)?;
        if duration.is_zero() {
            problems.push(self.problem("the duration is zero".to_owned(), "write a duration above zero, such as 30s"));
            return None;
        }
        Some(duration)
    }

    /// As [`Field::duration`], and not shorter than `least`.
    pub(super) fn duration_from(&self, least: Duration, problems: &mut Problems) -> Option<Duration> {
        let duration = self.duration(problems)?;
        if duration < least {
            let least = least.as_secs();
            let message = format!("the duration is shorter than {least} s");
            problems.push(self.problem(message, &format!("write {least}s or more, such as 10m")));
            return None;
        }
        Some(duration)
    }

    /// The items of a list.
    pub(super) fn items(&self, problems: &mut Problems) -> Option<impl ExactSizeIterator<Item = Field<'a>> + use<'a>> {
        self.list_items("write one `- ` line for each").map_err(|problem| problems.push(problem)).ok()
    }

    /// As [`Field::items`], with the problem as an error.
    pub(super) fn list_items(
        &self,
        remedy: &str,
    ) -> Result<impl ExactSizeIterator<Item = Field<'a>> + use<'a>, ListProblem> {
        let Value::Sequence(items) = &*self.node.value else { return Err(self.wrong_type("a list", remedy)) };
        let path = self.path.clone();
        Ok(items.iter().enumerate().map(move |(i, node)| Field { node, path: format!("{path}[{i}]") }))
    }
}

fn unknown(key: &Key, path: &str, known: &[&str]) -> ListProblem {
    let name = key.text.as_str();
    // people paste whole affinities out of Pods: say what to keep
    let remedy = if name.ends_with("DuringSchedulingIgnoredDuringExecution") {
        "write the nodeSelectorTerms directly below nodeAffinity".to_owned()
    } else if let Some(near) = nearest(name, known) {
        format!("did you mean `{near}`?")
    } else {
        format!("known here: {}", known.join(", "))
    };
    place(key, &join(path, name), format!("there is no field `{}` here", shown(name)), &remedy)
}

/// The known name that a typing mistake came from, if one is near enough.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let folded = name.to_lowercase();
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&folded, &k.to_lowercase()), *k))
        .filter(|(distance, k)| *distance <= 2.max(k.len() / 4))
        .min()
        .map(|(_, k)| k)
}

fn place(key: &Key, path: &str, message: String, remedy: &str) -> ListProblem {
    ListProblem { line: key.line, column: key.column, path: path.to_owned(), message, remedy: remedy.to_owned() }
}

fn join(path: &str, name: &str) -> String {
    let name = shown(name);
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// A bounded, one-line copy for messages: lists come from anybody who may write the ConfigMap.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}
