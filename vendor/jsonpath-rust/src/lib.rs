//! Stands for the crate `jsonpath-rust`, of which kube's client uses one method in one place: a kubeconfig's `auth-provider: gcp`
//! names the field of its command's JSON that holds the token, such as `{.credential.access_token}`. kubectl dropped such
//! providers with 1.26; the real crate brings a parser generator and a regular expression engine into a binary that
//! every node pays for. Names joined by dots are followed here, and anything else is refused in words.
#![forbid(unsafe_code)]

use serde_json::Value;

/// Following a path into JSON.
pub trait JsonPath {
    /// The value at `$.name.name…`, if it is there. Any other path is an error that says so.
    fn query(&self, path: &str) -> Result<Vec<&Value>, String>;
}

impl JsonPath for Value {
    fn query(&self, path: &str) -> Result<Vec<&Value>, String> {
        let refused = || format!("{path:?} is not a path of names joined by dots, such as $.credential.access_token");
        let names = path.strip_prefix("$.").ok_or_else(refused)?;
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        };
        if !names.split('.').all(is_name) {
            return Err(refused());
        }
        Ok(names.split('.').try_fold(self, |value, name| value.get(name)).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::JsonPath as _;

    #[test]
    fn names_are_followed_and_everything_else_is_refused() {
        let token = json!({"credential": {"access_token": "t", "token-expiry": "e"}});
        assert_eq!(token.query("$.credential.access_token"), Ok(vec![&json!("t")]));
        assert_eq!(token.query("$.credential.token-expiry"), Ok(vec![&json!("e")]));
        assert_eq!(token.query("$.credential.other"), Ok(vec![]));
        for path in ["", "$", "credential", "$..access_token", "$.credential[0]", "$.*", "$['credential']"] {
            assert!(token.query(path).is_err(), "{path}");
        }
    }
}
