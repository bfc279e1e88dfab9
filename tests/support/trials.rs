//! Trials that need a part: where it is missing they count as ignored, under their own name and with the reason.

use std::{fmt::Display, future::Future};

use anyhow::Result;
use libtest_mimic::{Completion, Failed, Trial};

use super::parts::{self, ContainerdPart, Missing};

/// A trial that needs `part`.
pub fn trial<P, F, R>(name: &str, part: Result<P, Missing>, run: F) -> Trial
where
    P: Send + 'static,
    F: FnOnce(P) -> R + Send + 'static,
    R: Future<Output = Result<()>>,
{
    Trial::ignorable_test(name.to_owned(), move || match part {
        Ok(part) => block_on(run(part)).map(|()| Completion::Completed).map_err(|error| failed(&format!("{error:?}"))),
        Err(missing) if parts::require_all() && !parts::left_out(&missing.part) => Err(failed(&missing)),
        Err(missing) => Ok(Completion::ignored_with(missing.sentence)),
    })
}

/// The same trial on every generation of containerd, each named after its runtime; all need docker-registry too.
pub fn on_every_containerd<F, R>(name: &str, run: F) -> Vec<Trial>
where
    F: Fn(ContainerdPart) -> R + Clone + Send + 'static,
    R: Future<Output = Result<()>>,
{
    parts::containerds()
        .into_iter()
        .map(|found| {
            let runtime = found.as_ref().map_or_else(|missing| missing.part.clone(), ContainerdPart::name);
            let part = found.and_then(|part| parts::docker_registry().map(|_| part));
            trial(&format!("{runtime}::{name}"), part, run.clone())
        })
        .collect()
}

/// Two threads: a trial's servers go on while it waits for a process.
fn block_on(future: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(future)
}

fn failed(message: &dyn Display) -> Failed {
    Failed::from(message.to_string())
}
