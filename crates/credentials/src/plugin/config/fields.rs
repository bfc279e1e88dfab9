//! A map of a configuration, read field by field, with the path of each in what is told.

use std::fmt::Display;

use serde_yaml::{Mapping, Value};

use super::{super::super::text::shown, ConfigError};

/// A map and where it stands; null is a map without fields, as in Go.
pub(super) struct Fields<'a> {
    path: String,
    map: Option<&'a Mapping>,
}

impl<'a> Fields<'a> {
    /// The value as a map; `path` is empty at the top.
    pub(super) fn of(value: &'a Value, path: &str) -> Result<Self, ConfigError> {
        match value {
            Value::Mapping(map) => Ok(Self { path: path.to_owned(), map: Some(map) }),
            Value::Null => Ok(Self { path: path.to_owned(), map: None }),
            _ if path.is_empty() => Err(ConfigError("a map is wanted at the top, with kind and apiVersion".to_owned())),
            _ => Err(ConfigError::at(path, "must be a map")),
        }
    }

    /// Where a field of this map stands.
    pub(super) fn path(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// What is wrong with a field.
    pub(super) fn wrong(&self, field: &str, what: impl Display) -> ConfigError {
        ConfigError::at(&self.path(field), what)
    }

    /// Fails where the map has any other field.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ConfigError> {
        let unknown = self
            .map
            .into_iter()
            .flat_map(Mapping::keys)
            .find(|key| !key.as_str().is_some_and(|key| known.contains(&key)));
        match unknown.map(|key| shown(key.as_str().unwrap_or("?"))) {
            None => Ok(()),
            Some(field) => Err(self.wrong(&field, format_args!("is unknown here; known are {}", known.join(", ")))),
        }
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.map?.get(field).filter(|value| !value.is_null())
    }

    /// A string, if there is one.
    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, ConfigError> {
        self.get(field).map(|value| value.as_str().ok_or_else(|| self.wrong(field, "must be a string"))).transpose()
    }

    /// True or false, if it is there. The kubelet reads YAML 1.1, in which there are more words for both.
    pub(super) fn flag(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        let flag = |value: &Value| match value.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("yes" | "on") => Some(true),
            Some("no" | "off") => Some(false),
            _ => value.as_bool(),
        };
        self.get(field).map(|value| flag(value).ok_or_else(|| self.wrong(field, "must be true or false"))).transpose()
    }

    /// A list; an absent one is empty.
    pub(super) fn list(&self, field: &str) -> Result<&'a [Value], ConfigError> {
        match self.get(field) {
            None => Ok(&[]),
            Some(Value::Sequence(items)) => Ok(items),
            Some(_) => Err(self.wrong(field, "must be a list")),
        }
    }

    /// A list of strings; an absent one is empty, and null in it is an empty string.
    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>, ConfigError> {
        let text = |(index, value): (usize, &Value)| match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text.clone()),
            _ => Err(self.wrong(&format!("{field}[{index}]"), "must be a string")),
        };
        self.list(field)?.iter().enumerate().map(text).collect()
    }

    /// A map, if there is one.
    pub(super) fn object(&self, field: &str) -> Result<Option<Self>, ConfigError> {
        self.get(field).map(|value| Self::of(value, &self.path(field))).transpose()
    }
}
