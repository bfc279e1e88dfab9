//! Template expressions and placeholders that nothing has rendered: Helm, Go and Jinja templates, shell and Kubernetes
//! variables, and the angle brackets of documentation.

/// What to do about one.
pub(crate) const REMEDY: &str =
    "render the file first, for instance with `helm template` or `envsubst`, or write the value";

/// Longest placeholder in angle brackets, in bytes.
const MAX_PLACEHOLDER: usize = 64;

/// The first expression of a text that is still a template: `{{ … }}`, `{% … %}`, `${…}`, `$(…)`, `$NAME`, `<…>` or
/// `%NAME%`. No value of a list has any of these.
pub(crate) fn unrendered(text: &str) -> Option<&str> {
    for (open, close) in [("{{", "}}"), ("{%", "%}"), ("${", "}"), ("$(", ")")] {
        if let Some(start) = text.find(open) {
            let rest = &text[start..];
            // an expression may go on behind the end of the value
            let end = rest.find(close).map_or(rest.len(), |at| at + close.len());
            return Some(&rest[..end]);
        }
    }
    variable(text).or_else(|| placeholder(text)).or_else(|| between(text, "%"))
}

/// `__NAME__`, which may stand in a valid name as well.
pub(crate) fn between_underscores(text: &str) -> Option<&str> {
    between(text, "__")
}

/// `$NAME`
fn variable(text: &str) -> Option<&str> {
    let start = text.find('$')?;
    let name = &text[start + 1..];
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_').then(|| &text[start..=start + end])
}

/// `<tag>`
fn placeholder(text: &str) -> Option<&str> {
    let start = text.find('<')?;
    let end = start + text[start..].find('>')?;
    (end > start + 1 && end - start <= MAX_PLACEHOLDER).then(|| &text[start..=end])
}

/// Capitals between two marks, so that a repository with two underscores is not one.
fn between<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    let start = text.find(mark)?;
    let name = &text[start + mark.len()..];
    let end = name.find(mark)?;
    let capitals = name[..end].bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    (capitals && name.starts_with(|c: char| c.is_ascii_uppercase())).then(|| &text[start..start + 2 * mark.len() + end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_template_is_found() {
        for (text, found) in [
            ("nginx:{{ .Values.tag }}", Some("{{ .Values.tag }}")),
            ("{{- range .Values.images }}", Some("{{- range .Values.images }}")),
            ("nginx:{{ .Values.tag", Some("{{ .Values.tag")),
            ("{% if a %}", Some("{% if a %}")),
            ("${REGISTRY:-quay.io}/app", Some("${REGISTRY:-quay.io}")),
            ("nginx:$(TAG)", Some("$(TAG)")),
            ("$REGISTRY/app:1", Some("$REGISTRY")),
            ("nginx:<tag>", Some("<tag>")),
            ("<your registry>/app", Some("<your registry>")),
            ("nginx:%TAG%", Some("%TAG%")),
            ("nginx:__TAG__", None),
            ("a < b", None),
            ("<>", None),
            ("costs $5", None),
            ("", None),
        ] {
            assert_eq!(unrendered(text), found, "{text}");
        }
        assert_eq!(between_underscores("nginx:__TAG__"), Some("__TAG__"));
        assert_eq!(between_underscores("quay.io/a__b/c__d:1"), None);
        assert_eq!(between_underscores("quay.io/a:1__2__3"), None);
    }
}
