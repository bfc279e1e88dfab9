//! What the agent tells about itself: the body of `/api/v1/images`, and what the page and the metrics are made of.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    clock::{Moment, rfc3339},
    desired::{Row, RowKind, TargetKey},
    disk_guard::Usage,
    error_class::ErrorClass,
    image_ref::ImageRef,
    image_state::{ImageState, Wait},
    list::ListProblem,
    progress::{ImageProgress, NodeProgress},
    stock::{Stock, Warmth},
};

/// Problems of one list that are shown.
const MOST_PROBLEMS: usize = 100;

/// A list in force.
#[derive(Debug, Clone, Serialize)]
pub struct ListStatus {
    /// File path, or `namespace/name` of a ConfigMap.
    pub source: Arc<str>,
    /// Revision that is in force; empty before a first one was read.
    pub revision: Arc<str>,
    /// Everything that is wrong with the newest text, which need not be the one in force.
    pub problems: Vec<String>,
    /// What its author should know though nothing is wrong: what this agent cannot obey.
    pub notes: Vec<String>,
    /// Whether any of its entries pins.
    #[serde(skip)]
    pub pins: bool,
}

impl ListStatus {
    /// Problems of a list as lines.
    pub fn lines(problems: &[ListProblem]) -> Vec<String> {
        let mut lines: Vec<_> = problems.iter().take(MOST_PROBLEMS).map(ToString::to_string).collect();
        if problems.len() > MOST_PROBLEMS {
            lines.push(format!("{} more problems; `prepull check` shows all", problems.len() - MOST_PROBLEMS));
        }
        lines
    }
}

/// The whole node.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The node's name.
    pub node: Arc<str>,
    /// Name and version of the runtime; empty while it does not answer.
    pub runtime: String,
    /// Why it does not answer; null while it does.
    pub runtime_problem: Option<String>,
    /// Lists in force.
    pub lists: Vec<ListStatus>,
    /// Whether the node is warm.
    pub warm: bool,
    /// Why it is not; empty when it is.
    pub not_warm_reason: String,
    /// One for each text that was written, in list order.
    pub images: Vec<ImageStatus>,
    /// How far all pulls under way are together, a layer that several share counted once; null while there are none, or
    /// where the runtime does not tell.
    pub progress: Option<Progress>,
    /// Pulls under way.
    #[serde(skip)]
    pub pulls_in_flight: i64,
    /// Required images that are in the store, and required images.
    #[serde(skip)]
    pub required: (usize, usize),
    /// Registries that are left alone, and for how long still.
    #[serde(skip)]
    pub cooldowns: Vec<(String, Duration)>,
    /// Lists whose newest text cannot be used.
    #[serde(skip)]
    pub lists_rejected: i64,
    /// Used part of the image filesystem, where it is known.
    #[serde(skip)]
    pub image_fs_used_ratio: Option<f64>,
}

/// How far the node's pulls are together.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Bytes that are there.
    pub downloaded_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Speed over the last seconds.
    pub bytes_per_second: u64,
}

/// One image.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageStatus {
    /// As written.
    pub image: Arc<str>,
    /// Normalised; null for an invalid name.
    pub canonical: Option<Arc<str>>,
    /// The state's name.
    pub state: &'static str,
    /// The kubelet's word for it (`ErrImagePull`, `ImagePullBackOff`, …), or what a pending image waits for.
    pub reason: Option<&'static str>,
    /// Class of the last error.
    pub class: Option<ErrorClass>,
    /// The last error, or why it waits.
    pub message: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
    /// Attempts in a row that failed, the one under way included.
    pub attempt: u32,
    /// When the next attempt may begin, RFC 3339.
    pub next_attempt: Option<String>,
    /// How long that is from now.
    #[serde(skip)]
    pub next_attempt_in: Option<Duration>,
    /// Bytes of the running download that are done.
    pub downloaded_bytes: Option<u64>,
    /// Bytes that it has in all.
    pub total_bytes: Option<u64>,
    /// `resolving`, `downloading` or `unpacking`.
    pub phase: Option<&'static str>,
    /// Speed of the download.
    pub bytes_per_second: Option<u64>,
    /// Estimate of what is left.
    pub seconds_left: Option<u64>,
    /// Seconds since the attempt under way began.
    pub elapsed_seconds: Option<u64>,
    /// Digest in the store.
    pub digest: Option<Arc<str>>,
    /// Bytes in the store.
    pub size_bytes: Option<u64>,
    /// Whether the kubelet's garbage collector leaves it.
    pub pinned: bool,
    /// Why it is not pinned although it is to be; null when nothing is wrong.
    pub pin_problem: Option<String>,
    /// The credential that worked: its source and origin, never its content.
    pub credential: Option<String>,
    /// What was wrong while its credentials were looked for; no content of any.
    pub problems: Vec<String>,
    /// Higher first.
    pub priority: i64,
    /// Whether it counts for "warm".
    pub required: bool,
    /// Whether it is in the store, whatever its state.
    #[serde(skip)]
    pub present: bool,
    /// What a pending image waits for.
    #[serde(skip)]
    pub wait: Option<Wait>,
}

impl Status {
    /// Takes a snapshot of a stock.
    pub fn of(stock: &Stock, warmth: Warmth, node: &Arc<str>, now: Moment, wall: SystemTime) -> Self {
        let images: Vec<_> = stock.desired().rows.iter().map(|row| ImageStatus::of(stock, row, now, wall)).collect();
        Self {
            node: node.clone(),
            warm: warmth.warm,
            not_warm_reason: warmth.reason,
            required: (warmth.present, warmth.required),
            image_fs_used_ratio: stock.image_fs().map(Usage::ratio),
            images,
            pulls_in_flight: i64::try_from(stock.under_way()).unwrap_or(i64::MAX),
            cooldowns: stock.cooldowns().remaining(now).map(|(r, left)| (r.to_string(), left)).collect(),
            ..Self::default()
        }
    }

    /// Adds how far running pulls are, each and together.
    pub fn add_progress<'a>(
        &mut self,
        stock: &Stock,
        node: Option<NodeProgress>,
        progress: impl Fn(&TargetKey) -> Option<&'a ImageProgress>,
    ) {
        self.progress = node.map(Progress::of);
        for (image, row) in self.images.iter_mut().zip(&stock.desired().rows) {
            let RowKind::Target(index) = row.kind else { continue };
            let (target, state, _) = stock.target(index);
            if let (ImageState::Pulling { .. }, Some(progress)) = (state, progress(&target.key)) {
                image.phase = Some(progress.phase.as_str());
                image.downloaded_bytes = progress.downloaded;
                image.total_bytes = progress.total;
                image.bytes_per_second = progress.bytes_per_second;
                image.seconds_left = progress.seconds_left;
            }
        }
    }

    /// Adds to each image what was wrong while its credentials were looked for.
    pub fn add_problems(&mut self, stock: &Stock, problems: impl Fn(&TargetKey) -> Vec<String>) {
        self.with_targets(stock, |image, key| image.problems = problems(key));
    }

    /// Adds why images are not pinned, and to the lists that pin what they should know about it.
    pub fn add_pins(&mut self, stock: &Stock, problem: Option<&String>, of: impl Fn(&TargetKey) -> Option<String>) {
        self.with_targets(stock, |image, key| image.pin_problem = of(key));
        let Some(problem) = problem else { return };
        let any = self.lists.iter().any(|list| list.pins);
        // what was pinned for an entry that went away is nobody's in particular
        for list in self.lists.iter_mut().filter(|list| list.pins || !any) {
            list.problems.push(problem.clone());
        }
    }

    fn with_targets(&mut self, stock: &Stock, mut tell: impl FnMut(&mut ImageStatus, &TargetKey)) {
        for (image, row) in self.images.iter_mut().zip(&stock.desired().rows) {
            if let RowKind::Target(index) = row.kind {
                tell(image, &stock.target(index).0.key);
            }
        }
    }
}

impl Progress {
    fn of(node: NodeProgress) -> Self {
        let NodeProgress { downloaded, total, bytes_per_second } = node;
        Self { downloaded_bytes: downloaded, total_bytes: total, bytes_per_second }
    }
}

impl ImageStatus {
    /// Whether nothing is missing here: the image is up to date in the store, or meant for other nodes.
    pub fn present_or_elsewhere(&self) -> bool {
        matches!(self.state, "Present" | "NotForThisNode")
    }

    fn of(stock: &Stock, row: &Row, now: Moment, wall: SystemTime) -> Self {
        let mut status = Self::empty(&row.image);
        match &row.kind {
            RowKind::Target(index) => {
                let (target, _, stored) = stock.target(*index);
                status.canonical = Some(target.key.canonical.clone());
                status.priority = target.priority;
                status.required = target.required;
                if let Some(stored) = stored {
                    status.present = true;
                    status.digest = Some(stored.digest.clone());
                    status.size_bytes = Some(stored.size);
                    status.pinned = stored.pinned;
                }
            }
            RowKind::Invalid { required, .. } | RowKind::Undecided { required } => status.required = *required,
            RowKind::NotForThisNode => status.required = false,
        }
        if status.canonical.is_none() {
            status.canonical = ImageRef::parse(&row.image).ok().map(|image| image.canonical().into());
        }
        let state = stock.row_state(&row.kind);
        status.tell(&state, now, wall);
        if let RowKind::Target(index) = row.kind
            && let Some((wait, why, remedy)) = stock.waits_for_disk(index, now)
        {
            status.wait_for_disk(wait, why, remedy);
        }
        status
    }

    /// Says with figures what it waits for. What failed before keeps its error: it says why there is to be more space.
    fn wait_for_disk(&mut self, wait: Wait, why: String, remedy: &'static str) {
        self.wait = Some(wait);
        self.message = Some(match self.message.take().filter(|_| self.class.is_some()) {
            Some(error) => format!("{error} ({why})"),
            None => why,
        });
        self.remedy = Some(remedy.to_owned());
        self.next_attempt = None;
        self.next_attempt_in = None;
    }

    /// Returns a status of which only the image's name is known.
    pub fn empty(image: &Arc<str>) -> Self {
        Self {
            image: image.clone(),
            canonical: None,
            state: "",
            reason: None,
            class: None,
            message: None,
            remedy: None,
            attempt: 0,
            next_attempt: None,
            next_attempt_in: None,
            downloaded_bytes: None,
            total_bytes: None,
            phase: None,
            bytes_per_second: None,
            seconds_left: None,
            elapsed_seconds: None,
            digest: None,
            size_bytes: None,
            pinned: false,
            pin_problem: None,
            credential: None,
            problems: Vec::new(),
            priority: 0,
            required: true,
            present: false,
            wait: None,
        }
    }

    fn tell(&mut self, state: &ImageState, now: Moment, wall: SystemTime) {
        self.state = state.name();
        match state {
            ImageState::Pending { why, failures, .. } => {
                self.wait = Some(*why);
                self.reason = Some(why.as_str());
                self.message = Some(why.sentence().to_owned());
                self.attempt = failures.map_or(0, |f| f.count);
            }
            ImageState::Pulling { attempt, started, .. } => {
                self.reason = Some("Pulling");
                self.attempt = *attempt;
                self.elapsed_seconds = Some(now.since(*started).as_secs());
            }
            ImageState::Present { credential, .. } => {
                self.credential = credential.as_ref().map(ToString::to_string);
            }
            ImageState::BackOff { failures, until, error } => {
                self.reason = Some("ImagePullBackOff");
                self.class = Some(error.class);
                self.message = Some(format!("{}: {}", error.reason, error.message));
                self.remedy = Some(error.remedy.to_owned());
                self.attempt = failures.count;
                self.next_attempt = Some(rfc3339(*until, now, wall));
                self.next_attempt_in = Some(until.since(now));
            }
            ImageState::Missing { .. } => {
                self.reason = Some("ErrImageNeverPull");
                self.message =
                    Some(format!("Container image {:?} is not present with pull policy of Never", self.image));
                self.remedy = Some(
                    "Load the image onto the node, or let it be pulled with imagePullPolicy: IfNotPresent.".to_owned(),
                );
            }
            ImageState::Invalid { why } => {
                let named = ImageRef::parse(&self.image);
                self.reason = Some(if named.is_err() { "InvalidImageName" } else { "InvalidListEntry" });
                self.class = named.is_err().then_some(ErrorClass::InvalidName);
                self.message = Some(why.to_string());
                self.remedy = Some(
                    "Correct the entry in the list; `prepull check -f LIST` shows every problem with its place."
                        .to_owned(),
                );
            }
            ImageState::NotForThisNode => {
                self.message = Some("its nodeSelector or nodeAffinity selects other nodes".to_owned());
            }
        }
    }
}
