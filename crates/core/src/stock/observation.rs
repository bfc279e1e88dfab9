//! What the runtime's store has, as of one look.

use std::{collections::HashMap, sync::Arc};

use crate::{
    clock::Moment,
    desired::{Target, TargetKey},
    image_state::Stored,
};

/// An image of the runtime's store, as CRI describes it.
#[derive(Debug, Clone, Default)]
pub struct ListedImage {
    /// The image ID, which is the digest of its configuration.
    pub id: String,
    /// Names with a tag.
    pub repo_tags: Vec<String>,
    /// Names with a digest.
    pub repo_digests: Vec<String>,
    /// Bytes, as the runtime counts them.
    pub size: u64,
    /// Whether the kubelet's garbage collector leaves it.
    pub pinned: bool,
}

/// One look at the store.
///
/// `ListImages` gives every name that the store knows in its normalised form, so it decides for names that are written
/// with their registry. A short name may mean something else to the runtime (CRI-O's registries.conf), and a runtime
/// handler may have a snapshotter of its own: there the runtime is asked by `ImageStatus` with the text itself, as the
/// kubelet asks.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// When the look began: what a pull brought later is not in it.
    pub began: Moment,
    /// Whether it tells about everything that it was to tell about.
    pub whole: bool,
    by_name: HashMap<String, Stored>,
    asked: HashMap<TargetKey, Option<Stored>>,
    complete: bool,
}

impl Observation {
    /// From the answers of `ListImages` and of `ImageStatus`.
    pub fn new(began: Moment, listed: Option<Vec<ListedImage>>, asked: HashMap<TargetKey, Option<Stored>>) -> Self {
        let mut by_name = HashMap::new();
        let complete = listed.is_some();
        for image in listed.unwrap_or_default() {
            for name in image.repo_digests.iter().chain(&image.repo_tags) {
                by_name.insert(name.clone(), stored_of(&image, name));
            }
        }
        Self { began, whole: true, by_name, asked, complete }
    }

    /// Whether `ListImages` cannot answer for a target.
    pub fn needs_asking(target: &Target) -> bool {
        !target.key.runtime_handler.is_empty() || !target.image.is_qualified()
    }

    /// What the store has of a target; `None` where this look does not tell.
    pub fn find(&self, target: &Target) -> Option<Option<Stored>> {
        if let Some(answer) = self.asked.get(&target.key) {
            return Some(answer.clone());
        }
        if Self::needs_asking(target) || !self.complete {
            return None;
        }
        Some(self.by_name.get(&*target.key.canonical).cloned())
    }
}

/// What an image is stored as, seen by one of its names.
pub fn stored_of(image: &ListedImage, name: &str) -> Stored {
    let own = name.split_once('@').map(|(_, digest)| digest);
    let repository = repository_of(name);
    let listed = || {
        let of = |wanted: &dyn Fn(&str) -> bool| {
            image
                .repo_digests
                .iter()
                .filter_map(|d| d.split_once('@'))
                .find(|(r, _)| wanted(r))
                .map(|(_, digest)| digest)
        };
        of(&|r| r == repository).or_else(|| of(&|_| true))
    };
    let digest: Arc<str> = own.or_else(listed).unwrap_or(&image.id).into();
    Stored { digest, size: image.size, pinned: image.pinned }
}

/// A name without its tag or digest.
fn repository_of(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(repository, _)| repository);
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_tag_is_that_of_its_own_repository() {
        let image = ListedImage {
            id: "sha256:c".into(),
            repo_tags: vec!["h:5000/b:1".into()],
            repo_digests: vec!["h:5000/a@sha256:1".into(), "h:5000/b@sha256:2".into()],
            size: 7,
            ..ListedImage::default()
        };
        assert_eq!(&*stored_of(&image, "h:5000/b:1").digest, "sha256:2");
        assert_eq!(&*stored_of(&image, "h:5000/a@sha256:1").digest, "sha256:1");
        assert_eq!(&*stored_of(&image, "h:5000/other").digest, "sha256:1");
        assert_eq!(&*stored_of(&ListedImage { repo_digests: vec![], ..image }, "h:5000/b:1").digest, "sha256:c");
    }
}
