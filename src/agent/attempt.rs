//! One attempt to pull one image, and what it told about its credentials.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::mpsc;

use super::progress::Follow;
use crate::{
    clock::Moment,
    credentials::{
        Source,
        lookup::{self, Credentials, Request},
    },
    desired::{Target, TargetKey},
    error_class::{ErrorClass, PullError},
    progress::Sample,
    pull_secrets::{Fetched, PullSecrets, Seen},
    puller,
    runtime::Runtime,
    stock::{Outcome, Stock},
};

/// Where credentials come from.
#[derive(Clone)]
pub(super) struct Sources {
    /// Secrets and service accounts that entries name.
    pub(super) named: Arc<dyn PullSecrets>,
    /// The node's own.
    pub(super) node: Arc<Credentials>,
}

/// An attempt that ended.
pub(super) struct Done {
    pub(super) number: u64,
    pub(super) key: TargetKey,
    pub(super) began: Moment,
    /// Of a failure it is not known yet whether bytes had come.
    pub(super) outcome: Outcome,
    pub(super) lookups: Vec<(Source, lookup::Outcome)>,
    /// What was wrong while credentials were looked for.
    pub(super) problems: Vec<String>,
    /// The Secrets and service accounts that it used.
    pub(super) seen: Vec<Seen>,
    /// What it brought, as the runtime's content store says; none where it does not.
    pub(super) brought: Option<Sample>,
}

/// One attempt at one image.
pub(super) struct Attempt {
    /// Tells it from an earlier one at the same image.
    pub(super) number: u64,
    pub(super) runtime: Runtime,
    pub(super) target: Target,
    pub(super) sources: Sources,
    pub(super) began: Moment,
    pub(super) follow: Follow,
    /// Hears of the runtime's answer before what came is asked. Where it is full the end alone tells.
    pub(super) answered: mpsc::Sender<Answered>,
}

/// The runtime has said that the image of an attempt with this number is there.
pub(super) type Answered = (TargetKey, u64);

impl Attempt {
    /// Finds the credentials as they are now, then pulls.
    pub(super) async fn make(self) -> Done {
        let Self { number, runtime, target, sources, began, mut follow, answered } = self;
        let Fetched { pull_secrets, service_account_secrets, mut problems, seen } =
            sources.named.fetch(&target.pull_secrets, &target.service_accounts).await;
        let request = Request {
            image: &target.image,
            pull_secrets: &pull_secrets,
            service_account_secrets: &service_account_secrets,
            offline: false,
        };
        let found = sources.node.lookup(request).await;
        problems.extend(found.problems);
        let lease = follow.lease(&runtime, &target).await;
        let pulled = tokio::select! {
            pulled = puller::pull(&runtime, &target, &found.credentials, lease.as_deref()) => pulled,
            error = follow.stalled() => Err(Outcome::Failed(error)),
        };
        let outcome = match pulled {
            Ok(pulled) => {
                // a full queue loses nothing: the end tells it as well
                let _ = answered.try_send((target.key.clone(), number));
                puller::what_came(&runtime, &target, pulled).await
            }
            Err(outcome) => outcome,
        };
        let outcome = match outcome {
            Outcome::Failed(error) => Outcome::Failed(with_near_misses(error.after_bytes(), &found.near_misses)),
            outcome => outcome,
        };
        let brought = follow.finish(&runtime, &outcome).await;
        Done { number, key: target.key, began, outcome, lookups: found.outcomes, problems, seen, brought }
    }
}

/// Names the credentials that almost match in the error of an anonymous pull that the registry refused.
fn with_near_misses(mut error: PullError, near_misses: &[String]) -> PullError {
    let refused = matches!(error.class, ErrorClass::Unauthorized | ErrorClass::NotFound);
    if let Some(first) = near_misses.first().filter(|_| refused) {
        error.message = format!("{}; no credential matches: {first}", error.message);
        error.remedy = "Correct the key of the credential that almost matches; `prepull explain` names it.";
    }
    error
}

/// What was wrong with the credentials of each image, at its last attempt.
#[derive(Debug, Default)]
pub(super) struct Problems(HashMap<TargetKey, Vec<String>>);

impl Problems {
    /// Keeps what was wrong for the status, and logs what is new.
    pub(super) fn note(&mut self, key: &TargetKey, problems: Vec<String>) {
        for problem in &problems {
            if !self.0.values().flatten().any(|known| known == problem) {
                tracing::warn!(%problem, "a source of credentials has a problem");
            }
        }
        if problems.is_empty() {
            self.0.remove(key);
        } else {
            self.0.insert(key.clone(), problems);
        }
    }

    /// Those of one image.
    pub(super) fn of(&self, key: &TargetKey) -> Vec<String> {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// Forgets images that are no longer wanted.
    pub(super) fn retain(&mut self, stock: &Stock) {
        self.0.retain(|key, _| stock.find(key).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_anonymous_pull_names_the_credential_that_almost_matches() {
        let near = ["docker-config c.json: key `r.test:443` has a port".to_owned()];
        let failed = |class: ErrorClass| PullError {
            class,
            remedy: class.remedy(),
            try_next_credential: true,
            reason: "ErrImagePull",
            message: "refused".to_owned(),
            broke_off: false,
        };
        for class in [ErrorClass::Unauthorized, ErrorClass::NotFound] {
            let error = with_near_misses(failed(class), &near);
            assert!(error.message.starts_with("refused; ") && error.message.contains(&near[0]), "{}", error.message);
            assert!(error.remedy.contains("almost matches"), "{}", error.remedy);
            assert_eq!(with_near_misses(failed(class), &[]).remedy, class.remedy());
        }
        assert_eq!(with_near_misses(failed(ErrorClass::Timeout), &near).message, "refused");
    }
}
