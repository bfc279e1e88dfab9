//! On which nodes an image is wanted: those that at least one of the pods that use it may run on.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::workload::Spec;

/// More terms than these are not worth telling apart: the image is for every node.
const MOST_TERMS: usize = 16;

/// What one requirement says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Requirement {
    key: String,
    operator: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

/// Requirements that all hold.
type Term = BTreeSet<Requirement>;

/// The nodes that an image is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Placement {
    /// Nobody uses it yet.
    #[default]
    Nowhere,
    /// Nodes that one of the terms describes.
    Some(BTreeSet<Term>),
    /// Every node.
    Everywhere,
}

impl Placement {
    /// Adds the nodes that a pod may run on.
    pub(super) fn add(&mut self, pod: &Spec) {
        let Some(more) = terms(pod) else {
            *self = Self::Everywhere;
            return;
        };
        let mut all = match std::mem::take(self) {
            Self::Everywhere => BTreeSet::new(),
            Self::Nowhere => more,
            Self::Some(mut terms) => {
                terms.extend(more);
                terms
            }
        };
        // a term that demands more than another adds no node
        let narrower: Vec<Term> =
            all.iter().filter(|t| all.iter().any(|other| other != *t && other.is_subset(t))).cloned().collect();
        for term in narrower {
            all.remove(&term);
        }
        *self = if all.is_empty() || all.len() > MOST_TERMS { Self::Everywhere } else { Self::Some(all) };
    }

    /// As `nodeSelector`, where that can say it.
    pub(super) fn selector(&self) -> Option<BTreeMap<String, String>> {
        let Self::Some(terms) = self else { return None };
        let mut terms = terms.iter();
        let (Some(term), None) = (terms.next(), terms.next()) else { return None };
        let mut labels = BTreeMap::new();
        for requirement in term {
            let [value] = requirement.values.as_slice() else { return None };
            if requirement.operator != "In" || labels.insert(requirement.key.clone(), value.clone()).is_some() {
                return None;
            }
        }
        Some(labels)
    }

    /// As the terms of a `nodeAffinity`, where a selector cannot say it.
    pub(super) fn affinity(&self) -> Option<Vec<Vec<Requirement>>> {
        match self {
            Self::Some(terms) if self.selector().is_none() => {
                Some(terms.iter().map(|term| term.iter().cloned().collect()).collect())
            }
            Self::Some(_) | Self::Nowhere | Self::Everywhere => None,
        }
    }
}

/// What a pod demands of its node; none where any does.
fn terms(pod: &Spec) -> Option<BTreeSet<Term>> {
    let selector: Term = pod.node_selector.iter().flatten().map(|(key, value)| is_in(key, value)).collect();
    let required = pod.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()).and_then(|a| a.required.as_ref());
    let required = required.and_then(|r| r.node_selector_terms.as_deref()).unwrap_or_default();
    let one = |term: &super::workload::Term| -> Option<Term> {
        let mut all = selector.clone();
        for expression in term.match_expressions.iter().flatten() {
            if !["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"].contains(&expression.operator.as_str()) {
                return None;
            }
            all.insert(Requirement {
                key: expression.key.clone(),
                operator: expression.operator.clone(),
                values: expression.values.clone().unwrap_or_default(),
            });
        }
        (!all.is_empty()).then_some(all)
    };
    if required.is_empty() {
        return (!selector.is_empty()).then(|| BTreeSet::from([selector.clone()]));
    }
    required.iter().map(one).collect()
}

fn is_in(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: "In".to_owned(), values: vec![value.to_owned()] }
}
