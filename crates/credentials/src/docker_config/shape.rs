//! The shape of a docker config, read leniently enough to say which entry is wrong.
//!
//! Every value is taken whatever its type is, and what it should have been is judged afterwards: one wrong type must
//! not hide the other entries. Field names are folded as Go folds them, and of a repeated field the last value that is
//! not null counts. Text goes into memory that is wiped.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use zeroize::Zeroizing;

use super::super::go_rules::json::is_field;

/// Fields that docker knows and CRI has no place for.
const NOT_APPLICABLE: [(&str, &str); 3] =
    [("httpheaders", "HttpHeaders"), ("credhelpers", "credHelpers"), ("credsstore", "credsStore")];

/// A field of an entry.
#[derive(Default)]
pub(super) enum Scalar {
    /// Absent or null.
    #[default]
    Nothing,
    Text(Zeroizing<String>),
    /// Something else; what it is.
    Wrong(&'static str),
}

impl Scalar {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            Self::Nothing | Self::Wrong(_) => None,
        }
    }

    pub(super) fn wrong_kind(&self) -> Option<&'static str> {
        match self {
            Self::Wrong(kind) => Some(kind),
            Self::Nothing | Self::Text(_) => None,
        }
    }

    /// A later value of the same field: null leaves the earlier one, and a wrong one stays wrong.
    fn update(&mut self, later: Self) {
        match (&self, &later) {
            (Self::Wrong(_), _) | (_, Self::Nothing) => {}
            (Self::Nothing | Self::Text(_), _) => *self = later,
        }
    }
}

/// The fields of an entry that count.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) username: Scalar,
    pub(super) password: Scalar,
    pub(super) email: Scalar,
    pub(super) auth: Scalar,
    pub(super) identity_token: Scalar,
    pub(super) registry_token: Scalar,
}

impl Fields {
    fn slot(&mut self, name: &str) -> Option<&mut Scalar> {
        let slots = [
            ("username", &mut self.username),
            ("password", &mut self.password),
            ("email", &mut self.email),
            ("auth", &mut self.auth),
            ("identitytoken", &mut self.identity_token),
            ("registrytoken", &mut self.registry_token),
        ];
        slots.into_iter().find(|(field, _)| is_field(name, field)).map(|(_, slot)| slot)
    }
}

/// An entry; null is one without fields.
pub(super) enum RawEntry {
    Fields(Box<Fields>),
    Wrong(&'static str),
}

/// The map of entries; null is an empty one.
pub(super) enum Auths {
    Entries(Vec<(String, RawEntry)>),
    Wrong(&'static str),
}

/// The object around the map.
#[derive(Default)]
pub(super) struct TopLevel {
    pub(super) auths: Option<Auths>,
    pub(super) not_applicable: Vec<&'static str>,
    /// The first object at the top whose name looks like a registry: the legacy layout.
    pub(super) bare_registry: Option<String>,
    /// What the top is if it is no object.
    pub(super) wrong_kind: Option<&'static str>,
}

/// What a JSON value turns into: one function per kind that can be right.
trait Shape: Sized {
    fn wrong(kind: &'static str) -> Self;
    fn null() -> Self;
    fn text(_text: &str) -> Self {
        Self::wrong("a string")
    }
    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::wrong("an object"))
    }
}

impl Shape for Scalar {
    fn wrong(kind: &'static str) -> Self {
        Self::Wrong(kind)
    }

    fn null() -> Self {
        Self::Nothing
    }

    fn text(text: &str) -> Self {
        Self::Text(Zeroizing::new(text.to_owned()))
    }
}

impl Shape for RawEntry {
    fn wrong(kind: &'static str) -> Self {
        Self::Wrong(kind)
    }

    fn null() -> Self {
        Self::Fields(Box::default())
    }

    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut fields = Box::<Fields>::default();
        while let Some(name) = map.next_key::<String>()? {
            match fields.slot(&name) {
                Some(slot) => slot.update(map.next_value()?),
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Self::Fields(fields))
    }
}

impl Shape for Auths {
    fn wrong(kind: &'static str) -> Self {
        Self::Wrong(kind)
    }

    fn null() -> Self {
        Self::Entries(Vec::new())
    }

    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Self::Entries(entries))
    }
}

impl Shape for TopLevel {
    fn wrong(kind: &'static str) -> Self {
        Self { wrong_kind: Some(kind), ..Self::default() }
    }

    fn null() -> Self {
        Self::default()
    }

    fn object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut top = Self::default();
        while let Some(name) = map.next_key::<String>()? {
            if is_field(&name, "auths") {
                // Go fills the same map again, and null empties it
                top.auths = match (top.auths.take(), map.next_value::<Option<Auths>>()?) {
                    (Some(Auths::Entries(mut earlier)), Some(Auths::Entries(later))) => {
                        earlier.extend(later);
                        Some(Auths::Entries(earlier))
                    }
                    (Some(Auths::Wrong(kind)), _) => Some(Auths::Wrong(kind)),
                    (_, later) => later,
                };
                continue;
            }
            let is_object = matches!(map.next_value::<RawEntry>()?, RawEntry::Fields(_));
            if is_object && top.bare_registry.is_none() && name.contains(['.', ':']) {
                top.bare_registry = Some(name);
                continue;
            }
            let known = NOT_APPLICABLE.iter().find(|(field, _)| is_field(&name, field)).map(|(_, shown)| *shown);
            top.not_applicable.extend(known.filter(|shown| !top.not_applicable.contains(shown)));
        }
        Ok(top)
    }
}

/// Takes any JSON value and hands it to the shape.
struct AnyValue<S>(std::marker::PhantomData<S>);

impl<'de, S: Shape> Visitor<'de> for AnyValue<S> {
    type Value = S;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _value: bool) -> Result<S, E> {
        Ok(S::wrong("true or false"))
    }

    fn visit_i64<E>(self, _value: i64) -> Result<S, E> {
        Ok(S::wrong("a number"))
    }

    fn visit_u64<E>(self, _value: u64) -> Result<S, E> {
        Ok(S::wrong("a number"))
    }

    fn visit_f64<E>(self, _value: f64) -> Result<S, E> {
        Ok(S::wrong("a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<S, E> {
        Ok(S::text(value))
    }

    fn visit_unit<E>(self) -> Result<S, E> {
        Ok(S::null())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<S, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(S::wrong("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<S, A::Error> {
        S::object(map)
    }
}

macro_rules! deserialize_by_shape {
    ($($shape:ty),*) => {$(
        impl<'de> Deserialize<'de> for $shape {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(AnyValue(std::marker::PhantomData))
            }
        }
    )*};
}

deserialize_by_shape!(Scalar, RawEntry, Auths, TopLevel);
