//! Mistakes that people make in image names, each named by its cause.
//!
//! The grammar decides what is valid, as in the kubelet; this module only explains a refusal, or doubts a valid name.

use super::{Digest, ImageRef, MAX_REPOSITORY_LENGTH, MAX_TAG_LENGTH, is_host_label, is_tag};
use crate::template;

/// Most names in one text that are checked before the text counts as several names.
const MAX_NAMES_CHECKED: usize = 16;

/// Why a text is not an image name. The text is one clause, lower case; [`NameError::remedy`] says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was written.
    #[error("the image name is empty")]
    Empty,
    /// 64 hexadecimal characters alone are read as an image ID, which no registry serves.
    #[error("64 hexadecimal characters alone are an image ID, not a name")]
    ImageId,
    /// The part after the registry has a capital letter.
    #[error("the repository `{0}` has upper-case letters")]
    UpperCase(String),
    /// The repository's path is too long.
    #[error("the repository's path has {0} characters, at most {MAX_REPOSITORY_LENGTH} are allowed")]
    TooLong(usize),
    /// The digest names an algorithm that the kubelet does not have.
    #[error("the digest algorithm `{0}` is not supported")]
    DigestAlgorithm(String),
    /// The digest's hexadecimal part is cut or too long.
    #[error("the digest has {found} hexadecimal characters, its algorithm has {wanted}")]
    DigestLength {
        /// What the algorithm's digests have.
        wanted: usize,
        /// What was written.
        found: usize,
    },
    /// The digest has something else than lower-case hexadecimal characters.
    #[error("the digest has characters other than 0-9 and a-f")]
    DigestCharacters,
    /// A scheme was written before the name.
    #[error("an image name does not start with a scheme such as `{0}`")]
    Scheme(String),
    /// A template or a placeholder that nothing has filled in.
    #[error("the template expression `{0}` is not rendered")]
    Template(String),
    /// Several names in one text, with the separator between them.
    #[error("several image names are written here, separated by {0}")]
    Several(&'static str),
    /// Quotation marks are part of the name.
    #[error("the image name contains the quotation mark `{0}`")]
    Quotes(char),
    /// White space in or around the name.
    #[error("the image name has white space in or around it")]
    WhiteSpace,
    /// A character that no image name may have.
    #[error("the image name contains {0}")]
    Character(String),
    /// The registry's host has an underscore.
    #[error("the registry host `{0}` has an underscore")]
    HostUnderscore(String),
    /// The registry's host ends with a dot.
    #[error("the registry host `{0}` ends with a dot")]
    HostDot(String),
    /// The registry's port is not a number.
    #[error("the registry port `{0}` is not a number")]
    Port(String),
    /// The tag is too long or has a character that tags cannot have.
    #[error("`{0}` is not a valid tag")]
    Tag(String),
    /// The name ends with a separator.
    #[error("the image name ends with `{0}`")]
    EndsWith(char),
    /// Anything else that the grammar refuses.
    #[error("this is not an image name")]
    Malformed,
}

impl NameError {
    /// What the writer of the list can do about it, one sentence without a full stop.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Empty => "write registry/repository:tag",
            Self::ImageId => "write the repository's name, with @sha256:… behind it to choose by digest",
            Self::UpperCase(_) => "write the repository in lower case; only the registry and the tag may have capitals",
            Self::TooLong(_) => "shorten the repository's path",
            Self::DigestAlgorithm(_) => "use a sha256, sha384 or sha512 digest",
            Self::DigestLength { .. } | Self::DigestCharacters => {
                "copy the whole digest again, in lower case, for instance from the registry's page"
            }
            Self::Scheme(_) => "remove the scheme and start with the registry's host",
            Self::Template(_) => template::REMEDY,
            Self::Several(_) => "write each name as a list item on its own line",
            Self::Quotes(_) => "remove it; YAML takes only the straight quotes \" and ' around a value",
            Self::WhiteSpace => "remove the white space",
            Self::Character(_) => "type the name again with letters, digits and the separators . _ - / : @",
            Self::HostUnderscore(_) => "use a host name with letters, digits, dashes and dots only, or an IP address",
            Self::HostDot(_) => "remove the dot at the end of the host",
            Self::Port(_) => "write the port in digits, as in registry.example.com:5000/app:1",
            Self::Tag(_) => {
                "a tag has letters, digits, `_`, `.` and `-`, starts with a letter, digit or `_`, and has at most 128 characters"
            }
            Self::EndsWith(_) => "remove the last character, or complete the name",
            Self::Malformed => {
                "write registry/repository:tag or registry/repository@sha256:…, in letters, digits and the separators . _ - /"
            }
        }
    }
}

/// Names the cause of a refusal, if it is one of the common mistakes.
pub(super) fn likely(text: &str) -> Option<NameError> {
    if let Some(scheme) = scheme(text) {
        return Some(NameError::Scheme(shown(scheme)));
    }
    if let Some(expression) = template::unrendered(text) {
        return Some(NameError::Template(shown(expression)));
    }
    if let Some(separator) = separator(text) {
        return Some(NameError::Several(separator));
    }
    if let Some(quote) = text.chars().find(|c| is_quote(*c)) {
        return Some(NameError::Quotes(quote));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii()) {
        return Some(NameError::Character(described(c)));
    }
    if text.chars().any(char::is_whitespace) {
        return Some(NameError::WhiteSpace);
    }
    // a digest is cut more often than a name before it is wrong
    if let Some((named, digest)) = text.split_once('@') {
        let wrong = Digest::parse(digest).err().filter(|e| *e != NameError::Malformed);
        let named_well = !named.is_empty() && !digest.contains('@') && ImageRef::parse(named).is_ok();
        return wrong.filter(|_| named_well);
    }
    host(text).or_else(|| tag(text)).or_else(|| {
        let last = text.chars().next_back()?;
        let separator = matches!(last, '.' | ':' | '/' | '-' | '_');
        (separator && ImageRef::parse(&text[..text.len() - 1]).is_ok()).then_some(NameError::EndsWith(last))
    })
}

/// The refusal of a repository with capital letters, without the `library/` that nobody wrote.
pub(super) fn upper_case(text: &str, repository: &str) -> NameError {
    let written = if text.contains(repository) {
        repository
    } else {
        repository.strip_prefix(super::OFFICIAL_PREFIX).unwrap_or(repository)
    };
    NameError::UpperCase(shown(written))
}

/// Why a valid name is probably a mistake, with its remedy.
pub(super) fn doubt(image: &ImageRef) -> Option<String> {
    let (written, registry) = (image.written(), image.registry().as_str());
    let hexadecimal = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let first = shown(written.split('/').next().unwrap_or_default());
    let why = if written.starts_with("sha") && image.tag().is_some_and(|t| t.len() >= 64 && hexadecimal(t)) {
        "this is probably an image ID, and is read as the repository `sha256` on Docker Hub. Fix: write the image's name"
            .to_owned()
    } else if let Some(expression) = template::between_underscores(written) {
        format!("the template expression `{}` is probably not rendered. Fix: {}", shown(expression), template::REMEDY)
    } else if written.len() == 12 && hexadecimal(written) && written.bytes().any(|b| b.is_ascii_digit()) {
        "this is probably a short image ID, and is read as a repository on Docker Hub. Fix: write the image's name"
            .to_owned()
    } else if registry.is_empty() && first.contains('_') {
        format!(
            "the registry host `{first}` has an underscore, so runtimes refuse the name. Fix: use a host name without `_`, or an IP address"
        )
    } else if registry.is_empty() {
        format!("`{first}` is not a valid registry host, so runtimes refuse the name. Fix: correct the host")
    } else if !registry.contains(['.', ':']) && registry.chars().any(char::is_uppercase) {
        format!("`{first}` is read as a registry host because of its capital letters. Fix: write it in lower case")
    } else if registry == "hub.docker.com" {
        "`hub.docker.com` is a website, not a registry. Fix: write `docker.io` and the repository".to_owned()
    } else if registry == "quay.io" && image.repository().starts_with("repository/") {
        "`quay.io/repository/…` is the address of a web page. Fix: remove `repository/`".to_owned()
    } else {
        return None;
    };
    Some(why)
}

/// The scheme that a text starts with, `://` included.
fn scheme(text: &str) -> Option<&str> {
    let (name, _) = text.split_once("://")?;
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    (letters && name.starts_with(|c: char| c.is_ascii_alphabetic())).then(|| &text[..name.len() + 3])
}

/// What separates several names, if each part is a name.
fn separator(text: &str) -> Option<&'static str> {
    let parts = |between: &dyn Fn(char) -> bool| {
        let parts: Vec<_> =
            text.split(between).map(str::trim).filter(|p| !p.is_empty()).take(MAX_NAMES_CHECKED).collect();
        parts.len() > 1 && parts.iter().all(|part| ImageRef::parse(part).is_ok())
    };
    if parts(&|c| c == ',') {
        Some("a comma")
    } else if parts(&|c| c == ';') {
        Some("a semicolon")
    } else if parts(&char::is_whitespace) {
        Some("white space")
    } else if parts(&|c| matches!(c, ',' | ';') || c.is_whitespace()) {
        Some("commas and white space")
    } else {
        None
    }
}

/// What is wrong with the registry's host or port.
fn host(text: &str) -> Option<NameError> {
    let (first, _) = text.split_once('/')?;
    if !first.contains(['.', ':']) || first.starts_with('[') {
        return None;
    }
    let (host, port) = first.split_once(':').map_or((first, None), |(host, port)| (host, Some(port)));
    if host.contains('_') {
        Some(NameError::HostUnderscore(shown(host)))
    } else if host.strip_suffix('.').is_some_and(|rest| rest.split('.').all(is_host_label)) {
        Some(NameError::HostDot(shown(host)))
    } else if let Some(port) = port
        && !port.bytes().all(|b| b.is_ascii_digit())
    {
        Some(NameError::Port(shown(port)))
    } else {
        None
    }
}

/// What is wrong with the tag, if the name before it is right.
fn tag(text: &str) -> Option<NameError> {
    let (named, tag) = text.rsplit_once(':')?;
    let wrong = !tag.is_empty() && !tag.contains('/') && (!is_tag(tag) || tag.len() > MAX_TAG_LENGTH);
    (wrong && ImageRef::parse(named).is_ok()).then(|| NameError::Tag(shown(tag)))
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '\u{b4}' | '\u{2018}'..='\u{201f}' | '\u{ab}' | '\u{bb}')
}

/// A character by its looks where it has any, and by its number.
fn described(c: char) -> String {
    let name = match c {
        '\u{a0}' | '\u{202f}' => "a non-breaking space",
        '\u{200b}' => "a zero-width space",
        '\u{ad}' => "a soft hyphen",
        '\u{feff}' => "a byte order mark",
        '\u{2010}'..='\u{2015}' | '\u{2212}' => "a typographic dash",
        c if c.is_whitespace() => "a special space",
        c if c.is_alphanumeric() => {
            return format!("the letter `{c}` (U+{:04X}), which is not in the English alphabet", c as u32);
        }
        _ => "a character that image names do not have",
    };
    format!("{name} (U+{:04X})", c as u32)
}

/// A bounded copy for a message, on one line: names come from anybody.
pub(super) fn shown(text: &str) -> String {
    crate::error_text::one_line(&text.chars().take(80).collect::<String>())
}
