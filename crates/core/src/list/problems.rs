//! What was found wrong so far: bounded, because lists come from anybody who may write the ConfigMap.

use super::ListProblem;

/// Most problems that are kept of a list; more are counted only.
const MOST: usize = 500;

/// Problems in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Problems {
    kept: Vec<ListProblem>,
    found: usize,
}

impl Problems {
    /// Adds one.
    pub(super) fn push(&mut self, problem: ListProblem) {
        self.found += 1;
        if self.kept.len() < MOST {
            self.kept.push(problem);
        }
    }

    /// Adds to what the last one says.
    pub(super) fn amend_last(&mut self, more: &str) {
        if self.found == self.kept.len()
            && let Some(last) = self.kept.last_mut()
        {
            last.message.push_str(more);
        }
    }

    /// Adds those of a part of the list.
    pub(super) fn append(&mut self, part: Self) {
        self.found += part.found;
        self.kept.extend(part.kept.into_iter().take(MOST - self.kept.len()));
    }

    /// How many were found.
    pub(super) fn found(&self) -> usize {
        self.found
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<&ListProblem> {
        self.kept.first()
    }

    /// In the order of the document, with a last one that counts those that were not kept.
    pub(super) fn in_order(mut self) -> Vec<ListProblem> {
        self.kept.sort_by_key(|p| (p.line, p.column));
        if self.found > self.kept.len()
            && let Some(last) = self.kept.last()
        {
            let more = ListProblem {
                message: format!("{} more problems are not listed", self.found - self.kept.len()),
                remedy: "correct those above first".to_owned(),
                path: String::new(),
                ..last.clone()
            };
            self.kept.push(more);
        }
        self.kept
    }
}
