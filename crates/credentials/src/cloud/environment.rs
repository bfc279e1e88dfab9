//! The variables by which clouds and their SDKs are configured, as data: nothing below reads the process's own.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// A copy of an environment. An empty variable counts as absent, as in the clouds' SDKs.
#[derive(Clone, Default)]
pub(super) struct Environment(Arc<BTreeMap<String, String>>);

impl fmt::Debug for Environment {
    /// Values may be secrets, so only their number is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

impl Environment {
    /// Takes the variables that are not empty.
    pub(super) fn new(variables: BTreeMap<String, String>) -> Self {
        Self(Arc::new(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect()))
    }

    /// A variable's value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether a variable says `true`, in any case.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The first of several variables that is set.
    pub(super) fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// All variables.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_absent_and_values_stay_hidden() {
        let variables = [("A", ""), ("B", "True"), ("C", "canary")];
        let env = Environment::new(variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(env.get("A"), None);
        assert!(env.is_true("B"));
        assert_eq!(env.first(&["A", "C"]), Some("canary"));
        assert_eq!(format!("{env:?}"), "Environment(2 variables)");
    }
}
