//! YAML as a tree that remembers lines and columns.
//!
//! serde-based readers give a place for the first error only. Going on after a bad entry needs the place of every
//! value, so the tree is built from the parser's events.

use std::{collections::HashMap, rc::Rc};

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::{ListProblem, places::Places};

/// Deepest nesting that is read. A list needs seven levels.
const MAX_DEPTH: usize = 32;
/// Most documents that are read of a file.
const MAX_DOCUMENTS: usize = 1000;
/// Most values that a document may have, aliases counted each time: an alias bomb ends here.
const MAX_NODES: usize = 1_000_000;
/// So many bytes of text count as one value more: an alias repeats long texts as well.
const TEXT_OF_A_VALUE: usize = 64;

/// A value and its place. Clones share the value, so that an alias has a place of its own.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Line, from 1.
    pub(super) line: usize,
    /// Column, from 1.
    pub(super) column: usize,
    /// What stands there.
    pub(super) value: Rc<Value>,
}

/// A value.
#[derive(Debug)]
pub(super) enum Value {
    /// Text. `plain` is true without quotes and without `!!str`: only then may it mean a number, a truth value or
    /// nothing.
    Scalar { text: String, plain: bool },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in document order; keys that are no text are refused while reading.
    Mapping(Vec<(Key, Node)>),
    /// Whatever stands behind a tag that means nothing here.
    Tagged(String),
}

/// A mapping's key and its place.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) text: String,
}

impl Node {
    /// What YAML's core schema calls the value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &*self.value {
            Value::Tagged(_) => "a tag",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Scalar { plain: false, .. } => "text",
            Value::Scalar { text, plain: true } => match text.as_str() {
                "" | "~" | "null" | "Null" | "NULL" => "nothing",
                "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => "a truth value",
                other if looks_like_number(other) => "a number",
                _ => "text",
            },
        }
    }

    /// The value below these keys.
    pub(super) fn at(&self, keys: &[&str]) -> Option<&Self> {
        keys.iter().try_fold(self, |node, key| match &*node.value {
            Value::Mapping(pairs) => pairs.iter().find(|(found, _)| found.text == *key).map(|(_, value)| value),
            _ => None,
        })
    }

    /// One text, number or truth value as it is written; none for nothing.
    pub(super) fn scalar(&self) -> Option<&str> {
        match &*self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The same value for serde. Its size is bounded as the tree's is.
    pub(super) fn json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &*self.value {
            Value::Tagged(_) => Json::Null,
            Value::Sequence(items) => items.iter().map(Self::json).collect(),
            Value::Mapping(pairs) => pairs.iter().map(|(key, value)| (key.text.clone(), value.json())).collect(),
            Value::Scalar { text, .. } => match self.kind() {
                "nothing" => Json::Null,
                "a truth value" => Json::Bool(text.eq_ignore_ascii_case("true")),
                "a number" => text.parse().map_or_else(|_| Json::String(text.clone()), Json::Number),
                _ => Json::String(text.clone()),
            },
        }
    }

    /// Whether nothing stands there (`key:`, `~`, `null`), which means the same as leaving the field out.
    pub(super) fn is_null(&self) -> bool {
        self.kind() == "nothing"
    }
}

fn looks_like_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && (text.parse::<f64>().is_ok()
            || digits.strip_prefix("0x").is_some_and(|h| i64::from_str_radix(h, 16).is_ok())
            || digits.strip_prefix("0o").is_some_and(|o| i64::from_str_radix(o, 8).is_ok()))
}

/// Where something begins: line and column, from 1.
#[derive(Debug, Clone, Copy)]
struct Place {
    line: usize,
    column: usize,
}

/// The parser's events with their places.
struct Events<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Where the text is in a file, if it is a value there.
    places: Option<&'a Places>,
}

impl<'a> Events<'a> {
    fn of(text: &'a str, places: Option<&'a Places>) -> Self {
        // a byte order mark is an editor's habit, not content
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // whether comments are events depends on what else in the binary wants them to be
        let mut options = Options::default();
        options.set_emit_comments(false);
        Self { parser: Parser::new_from_str_with_options(text, options), places }
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Place)>, ListProblem> {
        let Some(event) = self.parser.next_event() else { return Ok(None) };
        let (event, span): (_, Span) = event.map_err(|e| self.no_yaml(&e))?;
        Ok(Some((event, self.place(span.start.line(), span.start.col() + 1))))
    }

    /// As [`Events::next`], inside of a value.
    fn within(&mut self) -> Result<(Event<'a>, Place), ListProblem> {
        let end = "the document ends in the middle of a value";
        self.next()?.ok_or_else(|| at(self.place(1, 1), end.to_owned(), "complete it"))
    }

    fn place(&self, line: usize, column: usize) -> Place {
        let (line, column) = match self.places {
            Some(places) => places.of(line, column),
            None => (line, column),
        };
        Place { line: line.max(1), column }
    }

    fn no_yaml(&self, error: &ScanError) -> ListProblem {
        let place = self.place(error.marker().line(), error.marker().col() + 1);
        let message = format!("this is not YAML: {}", error.info());
        at(place, message, "correct the indentation, quotes or brackets here")
    }
}

/// Reads the only document of a text that has a value; a text without any value gives an empty value.
pub(super) fn parse(text: &str, places: Option<&Places>) -> Result<Node, ListProblem> {
    let second = |place| {
        at(
            place,
            "a second document begins".to_owned(),
            "put one list into a file; several lists go into several files or ConfigMaps",
        )
    };
    let mut documents = read(text, places, 1, second)?;
    Ok(documents.pop().unwrap_or_else(|| {
        let nothing = Value::Scalar { text: String::new(), plain: true };
        let (line, column) = places.map_or((1, 1), |places| places.of(1, 1));
        Node { line, column, value: Rc::new(nothing) }
    }))
}

/// Reads all documents of a text that have a value.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, ListProblem> {
    read(text, None, MAX_DOCUMENTS, |place| {
        at(place, format!("the file has more than {MAX_DOCUMENTS} documents"), "split it")
    })
}

/// Reads documents, at most `most`, which `further` is the problem above. Empty ones are ignored, because templates and
/// concatenated files leave such behind.
fn read(
    text: &str,
    places: Option<&Places>,
    most: usize,
    further: impl Fn(Place) -> ListProblem,
) -> Result<Vec<Node>, ListProblem> {
    let mut builder = Builder { anchors: HashMap::new(), sizes: HashMap::new(), nodes: 0 };
    let mut events = Events::of(text, places);
    let mut documents = Vec::new();
    let mut begins = Place { line: 1, column: 1 };
    while let Some((event, place)) = events.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(..) => begins = place,
            event => {
                let document = builder.node(event, place, &mut events, 0)?;
                if document.is_null() {
                    continue;
                }
                if documents.len() == most {
                    return Err(further(begins));
                }
                documents.push(document);
            }
        }
    }
    Ok(documents)
}

struct Builder {
    anchors: HashMap<usize, Rc<Value>>,
    /// How many values an anchored value holds, so that aliases are counted without walking them.
    sizes: HashMap<usize, usize>,
    nodes: usize,
}

impl Builder {
    fn node<'a>(
        &mut self,
        event: Event<'a>,
        place: Place,
        events: &mut Events<'a>,
        depth: usize,
    ) -> Result<Node, ListProblem> {
        if depth > MAX_DEPTH {
            return Err(at(
                place,
                format!("values are nested deeper than {MAX_DEPTH} levels"),
                "write the list flat, as in the README",
            ));
        }
        let before = self.nodes;
        self.count(1, place)?;
        let tag = event.tag().cloned();
        let (anchor, value) = match event {
            Event::Alias(id) => {
                self.count(self.sizes.get(&id).copied().unwrap_or(0), place)?;
                let value = self.anchors.get(&id).cloned();
                let value =
                    value.ok_or_else(|| at(place, "this alias refers to itself".to_owned(), "write the value out"))?;
                return Ok(node(place, value));
            }
            Event::Scalar(text, style, anchor, _) => {
                self.count(text.len() / TEXT_OF_A_VALUE, place)?;
                (anchor, Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain })
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Value::Sequence(self.sequence(events, depth)?)),
            Event::MappingStart(_, anchor, _) => (anchor, Value::Mapping(self.mapping(events, depth)?)),
            _ => return Err(at(place, "no value stands here".to_owned(), "correct the YAML here")),
        };
        let value = Rc::new(tagged(tag.as_ref(), value));
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
            self.sizes.insert(anchor, self.nodes - before);
        }
        Ok(node(place, value))
    }

    fn sequence(&mut self, events: &mut Events<'_>, depth: usize) -> Result<Vec<Node>, ListProblem> {
        let mut items = Vec::new();
        loop {
            match events.within()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, place) => items.push(self.node(event, place, events, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, events: &mut Events<'_>, depth: usize) -> Result<Vec<(Key, Node)>, ListProblem> {
        let mut pairs = Vec::new();
        loop {
            let (event, place) = events.within()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(pairs);
            }
            let key = self.node(event, place, events, depth + 1)?;
            let Value::Scalar { text, .. } = &*key.value else {
                return Err(at(place, "a key must be text".to_owned(), "write `name: value`"));
            };
            let key = Key { line: place.line, column: place.column, text: text.clone() };
            let (event, place) = events.within()?;
            let value = self.node(event, place, events, depth + 1)?;
            pairs.push((key, value));
        }
    }

    fn count(&mut self, more: usize, place: Place) -> Result<(), ListProblem> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            return Err(at(
                place,
                format!("the document has more than {MAX_NODES} values"),
                "split the list, and use fewer aliases",
            ));
        }
        Ok(())
    }
}

/// `!!str` makes text of what looks like something else; any other tag asks for what nobody here knows.
fn tagged(tag: Option<&Tag>, value: Value) -> Value {
    match (tag, value) {
        (None, value) => value,
        (Some(tag), Value::Scalar { text, .. }) if tag.is_yaml_core_schema_tag("str") => {
            Value::Scalar { text, plain: false }
        }
        (Some(tag), _) => Value::Tagged(format!("{}{}", tag.original_handle(), tag.suffix())),
    }
}

fn node(place: Place, value: Rc<Value>) -> Node {
    Node { line: place.line, column: place.column, value }
}

fn at(place: Place, message: String, remedy: &str) -> ListProblem {
    let Place { line, column } = place;
    ListProblem { line, column, path: String::new(), message, remedy: remedy.to_owned() }
}
