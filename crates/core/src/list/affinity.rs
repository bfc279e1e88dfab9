//! `nodeAffinity.nodeSelectorTerms` and `nodeSelector`: whether an entry is for a node, as the scheduler means it.
//!
//! Terms are joined by OR, what stands in one term by AND; a term with nothing in it matches no node
//! (`NodeSelectorTerm` of the core/v1 API).

use std::collections::BTreeMap;

use super::{
    fields::{Field, Fields, nearest, shown},
    problems::Problems,
};

/// How a requirement compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label has none of the values, or is absent.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is a whole number above the value.
    Gt,
    /// The label is a whole number below the value.
    Lt,
}

impl Operator {
    const ALL: [(&'static str, Self); 6] = [
        ("In", Self::In),
        ("NotIn", Self::NotIn),
        ("Exists", Self::Exists),
        ("DoesNotExist", Self::DoesNotExist),
        ("Gt", Self::Gt),
        ("Lt", Self::Lt),
    ];
}

/// One requirement on a label or field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Requirement {
    /// Label key, or `metadata.name` among the fields.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// What is compared with.
    pub values: Vec<String>,
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.key, self.operator)?;
        if self.values.is_empty() { Ok(()) } else { write!(f, " ({})", self.values.join(" ")) }
    }
}

/// Requirements that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelectorTerm {
    /// On the node's labels.
    pub match_expressions: Vec<Requirement>,
    /// On the node's fields; `metadata.name` is the only one that Kubernetes knows.
    pub match_fields: Vec<Requirement>,
}

impl std::fmt::Display for NodeSelectorTerm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<_> = self.match_expressions.iter().chain(&self.match_fields).map(ToString::to_string).collect();
        // as Kubernetes has it, a term without requirements matches nothing
        f.write_str(&if parts.is_empty() { "no node".to_owned() } else { parts.join(" and ") })
    }
}

/// What entries are matched against.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The node's labels; none while nobody has told them.
    pub labels: Option<BTreeMap<String, String>>,
}

impl NodeFacts {
    /// Whether an entry with these constraints is for the node; none where only the labels could tell, and they are not
    /// known. No term means no constraint.
    pub fn matches(&self, selector: &BTreeMap<String, String>, terms: &[NodeSelectorTerm]) -> Option<bool> {
        let selected = match &self.labels {
            Some(labels) => Some(selector.iter().all(|(k, v)| labels.get(k) == Some(v))),
            None => selector.is_empty().then_some(true),
        };
        let in_terms = if terms.is_empty() { Some(true) } else { any(terms.iter().map(|t| self.matches_term(t))) };
        all([selected, in_terms])
    }

    fn matches_term(&self, term: &NodeSelectorTerm) -> Option<bool> {
        if term.match_expressions.is_empty() && term.match_fields.is_empty() {
            return Some(false);
        }
        let name = |r: &Requirement| (r.key == "metadata.name").then_some(self.name.as_str());
        let fields = term.match_fields.iter().all(|r| holds(r, name(r)));
        let expressions = match &self.labels {
            Some(labels) => {
                Some(term.match_expressions.iter().all(|r| holds(r, labels.get(&r.key).map(String::as_str))))
            }
            None => term.match_expressions.is_empty().then_some(true),
        };
        all([Some(fields), expressions])
    }
}

/// AND over what may not be known: one `false` decides.
fn all(parts: [Option<bool>; 2]) -> Option<bool> {
    if parts.contains(&Some(false)) { Some(false) } else { parts[0].and(parts[1]) }
}

/// OR over what may not be known: one `true` decides.
fn any(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut all_known = true;
    for part in parts {
        match part {
            Some(true) => return Some(true),
            Some(false) => {}
            None => all_known = false,
        }
    }
    all_known.then_some(false)
}

fn holds(requirement: &Requirement, found: Option<&str>) -> bool {
    let listed = |value: &str| requirement.values.iter().any(|v| v == value);
    let compare = |wanted: fn(i64, i64) -> bool| {
        let bound = requirement.values.first().and_then(|v| v.parse().ok());
        found.and_then(|f| f.parse().ok()).zip(bound).is_some_and(|(f, b)| wanted(f, b))
    };
    match requirement.operator {
        Operator::In => found.is_some_and(listed),
        Operator::NotIn => !found.is_some_and(listed),
        Operator::Exists => found.is_some(),
        Operator::DoesNotExist => found.is_none(),
        Operator::Gt => compare(|f, b| f > b),
        Operator::Lt => compare(|f, b| f < b),
    }
}

/// Name of the field that a Pod has between `nodeAffinity` and `nodeSelectorTerms`.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
/// Name of the field with preferences of a Pod.
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Reads `nodeAffinity`: the terms directly below it, or as a Pod has them.
pub(super) fn read(field: &Field<'_>, problems: &mut Problems) -> Option<Vec<NodeSelectorTerm>> {
    let mut fields = Fields::of(field, problems)?;
    let mut terms = fields.take("nodeSelectorTerms").map(|f| node_selector_terms(&f, problems));
    if let Some(required) = fields.take(REQUIRED) {
        if terms.is_some() {
            let message = format!("nodeSelectorTerms and {REQUIRED} are both set");
            problems.push(required.problem(message, "keep one of them"));
        } else if let Some(mut inner) = Fields::of(&required, problems) {
            // without terms the API server refuses a Pod, and an entry would be for every node
            let wanted = inner.take_required("nodeSelectorTerms", "write the terms below it, as in a Pod", problems);
            terms = wanted.map(|f| node_selector_terms(&f, problems));
            inner.refuse_the_rest(&["nodeSelectorTerms"], problems);
        }
    }
    if let Some(preferred) = fields.take(PREFERRED) {
        let message = "a preference cannot decide whether a node gets an image".to_owned();
        problems.push(preferred.problem(message, &format!("remove it, or write its terms below {REQUIRED}")));
    }
    fields.refuse_the_rest(&["nodeSelectorTerms", REQUIRED], problems);
    Some(terms.unwrap_or_default())
}

fn node_selector_terms(field: &Field<'_>, problems: &mut Problems) -> Vec<NodeSelectorTerm> {
    let mut terms = Vec::new();
    for item in field.items(problems).into_iter().flatten() {
        let Some(mut term) = Fields::of(&item, problems) else { continue };
        terms.push(NodeSelectorTerm {
            match_expressions: term
                .take("matchExpressions")
                .map(|f| requirements(&f, false, problems))
                .unwrap_or_default(),
            match_fields: term.take("matchFields").map(|f| requirements(&f, true, problems)).unwrap_or_default(),
        });
        term.refuse_the_rest(&["matchExpressions", "matchFields"], problems);
    }
    terms
}

fn requirements(field: &Field<'_>, of_fields: bool, problems: &mut Problems) -> Vec<Requirement> {
    let Some(items) = field.items(problems) else { return Vec::new() };
    items.filter_map(|item| requirement(&item, of_fields, problems)).collect()
}

fn requirement(item: &Field<'_>, of_fields: bool, problems: &mut Problems) -> Option<Requirement> {
    let mut fields = Fields::of(item, problems)?;
    let key_field = fields.take_required("key", "write `key: LABEL`", problems);
    let key = key_field.as_ref().and_then(|f| f.text(problems)).map(str::to_owned);
    let operator_field = fields.take_required("operator", "write `operator: In` or another of the six", problems);
    let operator = operator_field.as_ref().and_then(|f| operator(f, problems));
    let values_field = fields.take("values");
    let mut values = Vec::new();
    if let Some(items) = values_field.as_ref().and_then(|f| f.items(problems)) {
        values.extend(items.filter_map(|v| v.text(problems).map(str::to_owned)));
    }
    fields.refuse_the_rest(&["key", "operator", "values"], problems);
    let requirement = Requirement { key: key?, operator: operator?, values };
    if let Some((message, remedy)) = refused(&requirement, of_fields) {
        problems.push(item.problem(message, remedy));
        return None;
    }
    Some(requirement)
}

/// What the API server's validation refuses as well.
fn refused(r: &Requirement, of_fields: bool) -> Option<(String, &'static str)> {
    if of_fields {
        if r.key != "metadata.name" {
            return Some((
                format!("there is no node field `{}` to match", shown(&r.key)),
                "match metadata.name, or use matchExpressions for labels",
            ));
        }
        if !matches!(r.operator, Operator::In | Operator::NotIn) || r.values.len() != 1 {
            return Some((
                "a field is compared by In or NotIn with exactly one value".to_owned(),
                "write `operator: In` and one name below `values`",
            ));
        }
        return None;
    }
    match r.operator {
        Operator::In | Operator::NotIn if r.values.is_empty() => {
            Some(("In and NotIn need at least one value".to_owned(), "add the values"))
        }
        Operator::Exists | Operator::DoesNotExist if !r.values.is_empty() => {
            Some(("Exists and DoesNotExist take no values".to_owned(), "remove the values"))
        }
        Operator::Gt | Operator::Lt if r.values.len() != 1 || r.values[0].parse::<i64>().is_err() => {
            Some(("Gt and Lt need exactly one whole number".to_owned(), "write one number in quotes below `values`"))
        }
        _ => None,
    }
}

fn operator(field: &Field<'_>, problems: &mut Problems) -> Option<Operator> {
    let text = field.text(problems)?;
    let found = Operator::ALL.iter().find(|(name, _)| *name == text).map(|(_, o)| *o);
    if found.is_none() {
        let names = Operator::ALL.map(|(name, _)| name);
        let remedy = match nearest(text, &names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("write one of {}", names.join(", ")),
        };
        problems.push(field.problem(format!("`{}` is no operator", shown(text)), &remedy));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(selector: &BTreeMap<String, String>, terms: &[NodeSelectorTerm]) -> bool {
        node().matches(selector, terms).unwrap()
    }

    fn node() -> NodeFacts {
        let labels = [("zone", "a"), ("cores", "8")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        NodeFacts { name: "node1".to_owned(), labels: Some(labels.into()) }
    }

    fn label(key: &str, operator: Operator, values: &[&str]) -> NodeSelectorTerm {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        NodeSelectorTerm {
            match_expressions: vec![Requirement { key: key.to_owned(), operator, values }],
            match_fields: vec![],
        }
    }

    #[test]
    fn every_operator() {
        let cases: [(&str, Operator, &[&str], bool); 14] = [
            ("zone", Operator::In, &["a", "b"], true),
            ("zone", Operator::In, &["b"], false),
            ("none", Operator::In, &["a"], false),
            ("zone", Operator::NotIn, &["b"], true),
            ("zone", Operator::NotIn, &["a"], false),
            ("none", Operator::NotIn, &["a"], true),
            ("zone", Operator::Exists, &[], true),
            ("none", Operator::Exists, &[], false),
            ("none", Operator::DoesNotExist, &[], true),
            ("zone", Operator::DoesNotExist, &[], false),
            ("cores", Operator::Gt, &["4"], true),
            ("cores", Operator::Gt, &["8"], false),
            ("cores", Operator::Lt, &["9"], true),
            ("zone", Operator::Lt, &["9"], false),
        ];
        for (key, operator, values, wanted) in cases {
            let found = matched(&BTreeMap::new(), &[label(key, operator, values)]);
            assert_eq!(found, wanted, "{key} {operator:?} {values:?}");
        }
    }

    #[test]
    fn terms_are_or_and_an_empty_term_matches_nothing() {
        let no = label("zone", Operator::In, &["b"]);
        let yes = label("zone", Operator::In, &["a"]);
        assert!(matched(&BTreeMap::new(), &[no.clone(), yes.clone()]));
        assert!(!matched(&BTreeMap::new(), &[no, NodeSelectorTerm::default()]));
        assert!(matched(&BTreeMap::new(), &[]));
        let selector = BTreeMap::from([("zone".to_owned(), "b".to_owned())]);
        assert!(!matched(&selector, &[yes]), "selector and terms are joined by AND");
    }

    #[test]
    fn fields_are_the_nodes_name() {
        let by_name = |name: &str| NodeSelectorTerm {
            match_expressions: vec![],
            match_fields: vec![Requirement {
                key: "metadata.name".to_owned(),
                operator: Operator::In,
                values: vec![name.to_owned()],
            }],
        };
        assert!(matched(&BTreeMap::new(), &[by_name("node1")]));
        assert!(!matched(&BTreeMap::new(), &[by_name("node2")]));
    }
}
