//! What is known about the blobs of running pulls, and what is still to be asked about them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

use super::{
    Ingest, Leased, Part, RuntimeTime,
    document::{Document, MOST_BYTES},
};
use crate::image_ref::Digest;

/// Blobs of one pull that are read while its manifest is looked for.
const MOST_READ: usize = 16;
/// Blobs outside of all leases that are asked about for one sample.
const MOST_ASKED: usize = 64;

/// A blob in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Its bytes.
    pub size: u64,
    /// When it was complete.
    pub created: RuntimeTime,
}

/// Something to ask the content store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether a blob is there.
    Stored(Digest),
    /// What it says.
    Content(Digest),
}

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    stored: HashMap<Digest, Blob>,
    documents: HashMap<Digest, Document>,
}

impl Catalogue {
    /// What is not known yet and worth knowing. Each answer may lead to further questions; `asked` are those that were
    /// asked for this sample already.
    pub fn questions(
        &self,
        leases: &BTreeMap<u64, Leased>,
        ingests: &HashMap<Digest, Ingest>,
        asked: &HashSet<Digest>,
    ) -> Vec<Question> {
        let mut questions = Vec::new();
        let mut wanted = HashSet::new();
        let mut outside = 0;
        for leased in leases.values() {
            for digest in &leased.blobs {
                if !self.stored.contains_key(digest) && !asked.contains(digest) && wanted.insert(digest.clone()) {
                    questions.push(Question::Stored(digest.clone()));
                }
            }
            let Some(parts) = self.manifest(leased) else {
                questions.extend(self.candidates(leased).into_iter().map(Question::Content));
                continue;
            };
            // a layer that another pull brought, or that was there before, need not be in this lease
            for Part { digest, .. } in parts {
                let known = self.stored.contains_key(digest) || ingests.contains_key(digest);
                if !known && outside < MOST_ASKED && !asked.contains(digest) && wanted.insert(digest.clone()) {
                    outside += 1;
                    questions.push(Question::Stored(digest.clone()));
                }
            }
        }
        questions
    }

    /// Blobs of a pull that may be its manifest: small ones, the oldest first, because the root comes first.
    fn candidates(&self, leased: &Leased) -> Vec<Digest> {
        let read = leased.blobs.iter().filter(|digest| self.documents.contains_key(digest)).count();
        let mut unread: Vec<_> = leased
            .blobs
            .iter()
            .filter(|digest| !self.documents.contains_key(digest))
            .filter_map(|digest| self.stored.get(digest).map(|blob| (blob.created, digest, blob.size)))
            .filter(|(_, _, size)| *size <= MOST_BYTES)
            .collect();
        unread.sort_unstable();
        unread.into_iter().take(MOST_READ.saturating_sub(read)).map(|(_, digest, _)| digest.clone()).collect()
    }

    /// The store answered about a blob.
    pub fn learn_stored(&mut self, digest: Digest, blob: Blob) {
        self.stored.insert(digest, blob);
    }

    /// The store gave a blob's content, or could not.
    pub fn learn_content(&mut self, digest: Digest, bytes: &[u8]) {
        self.documents.insert(digest, Document::read(bytes));
    }

    /// Forgets what no lease has to do with: it may be gone when it is asked for again.
    pub fn retain(&mut self, leases: &BTreeMap<u64, Leased>) {
        let mut used: HashSet<Digest> = leases.values().flat_map(|leased| leased.blobs.iter().cloned()).collect();
        used.extend(leases.values().flat_map(|leased| self.parts(leased)).map(|part| part.digest));
        self.stored.retain(|digest, _| used.contains(digest));
        self.documents.retain(|digest, _| used.contains(digest));
    }

    /// What the store has of a blob.
    pub fn stored(&self, digest: &Digest) -> Option<&Blob> {
        self.stored.get(digest)
    }

    /// All blobs of the image that a pull is about: config, layers in their order, manifest and index. Empty until its
    /// manifest is known.
    pub fn parts(&self, leased: &Leased) -> Vec<Part> {
        let Some(parts) = self.manifest(leased) else { return Vec::new() };
        let documents = leased.blobs.iter().filter(|digest| match self.documents.get(digest) {
            Some(Document::Manifest(_) | Document::Index) => true,
            Some(Document::Other) | None => false,
        });
        let documents = documents.filter_map(|digest| {
            Some(Part { digest: digest.clone(), size: self.stored.get(digest)?.size, is_layer: false })
        });
        parts.iter().cloned().chain(documents).collect()
    }

    /// The manifest of the platform that is pulled: of several, the one of which most is in the lease.
    fn manifest(&self, leased: &Leased) -> Option<&[Part]> {
        let manifests = leased.blobs.iter().filter_map(|digest| match self.documents.get(digest) {
            Some(Document::Manifest(parts)) => Some((digest, parts.as_slice())),
            Some(Document::Index | Document::Other) | None => None,
        });
        let held = |part: &&Part| leased.blobs.contains(&part.digest) || leased.ingests.contains(&part.digest);
        let most = manifests.max_by_key(|(digest, parts)| (parts.iter().filter(held).count(), Reverse(*digest)));
        most.map(|(_, parts)| parts)
    }
}
