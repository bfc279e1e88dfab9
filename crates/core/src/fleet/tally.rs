//! Counting answers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde::Serialize;

use super::{Answer, ImageAnswer};
use crate::error_text::one_line;

/// Kinds of errors of one image that are told apart; the others count as the first.
const MOST_ERRORS: usize = 20;
/// Different images that are counted. More than any list can have; an answer that makes names up ends here.
const MOST_IMAGES: usize = 100_000;
/// Most bytes of names, classes, messages and remedies that are kept of all answers together. Above it no other image is counted
/// and no other error is noted: only answers that make texts up get there.
const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;

/// How one image stands on the nodes that were asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageCount {
    /// As written in the list.
    pub image: String,
    /// Nodes that it is for.
    pub nodes: usize,
    /// Nodes that have it.
    pub present: usize,
    /// Nodes that pull it.
    pub pulling: usize,
    /// Nodes where it waits.
    pub waiting: usize,
    /// Nodes where it is not and something is wrong with it.
    pub failing: usize,
    /// Class of the most common error, or its reason where it has no class.
    pub class: Option<String>,
    /// On how many nodes that is.
    pub class_nodes: usize,
    /// What it says on one of them.
    pub message: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// How one node stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// The node.
    pub node: Arc<str>,
    /// Its agent's pod.
    pub pod: Arc<str>,
    /// Whether it was asked, and answered. What follows is known only then.
    pub asked: bool,
    /// Whether it is warm: by its answer, else by its pod's readiness.
    pub warm: bool,
    /// Why it is not.
    pub reason: String,
    /// Whether it follows every list as it is now; null where that is not known.
    pub up_to_date: Option<bool>,
    /// Images that are for it.
    pub images: usize,
    /// Of these in its store.
    pub present: usize,
    /// Being pulled.
    pub pulling: usize,
    /// Waiting.
    pub waiting: usize,
    /// Not there, and something is wrong with them.
    pub failing: usize,
}

impl NodeRow {
    /// Whether what it says of itself is about a list that has been changed since.
    pub fn has_old_list(&self) -> bool {
        self.up_to_date == Some(false)
    }
}

/// How an image stands on one node, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    NotForIt,
    Present,
    Pulling,
    Waiting,
    Failing,
}

impl Standing {
    fn of(image: &ImageAnswer) -> Self {
        match image.state.as_str() {
            "NotForThisNode" => Self::NotForIt,
            _ if image.digest.is_some() => Self::Present,
            "Present" => Self::Present,
            "Pulling" => Self::Pulling,
            "Pending" => Self::Waiting,
            // BackOff, Missing, Invalid, and whatever a later version calls its own
            _ => Self::Failing,
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Counted {
    count: ImageCount,
    errors: HashMap<String, (usize, String, String)>,
    order: usize,
}

/// The sums so far.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    images: BTreeMap<String, Counted>,
    /// Bytes of the texts in it.
    text_bytes: usize,
}

impl Tally {
    /// Counts an answer, and says how its node stands.
    pub fn add(&mut self, node: &Arc<str>, pod: &Arc<str>, answer: &Answer) -> NodeRow {
        let mut row =
            NodeRow { node: node.clone(), pod: pod.clone(), asked: true, warm: answer.warm, ..NodeRow::default() };
        if !answer.warm {
            row.reason = one_line(answer.runtime_problem.as_deref().unwrap_or(&answer.not_warm_reason));
        }
        // a node counts once for each text, whatever it says about it and how often
        let mut standings: BTreeMap<String, Standing> = BTreeMap::new();
        let mut order = Vec::new();
        for image in &answer.images {
            let text = one_line(&image.image);
            let standing = Standing::of(image);
            if let Some(known) = standings.get_mut(&text) {
                *known = standing.max(*known);
            } else {
                standings.insert(text.clone(), standing);
                order.push(text);
            }
        }
        for text in &order {
            let counted = if standings[text] == Standing::NotForIt { None } else { self.counted(text) };
            let (on_node, on_all) = match standings[text] {
                Standing::NotForIt => continue,
                Standing::Present => (&mut row.present, counted.map(|c| (&mut c.count.nodes, &mut c.count.present))),
                Standing::Pulling => (&mut row.pulling, counted.map(|c| (&mut c.count.nodes, &mut c.count.pulling))),
                Standing::Waiting => (&mut row.waiting, counted.map(|c| (&mut c.count.nodes, &mut c.count.waiting))),
                Standing::Failing => (&mut row.failing, counted.map(|c| (&mut c.count.nodes, &mut c.count.failing))),
            };
            *on_node += 1;
            row.images += 1;
            if let Some((nodes, standing)) = on_all {
                *nodes += 1;
                *standing += 1;
            }
        }
        let mut noted = HashSet::new();
        for image in &answer.images {
            self.note_error(image, &mut noted);
        }
        row
    }

    /// `image` is one line.
    fn counted(&mut self, image: &str) -> Option<&mut Counted> {
        if !self.images.contains_key(image) {
            if self.images.len() >= MOST_IMAGES || self.text_bytes + 2 * image.len() > MAX_TEXT_BYTES {
                return None;
            }
            // the key and the name
            self.text_bytes += 2 * image.len();
            let count = ImageCount { image: image.to_owned(), ..ImageCount::default() };
            let order = self.images.len();
            self.images.insert(image.to_owned(), Counted { count, order, ..Counted::default() });
        }
        self.images.get_mut(image)
    }

    /// An image that is there may fail too: a refresh that is refused. `noted` are the errors of this node, by image and class.
    fn note_error(&mut self, image: &ImageAnswer, noted: &mut HashSet<(String, String)>) {
        if !matches!(image.state.as_str(), "BackOff" | "Missing" | "Invalid") {
            return;
        }
        let Some(class) = image.class.as_deref().or(image.reason.as_deref()) else { return };
        let (text, class) = (one_line(&image.image), one_line(class));
        let Some(counted) = self.images.get_mut(&text) else { return };
        if !noted.insert((text, class.clone())) {
            return;
        }
        if let Some((nodes, ..)) = counted.errors.get_mut(&class) {
            *nodes += 1;
            return;
        }
        if counted.errors.len() >= MOST_ERRORS {
            return;
        }
        let text = |text: &Option<String>| one_line(text.as_deref().unwrap_or_default());
        let (message, remedy) = (text(&image.message), text(&image.remedy));
        let bytes = class.len() + message.len() + remedy.len();
        if self.text_bytes + bytes <= MAX_TEXT_BYTES {
            self.text_bytes += bytes;
            counted.errors.insert(class, (1, message, remedy));
        }
    }

    /// What was counted: the images that are missing somewhere first, then in the order of the lists.
    pub fn into_images(self) -> Vec<ImageCount> {
        let mut all: Vec<(bool, usize, ImageCount)> = self
            .images
            .into_values()
            .filter(|counted| counted.count.nodes > 0)
            .map(|Counted { mut count, errors, order }| {
                // the most common; among equals the first by name, so that it is always the same one
                let most = errors.into_iter().max_by(|(a, (n, ..)), (b, (m, ..))| n.cmp(m).then(b.cmp(a)));
                if let Some((class, (nodes, message, remedy))) = most {
                    count.class = Some(class);
                    count.class_nodes = nodes;
                    count.message = Some(message).filter(|text| !text.is_empty());
                    count.remedy = Some(remedy).filter(|text| !text.is_empty());
                }
                (count.present == count.nodes, order, count)
            })
            .collect();
        all.sort_by_key(|(there, order, _)| (*there, *order));
        all.into_iter().map(|(_, _, count)| count).collect()
    }
}
