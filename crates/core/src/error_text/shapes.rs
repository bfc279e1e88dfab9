//! What looks like a secret, taken out of a text although nobody knows it: a registry's or a token server's own tokens.

use super::REDACTED;

/// Names behind which a secret stands in JSON, in forms and in headers.
const NAMES: [&str; 17] = [
    "password",
    "passwd",
    "secret",
    "client_secret",
    "client_assertion",
    "assertion",
    "webidentitytoken",
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "identitytoken",
    "identity_token",
    "registrytoken",
    "registry_token",
    "auth",
    "authorization",
];
/// Names of authentication schemes, behind which a secret stands too.
const SCHEMES: [&str; 2] = ["bearer", "basic"];
/// Shorter words behind a scheme's name are prose.
const SHORTEST_TOKEN: usize = 16;

/// The text without what stands where secrets stand.
pub(super) fn without(text: &str) -> String {
    without_named(&without_tokens(&without_url_secrets(text)))
}

/// Pre-signed addresses carry their right in the query, and addresses may carry a password before the host.
fn without_url_secrets(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`')).unwrap_or(after.len());
        let (url, after) = after.split_at(end);
        let host_end = url.find(['/', '?', '#']).unwrap_or(url.len());
        let (authority, path) = url.split_at(host_end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str(REDACTED);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        match path.split_once('?') {
            Some((path, _)) => {
                out.push_str(path);
                out.push('?');
                out.push_str(REDACTED);
                // the colon behind an address belongs to the sentence
                if url.ends_with(':') {
                    out.push(':');
                }
            }
            None => out.push_str(path),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '.' | '_' | '~' | '-' | '=' | '%')
}

/// What follows the name of a scheme, and JSON web tokens wherever they stand.
fn without_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut behind_scheme = false;
    while let Some(start) = rest.find(is_token_character) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let (run, after) = rest.split_at(rest.find(|c| !is_token_character(c)).unwrap_or(rest.len()));
        // a scheme's name may hang on what stands before it: Authorization=Basic, Bearer%20abc
        let (head, glued) = split_scheme(run);
        if behind_scheme && is_token(run, after) || is_web_token(run) {
            out.push_str(REDACTED);
        } else if let Some(token) = glued {
            out.push_str(head);
            out.push_str(if is_token(token, after) { REDACTED } else { token });
        } else {
            out.push_str(run);
        }
        behind_scheme = SCHEMES.iter().any(|scheme| ends_with_word(run, scheme));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether a run of characters behind a scheme's name is a token: neither a parameter (`realm="…"`) nor a word.
fn is_token(run: &str, after: &str) -> bool {
    let body = run.trim_end_matches('=');
    let parameter = body.contains('=') || (body.len() < run.len() && after.starts_with(['"', '\\']));
    let word = body.trim_end_matches('.').bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    run.len() >= SHORTEST_TOKEN && !parameter && !word
}

/// `eyJ` is how base64 of `{"` begins, and the parts of a web token are separated by dots.
fn is_web_token(run: &str) -> bool {
    run.find("eyJ").is_some_and(|at| run[at..].len() >= SHORTEST_TOKEN && run[at..].contains('.'))
}

fn ends_with_word(run: &str, word: &str) -> bool {
    let Some(at) = run.len().checked_sub(word.len()) else { return false };
    run.is_char_boundary(at)
        && run[at..].eq_ignore_ascii_case(word)
        && !run[..at].ends_with(|c: char| c.is_ascii_alphanumeric())
}

/// A run in which a scheme's name and its token are one, as in a percent-encoded header.
fn split_scheme(run: &str) -> (&str, Option<&str>) {
    let lower = run.to_ascii_lowercase();
    let cut = SCHEMES.iter().flat_map(|scheme| ["%20", "+"].map(|space| format!("{scheme}{space}"))).find_map(|head| {
        let at = lower.find(&head)?;
        Some(at + head.len())
    });
    match cut {
        Some(at) => (&run[..at], Some(&run[at..])),
        None => (run, None),
    }
}

/// `"password": "…"`, `password=…`: values in quotes or behind an equals sign. What follows a colon alone is prose.
fn without_named(text: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_name) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        out.push_str(name);
        rest = after;
        if !NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            continue;
        }
        let Some((lead, value)) = value_behind(rest) else { continue };
        out.push_str(&rest[..lead]);
        if value > 0 {
            out.push_str(REDACTED);
        }
        rest = &rest[lead + value..];
    }
    out.push_str(rest);
    out
}

/// How long what leads to the value is, and how long the value; none where no value follows.
fn value_behind(rest: &str) -> Option<(usize, usize)> {
    let quotes = ['"', '\'', '\\'];
    let after_name = rest.trim_start_matches(quotes);
    let separator = after_name.chars().next().filter(|c| matches!(c, ':' | '='))?;
    let after = after_name[1..].trim_start();
    let quoted = after.trim_start_matches(quotes);
    let lead = rest.len() - quoted.len();
    if quoted.len() < after.len() {
        let quote = if after.trim_start_matches('\\').starts_with('\'') { '\'' } else { '"' };
        return Some((lead, quoted.find(quote).map_or(quoted.len(), |end| quoted[..end].trim_end_matches('\\').len())));
    }
    let end = |c: char| c.is_whitespace() || matches!(c, '&' | ',' | ';' | '"' | '\'' | '}' | ')' | '<');
    (separator == '=' && !after.is_empty()).then(|| (lead, quoted.find(end).unwrap_or(quoted.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_lose_their_secrets_and_nothing_else() {
        assert_eq!(
            without("Get \"https://s3.example.com/blob?X-Amz-Signature=abc&x=y\": dial tcp 1.2.3.4:443: refused"),
            "Get \"https://s3.example.com/blob?[redacted]\": dial tcp 1.2.3.4:443: refused"
        );
        assert_eq!(without("https://me:pw@host/v2/: 401"), "https://[redacted]@host/v2/: 401");
        assert_eq!(
            without("unexpected status from HEAD request to https://h/v2/a/manifests/t?ns=b: 403 Forbidden"),
            "unexpected status from HEAD request to https://h/v2/a/manifests/t?[redacted]: 403 Forbidden"
        );
    }

    #[test]
    fn schemes_lose_their_credentials_wherever_they_stand() {
        for (text, wanted) in [
            ("sent Authorization: Bearer abcdefghijklmnop1 ok", "sent Authorization: Bearer [redacted] ok"),
            ("{\"Authorization\":\"Bearer abcdefghijklmnop1\"}", "{\"Authorization\":\"[redacted]\"}"),
            ("you sent (Basic dXNlcjpwYXNzd29yZA==), no", "you sent (Basic [redacted]), no"),
            ("header=Basic dXNlcjpwYXNzd29yZA==, no", "header=Basic [redacted], no"),
            ("got basic%20dXNlcjpwYXNzd29yZA%3D%3D; no", "got basic%20[redacted]; no"),
            ("invalid token eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.abc", "invalid token [redacted]"),
        ] {
            assert_eq!(without(text), wanted);
        }
    }

    #[test]
    fn named_values_are_taken_out() {
        for (text, wanted) in [
            ("{\"token\":\"abc\",\"expires_in\":300}", "{\"token\":\"[redacted]\",\"expires_in\":300}"),
            ("{\"access_token\": \"abc\"}", "{\"access_token\": \"[redacted]\"}"),
            ("{\\\"password\\\":\\\"abc\\\",\\\"x\\\":1}", "{\\\"password\\\":\\\"[redacted]\\\",\\\"x\\\":1}"),
            ("grant_type=password&password=abc&x=y", "grant_type=password&password=[redacted]&x=y"),
            ("password='abc' refused", "password='[redacted]' refused"),
        ] {
            assert_eq!(without(text), wanted);
        }
    }

    #[test]
    fn what_runtimes_really_say_is_kept() {
        for text in [
            "no basic auth credentials",
            "failed to authorize: failed to fetch oauth token: unexpected status from POST request to https://h/token: 401",
            "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
            "unable to retrieve auth token: invalid username/password: unauthorized: authentication required",
            "WWW-Authenticate: Bearer realm=\"https://auth.example.com/token\",service=\"registry\",error=\"invalid_token\"",
            "Basic authentication is required. Bearer authentication-schemes are not",
            "failed to resolve reference \"127.0.0.1:5000/team/token:secret\": not found",
        ] {
            assert_eq!(without(text), text);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "((password|token|Basic |Bearer%20|eyJ|://|[\"'=:%?@\\\\.& ]|\\PC)){0,30}") {
            without(&text);
        }
    }
}
