//! One attempt to pull one image, and what it told about its credentials.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::progress::Follow;
use crate::{
    clock::Moment,
    credentials::{
        Source,
        lookup::{self, Credentials, Request},
    },
    desired::{MAX_PULL_SECRETS_PER_IMAGE, MAX_SERVICE_ACCOUNTS_PER_IMAGE, Target, TargetKey},
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
    /// Finds the credentials as they are now, then pulls; both together within the target's `pullTimeout`.
    pub(super) async fn make(self) -> Done {
        let Self { number, runtime, target, sources, began, mut follow, answered } = self;
        let deadline = Instant::now() + target.pull_timeout;
        let Ok((found, problems, seen)) = timeout_at(deadline, search(&sources, &target)).await else {
            let outcome = Outcome::Failed(search_timed_out(&target));
            let brought = follow.finish(&runtime, &outcome).await;
            let (lookups, problems, seen) = (Vec::new(), Vec::new(), Vec::new());
            return Done { number, key: target.key, began, outcome, lookups, problems, seen, brought };
        };
        let lease = follow.lease(&runtime, &target).await;
        let pulled = tokio::select! {
            pulled = puller::pull(&runtime, &target, &found.credentials, lease.as_deref(), deadline) => pulled,
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

/// Finds the credentials of a target: its own Secrets and service accounts, then the node's sources.
async fn search(sources: &Sources, target: &Target) -> (lookup::Lookup, Vec<String>, Vec<Seen>) {
    let Fetched { pull_secrets, service_account_secrets, mut problems, seen } =
        sources.named.fetch(&target.pull_secrets, &target.service_accounts).await;
    let request = Request {
        image: &target.image,
        pull_secrets: &pull_secrets,
        service_account_secrets: &service_account_secrets,
        offline: false,
    };
    let mut found = sources.node.lookup(request).await;
    problems.append(&mut found.problems);
    if target.left_out > 0 {
        problems.push(format!(
            "{} pull secrets or service accounts are left out: one image uses at most {MAX_PULL_SECRETS_PER_IMAGE} and {MAX_SERVICE_ACCOUNTS_PER_IMAGE}. Fix: name fewer",
            target.left_out
        ));
    }
    (found, problems, seen)
}

/// The failure of an attempt that had no time left for the pull.
fn search_timed_out(target: &Target) -> PullError {
    let message = format!(
        "credentials were still being searched for when pullTimeout ({} s) ended: the API server, a plugin or a cloud answers slowly, or the image names many Secrets ({})",
        target.pull_timeout.as_secs_f64(),
        target.pull_secrets.len()
    );
    PullError::own(ErrorClass::Timeout, &message)
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

/// Problems that are kept of one image; of more, their number.
const MAX_PROBLEMS_PER_IMAGE: usize = 20;

/// What was wrong with the credentials of each image, at its last attempt.
#[derive(Debug, Default)]
pub(super) struct Problems {
    of: HashMap<TargetKey, Vec<Arc<str>>>,
    /// How many images have each problem, so that each is logged once.
    known: HashMap<Arc<str>, usize>,
}

impl Problems {
    /// Keeps what was wrong for the status, and logs what is new.
    pub(super) fn note(&mut self, key: &TargetKey, mut problems: Vec<String>) {
        if let Some(more) = problems.len().checked_sub(MAX_PROBLEMS_PER_IMAGE).filter(|more| *more > 0) {
            problems.truncate(MAX_PROBLEMS_PER_IMAGE);
            problems.push(format!("and {more} more problems with credentials of this image"));
        }
        let mut kept = Vec::with_capacity(problems.len());
        for problem in problems {
            let problem = self.known.get_key_value(problem.as_str()).map_or_else(|| problem.into(), |(p, _)| p.clone());
            let images = self.known.entry(problem.clone()).or_default();
            if *images == 0 {
                tracing::warn!(%problem, "a source of credentials has a problem");
            }
            *images += 1;
            kept.push(problem);
        }
        let before = if kept.is_empty() { self.of.remove(key) } else { self.of.insert(key.clone(), kept) };
        self.forget(before.unwrap_or_default());
    }

    /// Returns those of one image.
    pub(super) fn of(&self, key: &TargetKey) -> Vec<String> {
        self.of.get(key).into_iter().flatten().map(ToString::to_string).collect()
    }

    /// Forgets images that are no longer wanted.
    pub(super) fn retain(&mut self, stock: &Stock) {
        let gone: Vec<_> = self.of.extract_if(|key, _| stock.find(key).is_none()).collect();
        for (_, problems) in gone {
            self.forget(problems);
        }
    }

    fn forget(&mut self, problems: Vec<Arc<str>>) {
        for problem in problems {
            if let Entry::Occupied(mut images) = self.known.entry(problem) {
                *images.get_mut() -= 1;
                if *images.get() == 0 {
                    images.remove();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_of_an_image_are_bounded_and_forgotten() {
        let key = |name: &str| TargetKey { canonical: name.into(), runtime_handler: "".into() };
        let many = |n: usize| (0..n).map(|n| format!("secret team/s{n} does not exist")).collect::<Vec<_>>();
        let mut problems = Problems::default();
        problems.note(&key("a"), many(MAX_PROBLEMS_PER_IMAGE));
        assert_eq!(problems.of(&key("a")).len(), MAX_PROBLEMS_PER_IMAGE, "at the limit all are kept");
        problems.note(&key("a"), many(3_000));
        let kept = problems.of(&key("a"));
        assert_eq!(kept.len(), MAX_PROBLEMS_PER_IMAGE + 1);
        assert_eq!(kept[MAX_PROBLEMS_PER_IMAGE], "and 2980 more problems with credentials of this image");
        problems.note(&key("b"), many(1));
        assert_eq!(problems.known.len(), MAX_PROBLEMS_PER_IMAGE + 1);
        problems.retain(&Stock::new(true));
        assert!(problems.of.is_empty() && problems.known.is_empty(), "{problems:?}");
    }

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
