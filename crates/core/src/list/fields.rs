//! Typed access to a mapping's fields: every mismatch becomes a problem with its place, path and remedy.

use std::{collections::HashMap, time::Duration};

use super::{
    ListProblem,
    problems::Problems,
    tree::{Key, Node, Value},
    units,
};
use crate::template;

/// Most fields of one mapping. No object of Kubernetes has nearly as many labels.
const MOST_FIELDS: usize = 500;
/// Deepest nesting of merge keys. Each level is a mapping that merges another one.
const MAX_MERGE_DEPTH: usize = 8;
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
        // each name with its line
        let mut names = HashMap::new();
        let mut merged = Vec::new();
        for (key, value) in pairs {
            if key.text == "<<" {
                if let Err(why) = merge(value, &mut merged, 0) {
                    problems.push(place(key, &field.path, why.0.to_owned(), why.1));
                    fields.unclear.push((&key.text, key.line));
                }
            } else if let Some(first) = names.get(key.text.as_str()) {
                let ignored = match &*value.value {
                    Value::Sequence(items) if items.len() == 1 => "its 1 entry is ignored".to_owned(),
                    Value::Sequence(items) => format!("its {} entries are ignored", items.len()),
                    _ => "this value is ignored".to_owned(),
                };
                let message = format!("duplicate key `{}` (the first is on line {first}): {ignored}", shown(&key.text));
                problems.push(place(key, &field.path, message, "keep one of them"));
                fields.unclear.push((&key.text, key.line));
            } else {
                names.insert(key.text.as_str(), key.line);
                fields.pairs.push((key, value));
            }
        }
        // a mapping's own fields are stronger than merged ones, and earlier merged ones than later ones
        fields.pairs.extend(merged.into_iter().filter(|(key, _)| names.insert(&key.text, key.line).is_none()));
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

    /// Names that were not taken yet, each with its line; without those that are the writer's own.
    pub(super) fn left(&self) -> impl Iterator<Item = &'a Key> {
        self.pairs.iter().map(|(key, _)| *key).filter(|key| !is_extension(key))
    }

    /// The first name that is the writer's own.
    pub(super) fn extension(&self) -> Option<&'a Key> {
        self.pairs.iter().map(|(key, _)| *key).find(|key| is_extension(key))
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

    /// Whatever was not taken is unknown, except `x-…`; the nearest known name is the remedy.
    pub(super) fn refuse_the_rest(mut self, known: &[&str], problems: &mut Problems) {
        self.pairs.sort_by_key(|(key, _)| (key.line, key.column));
        for (key, _) in self.pairs.into_iter().filter(|(key, _)| !is_extension(key)) {
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
    /// A problem at this value. A template that nothing has rendered is the cause of any other problem.
    pub(super) fn problem(&self, message: String, remedy: &str) -> ListProblem {
        let (message, remedy) = match self.template() {
            Some(expression) => (unrendered(expression), template::REMEDY),
            None => (message, remedy),
        };
        ListProblem {
            line: self.node.line,
            column: self.node.column,
            path: self.path.clone(),
            message,
            remedy: remedy.to_owned(),
        }
    }

    /// The first expression of a text that is still a template.
    fn template(&self) -> Option<&'a str> {
        match &*self.node.value {
            Value::Scalar { text, .. } => template::unrendered(text),
            _ => None,
        }
    }

    /// What was found, for a message: texts and numbers as they are written.
    fn found(&self) -> String {
        match &*self.node.value {
            Value::Scalar { text, .. } if self.node.kind() == "text" => format!("the text \"{}\"", shown(text)),
            Value::Scalar { text, .. } if self.node.kind() == "a number" => format!("the number {}", shown(text)),
            Value::Scalar { text, .. } if !self.node.is_null() => shown(text),
            _ => self.node.kind().to_owned(),
        }
    }

    /// The value has another type than wanted.
    pub(super) fn wrong_type(&self, wanted: &str, remedy: &str) -> ListProblem {
        if let Value::Tagged(tag) = &*self.node.value {
            return self.problem(format!("the tag `{}` means nothing here", shown(tag)), "remove the tag");
        }
        self.problem(format!("expected {wanted}, got {}", self.found()), remedy)
    }

    /// Text. A plain number or truth value is refused as a Pod refuses it: quotes make it text.
    pub(super) fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        match &*self.node.value {
            Value::Scalar { .. } if self.template().is_some() => {
                problems.push(self.problem(String::new(), ""));
                None
            }
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
                let name = self.path.rsplit('.').next().unwrap_or_default();
                let remedy = match &*self.node.value {
                    Value::Scalar { text, .. } => match text.to_ascii_lowercase().as_str() {
                        "yes" | "y" | "on" | "true" | "1" => format!("write `{name}: true`"),
                        "no" | "n" | "off" | "false" | "0" => format!("write `{name}: false`"),
                        _ => format!("write `{name}: true` or `{name}: false`"),
                    },
                    _ => format!("write `{name}: true` or `{name}: false`"),
                };
                problems.push(self.wrong_type("true or false", &remedy));
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
    let remedy = if let Some(remedy) = of_other_tools(name, known) {
        remedy.to_owned()
    } else if let Some(near) = nearest(name, known) {
        format!("did you mean `{near}`?")
    } else {
        format!("known here: {}", known.join(", "))
    };
    place(key, &join(path, name), format!("there is no field `{}` here", shown(name)), &remedy)
}

/// What to do about a field that other tools have, and that no typing mistake made.
fn of_other_tools(name: &str, known: &[&str]) -> Option<&'static str> {
    let of_entry = known.contains(&"image");
    match name {
        "tag" | "digest" | "version" if of_entry => Some("write it in `image`, as in `image: registry/repository:tag`"),
        "repository" | "registry" | "name" | "ref" | "reference" | "repo" if of_entry => {
            Some("write the whole name in `image`, as in `image: registry/repository:tag`")
        }
        "pullPolicy" => Some("write `imagePullPolicy`"),
        "pullSecrets" | "pullSecret" | "imagePullSecret" => Some("write `imagePullSecrets: [{name: SECRET}]`"),
        "affinity" => Some("write its nodeAffinity directly here; affinity to pods has no meaning for images"),
        "tolerations" => Some("remove it; the agent's DaemonSet decides on which tainted nodes it runs"),
        name if name.ends_with("DuringSchedulingIgnoredDuringExecution") => Some("write it below nodeAffinity"),
        _ => None,
    }
}

/// Whether a key is the writer's own: the place for anchors, as in Compose files and OpenAPI.
fn is_extension(key: &Key) -> bool {
    key.text.starts_with("x-")
}

/// The message for a template that nothing has rendered.
pub(super) fn unrendered(expression: &str) -> String {
    format!("the template expression `{}` is not rendered", shown(expression))
}

/// Collects what `<<` merges: a mapping, or a list of mappings, which may merge others themselves. The error is a message
/// with its remedy.
fn merge<'a>(
    value: &'a Node,
    merged: &mut Vec<(&'a Key, &'a Node)>,
    depth: usize,
) -> Result<(), (&'static str, &'static str)> {
    if depth == MAX_MERGE_DEPTH {
        return Err(("merge keys are nested too deeply", "write the fields out"));
    }
    match &*value.value {
        Value::Mapping(pairs) => {
            merged.extend(pairs.iter().filter(|(key, _)| key.text != "<<").map(|(key, value)| (key, value)));
            pairs.iter().filter(|(key, _)| key.text == "<<").try_for_each(|(_, more)| merge(more, merged, depth + 1))
        }
        Value::Sequence(items) if items.iter().all(|item| matches!(*item.value, Value::Mapping(_))) => {
            items.iter().try_for_each(|item| merge(item, merged, depth + 1))
        }
        _ => Err(("a merge key takes a mapping", "write `<<: *name`")),
    }
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
