//! Looking at the runtime's store.

use std::collections::HashMap;

use futures::{StreamExt as _, stream};
use tonic::{Code, Status};

use super::{Runtime, spec_of};
use crate::cri;
use prepull_core::{
    clock::Moment,
    desired::Target,
    error_class::{self, is_about_the_name},
    image_state::Stored,
    stock::{ListedImage, Observation, stored_of},
};

/// `ImageStatus` calls at once.
const PARALLEL_STATUS: usize = 8;

impl Runtime {
    /// Looks at the store: one `ListImages`, and one `ImageStatus` for each of the targets for which the list does not
    /// decide. That is all of them where the runtime has no `ListImages`.
    pub async fn look(&self, targets: Vec<Target>, began: Moment) -> Result<Observation, Status> {
        let listed = match self.list().await {
            Ok(listed) => Some(listed.into_iter().map(ListedImage::from).collect()),
            Err(status) if status.code() == Code::Unimplemented => None,
            Err(status) => return Err(status),
        };
        let to_ask: Vec<_> =
            targets.into_iter().filter(|target| listed.is_none() || Observation::needs_asking(target)).collect();
        let mut whole = true;
        let mut asked = HashMap::with_capacity(to_ask.len());
        let mut answers = stream::iter(to_ask)
            .map(|target| async move {
                let answer = self.stored(&target).await;
                (target.key, answer)
            })
            .buffer_unordered(PARALLEL_STATUS);
        while let Some((key, answer)) = answers.next().await {
            match answer {
                Ok(stored) => drop(asked.insert(key, stored)),
                // a name that the runtime does not understand is not there; pulling it will say why
                Err(status) if is_about_the_name(code(&status), status.message()) => drop(asked.insert(key, None)),
                Err(status) if status.code() == Code::Unavailable => return Err(status),
                // whether it is there is not known: nothing changes for it, and it is looked for again soon
                Err(_) => whole = false,
            }
        }
        let mut observation = Observation::new(began, listed, asked);
        observation.whole = whole;
        Ok(observation)
    }

    /// What the store has of one target, by the text that the kubelet would ask with.
    pub async fn stored(&self, target: &Target) -> Result<Option<Stored>, Status> {
        let found = self.status(spec_of(target)).await?;
        Ok(found.map(|image| stored_of(&image.into(), &target.key.canonical)))
    }
}

impl From<cri::Image> for ListedImage {
    fn from(image: cri::Image) -> Self {
        let cri::Image { id, repo_tags, repo_digests, size, pinned, .. } = image;
        Self { id, repo_tags, repo_digests, size, pinned }
    }
}

fn code(status: &Status) -> error_class::Code {
    error_class::Code::from_number(status.code().into())
}
