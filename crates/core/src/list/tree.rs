//! YAML as a tree that remembers lines and columns.
//!
//! serde-based readers give a place for the first error only. Going on after a bad entry needs the place of every
//! value, so the tree is built from the parser's events.

use std::{collections::HashMap, rc::Rc};

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, Tag};

use super::ListProblem;

/// Deepest nesting that is read. A list needs seven levels.
const MAX_DEPTH: usize = 32;
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

/// Reads the only document of a text that has a value. Empty documents before and after it are ignored, because templates
/// and concatenated files leave such behind; a text without any value gives an empty value.
pub(super) fn parse(text: &str) -> Result<Node, ListProblem> {
    let mut builder = Builder { anchors: HashMap::new(), sizes: HashMap::new(), nodes: 0 };
    // a byte order mark is an editor's habit, not content
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // whether comments are events depends on what else in the binary wants them to be
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut events = Parser::new_from_str_with_options(text, options);
    let mut root: Option<Node> = None;
    let mut begins = Span::default();
    while let Some(event) = events.next_event() {
        let (event, span) = event.map_err(|e| no_yaml(&e))?;
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(..) => begins = span,
            event => {
                let document = builder.node(event, &span, &mut events, 0)?;
                let has_value = root.as_ref().is_some_and(|root| !root.is_null());
                if has_value && !document.is_null() {
                    return Err(at(
                        &begins,
                        "a second document begins".to_owned(),
                        "put one list into a file; several lists go into several files or ConfigMaps",
                    ));
                }
                if !has_value {
                    root = Some(document);
                }
            }
        }
    }
    Ok(root.unwrap_or_else(|| {
        let nothing = Value::Scalar { text: String::new(), plain: true };
        Node { line: 1, column: 1, value: Rc::new(nothing) }
    }))
}

struct Builder {
    anchors: HashMap<usize, Rc<Value>>,
    /// How many values an anchored value holds, so that aliases are counted without walking them.
    sizes: HashMap<usize, usize>,
    nodes: usize,
}

type Events<'a> = Parser<'a, granit_parser::StrInput<'a>>;

impl Builder {
    fn node<'a>(
        &mut self,
        event: Event<'a>,
        span: &Span,
        events: &mut Events<'a>,
        depth: usize,
    ) -> Result<Node, ListProblem> {
        if depth > MAX_DEPTH {
            return Err(at(
                span,
                format!("values are nested deeper than {MAX_DEPTH} levels"),
                "write the list flat, as in the README",
            ));
        }
        let before = self.nodes;
        self.count(1, span)?;
        let tag = event.tag().cloned();
        let (anchor, value) = match event {
            Event::Alias(id) => {
                self.count(self.sizes.get(&id).copied().unwrap_or(0), span)?;
                let value = self.anchors.get(&id).cloned();
                let value =
                    value.ok_or_else(|| at(span, "this alias refers to itself".to_owned(), "write the value out"))?;
                return Ok(node(span, value));
            }
            Event::Scalar(text, style, anchor, _) => {
                self.count(text.len() / TEXT_OF_A_VALUE, span)?;
                (anchor, Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain })
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Value::Sequence(self.sequence(events, depth)?)),
            Event::MappingStart(_, anchor, _) => (anchor, Value::Mapping(self.mapping(events, depth)?)),
            _ => return Err(at(span, "no value stands here".to_owned(), "correct the YAML here")),
        };
        let value = Rc::new(tagged(tag.as_ref(), value));
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
            self.sizes.insert(anchor, self.nodes - before);
        }
        Ok(node(span, value))
    }

    fn sequence(&mut self, events: &mut Events<'_>, depth: usize) -> Result<Vec<Node>, ListProblem> {
        let mut items = Vec::new();
        loop {
            match next(events)? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, &span, events, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, events: &mut Events<'_>, depth: usize) -> Result<Vec<(Key, Node)>, ListProblem> {
        let mut pairs = Vec::new();
        loop {
            let (event, span) = next(events)?;
            if matches!(event, Event::MappingEnd) {
                return Ok(pairs);
            }
            let key = self.node(event, &span, events, depth + 1)?;
            let Value::Scalar { text, .. } = &*key.value else {
                return Err(at(&span, "a key must be text".to_owned(), "write `name: value`"));
            };
            let key = Key { line: span.start.line(), column: span.start.col() + 1, text: text.clone() };
            let (event, span) = next(events)?;
            let value = self.node(event, &span, events, depth + 1)?;
            pairs.push((key, value));
        }
    }

    fn count(&mut self, more: usize, span: &Span) -> Result<(), ListProblem> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            return Err(at(
                span,
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

fn node(span: &Span, value: Rc<Value>) -> Node {
    Node { line: span.start.line(), column: span.start.col() + 1, value }
}

fn next<'a>(events: &mut Events<'a>) -> Result<(Event<'a>, Span), ListProblem> {
    match events.next_event() {
        Some(Ok(event)) => Ok(event),
        Some(Err(e)) => Err(no_yaml(&e)),
        None => Err(problem(1, 1, "the document ends in the middle of a value".to_owned(), "complete it")),
    }
}

fn no_yaml(error: &ScanError) -> ListProblem {
    let (mark, message) = (error.marker(), format!("this is not YAML: {}", error.info()));
    problem(mark.line(), mark.col() + 1, message, "correct the indentation, quotes or brackets here")
}

fn at(span: &Span, message: String, remedy: &str) -> ListProblem {
    problem(span.start.line(), span.start.col() + 1, message, remedy)
}

fn problem(line: usize, column: usize, message: String, remedy: &str) -> ListProblem {
    ListProblem { line: line.max(1), column, path: String::new(), message, remedy: remedy.to_owned() }
}
