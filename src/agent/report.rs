//! What people are told while the keeper works.

use std::sync::Arc;

use crate::{
    clock::Moment,
    disk_guard::Stop,
    image_state::ImageState,
    progress::ImageProgress,
    stock::{Stock, Transition, Warmth},
};

/// Is told about every change.
pub trait Reporter {
    /// An image's state changed.
    fn transition(&mut self, transition: &Transition);
    /// The node became warm, or stopped being so.
    fn warmth(&mut self, warmth: &Warmth);
    /// A list was read, with these problems; it may be out of use.
    fn list(&mut self, _list: &Arc<str>, _problems: &[String]) {}
    /// A pull under way is that far.
    fn progress(&mut self, _image: &str, _progress: &ImageProgress) {}
    /// Why the disk stops all pulls now; called at every turn.
    fn disk(&mut self, _stop: Option<&Stop>, _now: Moment) {}
    /// Something of the disk cannot be seen, so that a limit has no effect. Told once.
    fn unseen(&mut self, _problem: &str) {}
    /// The loop turned, and no look is under way that may find what seems to be missing.
    fn turned(&mut self, _stock: &Stock) {}
}

impl Reporter for Box<dyn Reporter> {
    fn transition(&mut self, transition: &Transition) {
        (**self).transition(transition);
    }

    fn warmth(&mut self, warmth: &Warmth) {
        (**self).warmth(warmth);
    }

    fn list(&mut self, list: &Arc<str>, problems: &[String]) {
        (**self).list(list, problems);
    }

    fn progress(&mut self, image: &str, progress: &ImageProgress) {
        (**self).progress(image, progress);
    }

    fn disk(&mut self, stop: Option<&Stop>, now: Moment) {
        (**self).disk(stop, now);
    }

    fn unseen(&mut self, problem: &str) {
        (**self).unseen(problem);
    }

    fn turned(&mut self, stock: &Stock) {
        (**self).turned(stock);
    }
}

/// One log line for each change.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogReporter {
    /// For what of the disk nothing is pulled, as was last told.
    stopped: Option<&'static str>,
}

impl Reporter for LogReporter {
    fn transition(&mut self, transition: &Transition) {
        let image = &*transition.image;
        let from = transition.from;
        match &transition.to {
            // what the first look finds is one line in all, told by the keeper
            ImageState::Present { .. } | ImageState::Pending { .. } | ImageState::Missing { .. }
                if transition.first_look =>
            {
                tracing::debug!(image, state = transition.to.name(), "image looked up");
            }
            ImageState::Pending { .. } if transition.broke_off.is_some() => {
                let error = transition.broke_off.as_ref().map(tracing::field::display);
                tracing::info!(image, error, "the download broke off and goes on from where it was");
            }
            ImageState::Pending { why, .. } if from == "Present" => {
                tracing::warn!(
                    image,
                    waits_for = why.as_str(),
                    "image is gone from the store and will be pulled again"
                );
            }
            ImageState::Pending { why, .. } => tracing::info!(image, waits_for = why.as_str(), "image is to be pulled"),
            ImageState::Pulling { attempt, .. } => {
                tracing::info!(image, attempt, reason = "Pulling", "image is being pulled");
            }
            ImageState::Present { stored, credential, .. } => {
                let credential = credential.as_ref().map(tracing::field::display);
                tracing::info!(
                    image,
                    digest = &*stored.digest,
                    size_bytes = stored.size,
                    credential,
                    reason = "Pulled",
                    "image is present"
                );
            }
            ImageState::BackOff { failures, error, .. } => tracing::warn!(
                image,
                reason = error.reason,
                class = %error.class,
                attempt = failures.count,
                error = %error,
                remedy = error.remedy,
                "image could not be pulled"
            ),
            ImageState::Missing { .. } => {
                tracing::warn!(image, reason = "ErrImageNeverPull", "image is missing and its policy is Never");
            }
            ImageState::Invalid { why } => tracing::warn!(image, why = &**why, "entry cannot be used"),
            ImageState::NotForThisNode => tracing::info!(image, "entry selects other nodes"),
        }
    }

    fn disk(&mut self, stop: Option<&Stop>, now: Moment) {
        let name = stop.map(Stop::name);
        if self.stopped == name {
            return;
        }
        let before = std::mem::replace(&mut self.stopped, name);
        if let Some(stop) = stop {
            tracing::warn!(why = stop.why(now), remedy = stop.remedy(), "the disk stops pulls");
        } else {
            // there may be room again, or a hold is over, or a list has switched the guard off
            tracing::info!(reason_before = before, "the disk no longer stops pulls: pulls go on");
        }
    }

    fn unseen(&mut self, problem: &str) {
        tracing::warn!(problem, "the disk is not seen");
    }

    fn warmth(&mut self, warmth: &Warmth) {
        if warmth.warm {
            tracing::info!(present = warmth.present, required = warmth.required, "node is warm");
        } else {
            tracing::info!(reason = %warmth.reason, "node is not warm");
        }
    }
}
