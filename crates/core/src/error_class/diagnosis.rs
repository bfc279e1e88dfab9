//! Finds out what a runtime's answer means, by the rules of [`super::rules`].

use super::{
    Code, ErrorClass,
    rules::{INVALID_NAME, Pattern, RULES, Rule},
};
use crate::image_ref::ImageRef;

/// What a runtime's answer means, and what follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diagnosis {
    /// The kind of failure.
    pub class: ErrorClass,
    /// The cause's name in the recorded texts, if more than the class is known.
    pub cause: Option<&'static str>,
    /// What to do about it, in one sentence: that of the cause if it is known, else that of the class.
    pub remedy: &'static str,
    /// Whether another credential could help.
    pub try_next_credential: bool,
}

impl Diagnosis {
    /// A failure of which the class alone is known.
    pub fn of(class: ErrorClass) -> Self {
        Self { class, cause: None, remedy: class.remedy(), try_next_credential: class.is_refusal() }
    }

    fn by(rule: &Rule) -> Self {
        let class = Self::of(rule.class);
        match rule.cause {
            // a cause that is known in detail is never the credential's
            Some(cause) => Self { cause: Some(cause.name), remedy: cause.remedy, try_next_credential: false, ..class },
            None => class,
        }
    }
}

/// Returns the meaning of a runtime's answer about an image. The image's name is left out of account, so that a
/// repository named `x509/no-such-host` does not mislead the on-call engineer.
pub fn diagnose(image: &ImageRef, code: Code, text: &str) -> Diagnosis {
    match find(&Words::of(image, text), code) {
        Some(rule) => Diagnosis::by(rule),
        None => Diagnosis::of(by_code(code)),
    }
}

/// The rule that decides; none if the code alone does.
fn find(words: &Words, code: Code) -> Option<&'static Rule> {
    // these two codes are the runtime's own state, whatever else the text mentions
    let of_the_runtime = matches!(code, Code::Unavailable | Code::Unimplemented);
    RULES
        .iter()
        .filter(|rule| {
            !of_the_runtime || matches!(rule.class, ErrorClass::RuntimeUnavailable | ErrorClass::RuntimeMisconfigured)
        })
        .find(|rule| rule.patterns.iter().any(|pattern| words.match_with(pattern)))
}

fn by_code(code: Code) -> ErrorClass {
    match code {
        Code::Unavailable | Code::Unimplemented => ErrorClass::RuntimeUnavailable,
        Code::DeadlineExceeded => ErrorClass::Timeout,
        Code::NotFound => ErrorClass::NotFound,
        Code::Other("PermissionDenied" | "Unauthenticated") => ErrorClass::Unauthorized,
        Code::Cancelled => ErrorClass::Stalled,
        // a name that cannot be read is known by its text; other arguments are refused as well
        Code::InvalidArgument | Code::Unknown | Code::Other(_) => ErrorClass::Unknown,
    }
}

/// Whether a runtime that was asked for an image's status says that it cannot read the name, as opposed to that it
/// cannot answer.
pub fn is_about_the_name(code: Code, text: &str) -> bool {
    let words = || Words::new(text.to_lowercase());
    matches!(code, Code::InvalidArgument | Code::NotFound)
        || (code == Code::Unknown && INVALID_NAME.iter().any(|pattern| words().match_with(pattern)))
}

/// A runtime's text, prepared for matching.
struct Words {
    /// In lower case.
    text: String,
    /// The HTTP statuses that it reports.
    statuses: Vec<u16>,
}

impl Words {
    fn of(image: &ImageRef, text: &str) -> Self {
        Self::new(without_names(image, text).to_lowercase())
    }

    fn new(text: String) -> Self {
        let statuses = http_statuses(&text);
        Self { text, statuses }
    }

    fn match_with(&self, pattern: &Pattern) -> bool {
        match *pattern {
            Pattern::Text(glob) => contains(&self.text, glob),
            Pattern::OwnText(glob) => self.statuses.is_empty() && contains(&self.text, glob),
            Pattern::Status(first, last) => self.statuses.iter().any(|status| (first..=last).contains(status)),
            Pattern::RefusedTunnel => is_refused_tunnel(&self.text),
        }
    }
}

/// Whether the parts of `glob`, separated by asterisks, are in the text in this order.
fn contains(text: &str, glob: &str) -> bool {
    let mut rest = text;
    glob.split('*').all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// The numbers after the word `status`: `unexpected status from HEAD request to URL: 503 Service Unavailable`,
/// `invalid status code from registry 503`, `failed with status code [manifests 1]: 401 Unauthorized`.
fn http_statuses(text: &str) -> Vec<u16> {
    let mut found = Vec::new();
    let mut expected = false;
    for word in text.split_whitespace() {
        if word.starts_with("status") {
            expected = true;
        } else if expected {
            let digits = word.trim_end_matches([',', ';', ')', ':', '.']);
            let status: Option<u16> =
                digits.parse().ok().filter(|status| digits.len() == 3 && (400..600).contains(status));
            expected = status.is_none();
            found.extend(status);
        }
    }
    found
}

/// What a proxy answers CONNECT with. Go shows the status' text alone, without its number:
/// `Head "https://registry.example.com/v2/": Forbidden`.
const TUNNEL_ANSWERS: [&str; 13] = [
    "bad request",
    "unauthorized",
    "forbidden",
    "not found",
    "method not allowed",
    "request timeout",
    "proxy authentication required",
    "internal server error",
    "not implemented",
    "bad gateway",
    "service unavailable",
    "gateway timeout",
    "gateway time-out",
];

fn is_refused_tunnel(text: &str) -> bool {
    let Some((_, url)) = text.rsplit_once("\"https://") else { return false };
    let Some((_, answer)) = url.split_once("\": ") else { return false };
    TUNNEL_ANSWERS.contains(&answer.trim())
}

fn without_names(image: &ImageRef, text: &str) -> String {
    let mut names = vec![image.cri_image(), image.canonical(), image.lookup_key(), image.written().to_owned()];
    names.push(image.repository().to_owned());
    if !image.registry().as_str().is_empty() {
        names.push(image.registry().to_string());
    }
    names.extend(image.tag().map(|tag| format!("/manifests/{tag}")));
    // a short name such as `tls` would take words out of the text itself: only what cannot be prose is removed
    names.retain(|n| n.contains(['/', ':', '.']));
    names.sort_by_key(|n| std::cmp::Reverse(n.len()));
    names.iter().fold(text.to_owned(), |text, name| text.replace(name.as_str(), "…"))
}
