//! Which metrics and labels a PromQL expression speaks of. Whether it is PromQL at all, promtool says.

use std::collections::BTreeSet;

const KEYWORDS: [&str; 5] = ["and", "or", "unless", "offset", "bool"];
const WITH_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const AGGREGATIONS: [&str; 12] =
    ["sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "bottomk", "topk", "quantile"];

/// What an expression speaks of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Each metric with the labels that it is selected by.
    pub metrics: Vec<(String, BTreeSet<String>)>,
    /// The labels that are grouped by or matched on.
    pub grouping: BTreeSet<String>,
}

/// Takes an expression apart that promtool accepts.
pub fn mentions(expression: &str) -> Mentions {
    let tokens = tokens(expression);
    let mut found = Mentions::default();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        let next = tokens.get(at + 1).map_or("", String::as_str);
        at += 1;
        if WITH_LABELS.contains(&token) {
            let end = tokens[at..].iter().position(|t| t == ")").map_or(tokens.len(), |n| at + n);
            found.grouping.extend(tokens[at..end].iter().filter(|t| is_name(t)).cloned());
            at = end;
        } else if is_name(token) && next != "(" && !KEYWORDS.contains(&token) && !AGGREGATIONS.contains(&token) {
            let mut labels = BTreeSet::new();
            if next == "{" {
                let end = tokens[at..].iter().position(|t| t == "}").map_or(tokens.len(), |n| at + n);
                // strings are no tokens here, so that what is left are the labels' names
                labels.extend(tokens[at..end].iter().filter(|t| is_name(t)).cloned());
                at = end;
            }
            found.metrics.push((token.to_owned(), labels));
        }
    }
    found
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':')
}

/// Names and signs. Strings, numbers and what stands in brackets are left out.
fn tokens(expression: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = expression.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\'' => {
                while let Some(inner) = rest.next() {
                    if inner == '\\' {
                        rest.next();
                    } else if inner == c {
                        break;
                    }
                }
            }
            '[' => rest.by_ref().take_while(|inner| *inner != ']').for_each(drop),
            c if c.is_ascii_alphanumeric() || c == '_' || c == ':' => {
                let mut word = c.to_string();
                while let Some(more) = rest.next_if(|n| n.is_ascii_alphanumeric() || matches!(n, '_' | ':' | '.')) {
                    word.push(more);
                }
                if is_name(&word) {
                    tokens.push(word);
                }
            }
            c if c.is_whitespace() => {}
            c => tokens.push(c.to_string()),
        }
    }
    tokens
}
