//! Pull secrets: which Secrets count, and what they hold.
//!
//! The values come from manifests (`--pull-secret`) or from the Kubernetes API; what counts is the same. Pure: no
//! I/O, no clock.

pub mod manifest;

use std::{collections::BTreeMap, fmt};

use zeroize::Zeroizing;

use super::{
    docker_config::{self, DecodeError, DockerConfig, Format},
    text::shown,
};

/// Type and data key of the Secrets that count, and the format behind the key.
const COUNTED: [(&str, &str, Format); 2] = [
    ("kubernetes.io/dockerconfigjson", ".dockerconfigjson", Format::ConfigJson),
    ("kubernetes.io/dockercfg", ".dockercfg", Format::Legacy),
];

/// A Secret of any type. Debug prints none of its data.
#[derive(Clone, Default)]
pub struct Secret {
    /// Its namespace; empty where a manifest names none.
    pub namespace: String,
    /// Its name; empty where a manifest names none.
    pub name: String,
    /// Its `type`.
    pub secret_type: String,
    /// Its `data`, base64 decoded.
    pub data: BTreeMap<String, Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("origin", &self.origin()).finish_non_exhaustive()
    }
}

/// Why a Secret gives no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not a type of pull secrets.
    #[error(
        "its type is `{0}`, so it is not a pull secret and is skipped; \
         create it with `kubectl create secret docker-registry`"
    )]
    WrongType(String),
    /// Not a type of pull secrets, although a key of one is there.
    #[error(
        "its type is `{0}`, and a pull secret needs kubernetes.io/dockerconfigjson. Fix: a type cannot be changed, so delete \
         it and recreate it with `kubectl create secret docker-registry`"
    )]
    WrongTypeOfPullSecret(String),
    /// The key that belongs to its type is not there.
    #[error("it has no key `{0}`, which its type demands, so it is skipped")]
    NoKey(&'static str),
    /// The key holds nothing.
    #[error("its key `{0}` is empty, so it is skipped")]
    Empty(&'static str),
    /// The key holds no docker config.
    #[error("its key `{key}` holds no docker config: {source}")]
    Content {
        /// The data key.
        key: &'static str,
        /// What is wrong there.
        source: DecodeError,
    },
    /// The docker config has no `auths`, so it can give nothing.
    #[error(
        "its key `{0}` has no `auths`. Fix: wrap the map of registries in `auths`, or use type kubernetes.io/dockercfg"
    )]
    NoAuths(&'static str),
}

impl Secret {
    /// `namespace/name`, or the name alone.
    pub fn origin(&self) -> String {
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => "(without a name)".to_owned(),
            ("", name) => shown(name),
            (namespace, name) => format!("{}/{}", shown(namespace), shown(name)),
        }
    }

    /// The docker config that the Secret holds, by the kubelet's rules: the type decides which key counts.
    pub fn docker_config(&self) -> Result<DockerConfig, SecretError> {
        let (_, key, format) =
            COUNTED.iter().find(|(secret_type, ..)| *secret_type == self.secret_type).ok_or_else(|| {
                let secret_type = shown(&self.secret_type);
                if COUNTED.iter().any(|(_, key, _)| self.data.contains_key(*key)) {
                    SecretError::WrongTypeOfPullSecret(secret_type)
                } else {
                    SecretError::WrongType(secret_type)
                }
            })?;
        let text = self.data.get(*key).ok_or(SecretError::NoKey(key))?;
        if text.is_empty() {
            return Err(SecretError::Empty(key));
        }
        let config = docker_config::decode(text, *format).map_err(|source| SecretError::Content { key, source })?;
        if config.has_auths { Ok(config) } else { Err(SecretError::NoAuths(key)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(secret_type: &str, key: &str, text: &str) -> Secret {
        let data = BTreeMap::from([(key.to_owned(), Zeroizing::new(text.as_bytes().to_vec()))]);
        Secret { namespace: "ns".into(), name: "n".into(), secret_type: secret_type.into(), data }
    }

    #[test]
    fn type_and_key_decide() {
        let config = r#"{"auths":{"r":{"username":"u"}}}"#;
        let (json, legacy) = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg");
        let entries = |secret: Secret| secret.docker_config().map(|c| c.entries.len());
        assert_eq!(entries(secret(json, ".dockerconfigjson", config)), Ok(1));
        assert_eq!(entries(secret(legacy, ".dockercfg", r#"{"r":{}}"#)), Ok(1));
        assert_eq!(
            entries(secret("Opaque", ".dockerconfigjson", config)),
            Err(SecretError::WrongTypeOfPullSecret("Opaque".into()))
        );
        assert_eq!(entries(secret("Opaque", "other", config)), Err(SecretError::WrongType("Opaque".into())));
        assert_eq!(entries(secret(json, ".dockercfg", config)), Err(SecretError::NoKey(".dockerconfigjson")));
        assert_eq!(entries(secret(legacy, ".dockercfg", "")), Err(SecretError::Empty(".dockercfg")));
        assert_eq!(
            entries(secret(json, ".dockerconfigjson", r#"{"r":{}}"#)),
            Err(SecretError::NoAuths(".dockerconfigjson"))
        );
        assert_eq!(entries(secret(json, ".dockerconfigjson", r#"{"auths":{}}"#)), Ok(0));
    }

    #[test]
    fn nothing_of_the_content_is_told() {
        let broken = secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", "hunter2");
        let error = broken.docker_config().unwrap_err().to_string();
        assert!(error.contains("`.dockerconfigjson` holds no docker config: not valid JSON"), "{error}");
        assert!(!error.contains("hunter2") && !format!("{broken:?}").contains("hunter2"));
    }
}
