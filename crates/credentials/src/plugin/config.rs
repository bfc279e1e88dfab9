//! `CredentialProviderConfig` of the kubelet: which plugins there are, and for which images each is asked.
//!
//! Read as strictly as the kubelet does, which does not start with a configuration that has anything wrong in it. Values
//! are not quoted in problems: those under `env` may be secrets. Pure: no I/O, no clock.

mod fields;

use std::{collections::HashSet, fmt, time::Duration};

use secrecy::SecretString;

use self::fields::Fields;
use super::{
    super::{
        document::{Document, documents},
        go_rules::duration::GoDuration,
        keyring::check_pattern,
        text::shown,
    },
    protocol::ApiVersion,
};

/// The kind of the configuration.
const KIND: &str = "CredentialProviderConfig";
/// Its versions, the newest first.
const VERSIONS: [&str; 3] =
    ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
/// What `cacheType` of `tokenAttributes` may be.
const TOKEN_CACHE_TYPES: [&str; 2] = ["ServiceAccount", "Token"];

/// Whether a plugin is given a token of the pod's service account. A pull for a node has no pod, hence no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenUse {
    /// It asks for none.
    Never,
    /// It runs without one too.
    IfThere,
    /// It does not run without one.
    Required,
}

/// One plugin of a configuration.
pub struct Provider {
    /// Its name, which is that of its binary.
    pub name: String,
    /// Patterns of the images for which it is asked.
    pub match_images: Vec<String>,
    /// How long an answer is kept that does not say it.
    pub default_cache_duration: Duration,
    /// The protocol's version that it is spoken to in.
    pub api_version: ApiVersion,
    /// Arguments.
    pub args: Vec<String>,
    /// Variables on top of this process's own; of equal names the last one counts.
    pub env: Vec<(String, SecretString)>,
    /// Its service account token.
    pub token: TokenUse,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is wrong with a configuration: one clause that names the field and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    fn at(path: &str, what: impl fmt::Display) -> Self {
        Self(format!("`{path}` {what}"))
    }
}

/// Reads one file. Of several YAML documents the kubelet sees the first, and so does this.
pub fn parse(text: &[u8]) -> Result<Vec<Provider>, ConfigError> {
    let document = first_document(text)?;
    let top = Fields::of(document.value(), "")?;
    let kind = top.text("kind")?.unwrap_or_default();
    let version = top.text("apiVersion")?.unwrap_or_default();
    if kind != KIND {
        return Err(ConfigError::at("kind", format_args!("is `{}`; write {KIND}", shown(kind))));
    }
    let Some(version) = VERSIONS.iter().find(|known| **known == version) else {
        return Err(ConfigError::at("apiVersion", format_args!("is `{}`; write {}", shown(version), VERSIONS[0])));
    };
    top.only(&["kind", "apiVersion", "providers"])?;
    let mut providers = Vec::new();
    for (index, value) in top.list("providers")?.iter().enumerate() {
        let fields = Fields::of(value, &format!("providers[{index}]"))?;
        providers.push(provider(&fields, *version == VERSIONS[0])?);
    }
    Ok(providers)
}

/// What must be true of all files of a configuration together.
pub fn check_all(providers: &[Provider]) -> Result<(), ConfigError> {
    if providers.is_empty() {
        return Err(ConfigError::at("providers", "has no entry; write at least one"));
    }
    let mut seen = HashSet::new();
    match providers.iter().find(|provider| !seen.insert(provider.name.as_str())) {
        Some(twice) => {
            Err(ConfigError(format!("the provider `{}` stands in it twice; remove one", shown(&twice.name))))
        }
        None => Ok(()),
    }
}

fn first_document(text: &[u8]) -> Result<Document, ConfigError> {
    let is_json = text.trim_ascii_start().starts_with(b"{");
    let mut documents = documents(text).into_iter();
    let first = documents.next().unwrap_or(Ok(Document::default()));
    if is_json && documents.next().is_some() {
        return Err(ConfigError("something stands behind the JSON object; remove it".to_owned()));
    }
    first.map_err(|error| ConfigError(error.to_string()))
}

fn provider(fields: &Fields<'_>, has_token_attributes: bool) -> Result<Provider, ConfigError> {
    let known = ["name", "matchImages", "defaultCacheDuration", "apiVersion", "args", "env", "tokenAttributes"];
    fields.only(if has_token_attributes { &known } else { &known[..known.len() - 1] })?;
    let name = fields.text("name")?.unwrap_or_default();
    if name.is_empty() || name.contains(['/', ' ']) || name == "." || name == ".." {
        return Err(fields.wrong("name", "must be the file name of the plugin, without spaces"));
    }
    let match_images = fields.texts("matchImages")?;
    if match_images.is_empty() {
        return Err(fields.wrong("matchImages", "has no entry; write a pattern such as *.example.com"));
    }
    for (index, pattern) in match_images.iter().enumerate() {
        if let Err(error) = check_pattern(pattern) {
            return Err(fields.wrong(&format!("matchImages[{index}]"), format_args!("is no pattern: {error}")));
        }
    }
    let duration = match fields.text("defaultCacheDuration")?.map(GoDuration::parse) {
        Some(Some(duration)) => duration,
        Some(None) => return Err(fields.wrong("defaultCacheDuration", "is no duration such as 10m or 0s")),
        None => return Err(fields.wrong("defaultCacheDuration", "is missing; write a duration such as 10m or 0s")),
    };
    let Some(default_cache_duration) = duration.to_std() else {
        return Err(fields.wrong("defaultCacheDuration", "must not be negative"));
    };
    let Some(api_version) = fields.text("apiVersion")?.and_then(ApiVersion::parse) else {
        let all = ApiVersion::ALL.map(ApiVersion::as_str).join(", ");
        return Err(fields.wrong("apiVersion", format_args!("must be one of {all}")));
    };
    let mut env = Vec::new();
    for (index, value) in fields.list("env")?.iter().enumerate() {
        let variable = Fields::of(value, &fields.path(&format!("env[{index}]")))?;
        variable.only(&["name", "value"])?;
        let text = |field| variable.text(field).map(Option::unwrap_or_default);
        env.push((text("name")?.to_owned(), SecretString::from(text("value")?)));
    }
    Ok(Provider {
        name: name.to_owned(),
        match_images,
        default_cache_duration,
        api_version,
        args: fields.texts("args")?,
        env,
        token: token_use(fields, api_version)?,
    })
}

fn token_use(provider: &Fields<'_>, api_version: ApiVersion) -> Result<TokenUse, ConfigError> {
    let Some(fields) = provider.object("tokenAttributes")? else { return Ok(TokenUse::Never) };
    let (required_keys, optional_keys) =
        ("requiredServiceAccountAnnotationKeys", "optionalServiceAccountAnnotationKeys");
    fields.only(&[
        "serviceAccountTokenAudience",
        "cacheType",
        "requireServiceAccount",
        required_keys,
        optional_keys,
    ])?;
    if fields.text("serviceAccountTokenAudience")?.unwrap_or_default().is_empty() {
        return Err(fields.wrong("serviceAccountTokenAudience", "is missing"));
    }
    let Some(required) = fields.flag("requireServiceAccount")? else {
        return Err(fields.wrong("requireServiceAccount", "is missing; write true or false"));
    };
    if api_version != ApiVersion::V1 {
        return Err(provider.wrong("tokenAttributes", format_args!("needs the apiVersion {}", ApiVersion::V1)));
    }
    if !TOKEN_CACHE_TYPES.contains(&fields.text("cacheType")?.unwrap_or_default()) {
        return Err(fields.wrong("cacheType", "must be ServiceAccount or Token"));
    }
    let mut seen = HashSet::new();
    for field in [required_keys, optional_keys] {
        for key in fields.texts(field)? {
            if !is_annotation_key(&key.to_lowercase()) {
                return Err(fields.wrong(field, "has an entry that is no annotation key"));
            }
            if !seen.insert(key) {
                return Err(fields.wrong(field, "has an entry that was named already"));
            }
        }
    }
    if !required && !fields.texts(required_keys)?.is_empty() {
        return Err(fields.wrong(required_keys, "must be empty where requireServiceAccount is false"));
    }
    Ok(if required { TokenUse::Required } else { TokenUse::IfThere })
}

/// A Kubernetes qualified name, in lower case: an optional DNS subdomain, a slash, and a name.
fn is_annotation_key(key: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bounded = |text: &str| edge(text.bytes().next()) && edge(text.bytes().last());
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let label =
        |text: &str| bounded(text) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let good_name = bounded(name)
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    good_name && prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "
kind: CredentialProviderConfig
apiVersion: kubelet.config.k8s.io/v1
providers:
- name: ecr
  matchImages: [\"*.dkr.ecr.*.amazonaws.com\", registry.io/*]
  defaultCacheDuration: 12h
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  args: [get, \"5\"]
  env:
  - {name: HTTPS_PROXY, value: hunter2}
  tokenAttributes:
    serviceAccountTokenAudience: sts
    cacheType: Token
    requireServiceAccount: false
    optionalServiceAccountAnnotationKeys: [Example.com/Role]
";

    fn error(text: &str) -> String {
        let providers = parse(text.as_bytes()).and_then(|p| check_all(&p).map(|()| p));
        providers.expect_err(text).to_string()
    }

    #[test]
    fn a_good_configuration_is_read() {
        let providers = parse(GOOD.as_bytes()).unwrap();
        let provider = &providers[0];
        assert_eq!((provider.name.as_str(), providers.len()), ("ecr", 1));
        assert_eq!(provider.match_images.len(), 2);
        assert_eq!(provider.default_cache_duration, Duration::from_hours(12));
        assert_eq!(provider.args, ["get", "5"]);
        assert_eq!(provider.token, TokenUse::IfThere);
        assert!(!format!("{provider:?} {:?}", provider.env).contains("hunter2"));
        check_all(&providers).unwrap();
    }

    #[test]
    fn json_and_every_version_are_read() {
        for version in VERSIONS {
            let text = format!(
                r#"{{"kind":"{KIND}","apiVersion":"{version}","providers":[{{"name":"p","matchImages":["r.io"],
                "defaultCacheDuration":"0s","apiVersion":"credentialprovider.kubelet.k8s.io/v1alpha1","args":null}}]}}"#
            );
            assert_eq!(parse(text.as_bytes()).unwrap()[0].api_version, ApiVersion::V1alpha1);
        }
    }

    #[test]
    fn anything_wrong_is_one_clause_that_names_the_field() {
        for (from, to, wanted) in [
            ("kind: Cred", "kind: X", "`kind` is `XentialProviderConfig`"),
            ("k8s.io/v1\nprov", "k8s.io/v2\nprov", "`apiVersion` is `kubelet.config.k8s.io/v2`"),
            ("providers:", "providers: []\nx:", "`x` is unknown"),
            ("name: ecr", "name: a/b", "`providers[0].name` must be"),
            ("name: ecr", "name: ..", "`providers[0].name` must be"),
            ("name: ecr", "name: 5", "`providers[0].name` must be a string"),
            ("name: ecr", "nome: ecr", "`providers[0].nome` is unknown"),
            ("registry.io/*", "\"*.io:*\"", "`providers[0].matchImages[1]` is no pattern: its port"),
            ("12h", "-1m", "`providers[0].defaultCacheDuration` must not be negative"),
            ("12h", "12", "`providers[0].defaultCacheDuration` must be a string"),
            ("12h", "hunter2", "`providers[0].defaultCacheDuration` is no duration"),
            ("  defaultCacheDuration: 12h\n", "", "`providers[0].defaultCacheDuration` is missing"),
            ("k8s.io/v1\n  args", "k8s.io/v3\n  args", "`providers[0].apiVersion` must be one of"),
            ("k8s.io/v1\n  args", "k8s.io/v1beta1\n  args", "`providers[0].tokenAttributes` needs the apiVersion"),
            ("config.k8s.io/v1\n", "config.k8s.io/v1beta1\n", "`providers[0].tokenAttributes` is unknown"),
            ("value: hunter2", "valve: hunter2", "`providers[0].env[0].valve` is unknown"),
            ("value: hunter2", "value: [hunter2]", "`providers[0].env[0].value` must be a string"),
            ("Token\n", "hunter2\n", "`providers[0].tokenAttributes.cacheType` must be"),
            ("false", "hunter2", "`providers[0].tokenAttributes.requireServiceAccount` must be true or false"),
            (
                "optionalS",
                "requiredS",
                "`providers[0].tokenAttributes.requiredServiceAccountAnnotationKeys` must be empty",
            ),
            (
                "Example.com/Role",
                "a b",
                "`providers[0].tokenAttributes.optionalServiceAccountAnnotationKeys` has an entry",
            ),
            ("name: ecr", "name: ecr\n  name: hunter2", "not valid YAML or JSON"),
            ("kind:", "\tkind:", "not valid YAML or JSON"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error = error(&GOOD.replacen(from, to, 1));
            assert!(error.starts_with(wanted) && !error.contains("hunter2"), "{to}: {error}");
        }
    }

    #[test]
    fn nothing_and_the_same_name_twice_are_wrong() {
        assert!(error("").starts_with("`kind` is ``; write CredentialProviderConfig"));
        assert!(error(&format!("kind: {KIND}\napiVersion: {}", VERSIONS[0])).starts_with("`providers` has no entry"));
        let twice = GOOD.replace("- name: ecr", "- &e\n  name: ecr") + "- *e\n";
        assert!(error(&twice).starts_with("the provider `ecr` stands in it twice"));
    }

    proptest! {
        #[test]
        fn never_panics(from in 0usize..600, length in 0usize..40, put in "\\PC{0,6}") {
            let mut text = GOOD.to_owned();
            let from = from.min(text.len());
            text.replace_range(from..(from + length).min(text.len()), &put);
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn never_panics_on_bytes(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&text);
        }
    }
}
