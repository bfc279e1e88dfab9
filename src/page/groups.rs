//! The images of a status by what a reader wants to know first: what fails and why, what is under way, what waits.
//!
//! All texts are made fit to be shown here; the template escapes them for HTML besides.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{grouped, spoken};
use crate::{
    display::bytes,
    error_text::one_line,
    image_state::Wait,
    status::{ImageStatus, Status},
};

/// Images that are shown of those that have the same in common.
pub(super) const MOST_ROWS: usize = 100;
/// Problems of credentials that are shown of an image.
const MOST_PROBLEMS: usize = 3;
/// Classes of failures that the summary names.
const MOST_CLASSES: usize = 3;
/// Characters of a digest that tell it apart: `sha256:` and twelve.
const DIGEST_CHARACTERS: usize = 19;

/// Images in one kind of state.
pub(super) struct Group {
    /// Anchor on the page.
    pub(super) id: &'static str,
    /// Heading.
    pub(super) title: &'static str,
    /// What the second column has.
    pub(super) column: &'static str,
    /// How many there are.
    pub(super) count: String,
    /// What most of those that fail fail with.
    pub(super) why: Option<String>,
    /// By what they have in common beyond the state.
    pub(super) parts: Vec<Part>,
}

/// Images that have the reason of their state in common.
pub(super) struct Part {
    /// The reason in one word or sentence; empty where there is but one part.
    pub(super) title: String,
    /// What to do about it; empty where nothing is to be done.
    pub(super) remedy: String,
    /// How many there are.
    pub(super) count: String,
    /// The first of them.
    pub(super) rows: Vec<Row>,
    /// How many are not shown; none where all are.
    pub(super) more: Option<String>,
}

/// One image.
pub(super) struct Row {
    pub(super) image: String,
    pub(super) tags: Vec<String>,
    /// Bytes done and in all.
    pub(super) progress: Option<(u64, u64)>,
    pub(super) message: String,
    pub(super) facts: Vec<String>,
    pub(super) next: Option<Next>,
    /// What was wrong while its credentials were looked for.
    pub(super) problems: Vec<String>,
    pub(super) more_problems: usize,
}

/// The next attempt.
pub(super) struct Next {
    /// In how long.
    pub(super) relative: String,
    /// When, RFC 3339.
    pub(super) at: String,
    /// When, for people.
    pub(super) clock: String,
}

/// The kinds of states in the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Failing,
    Pulling,
    Waiting,
    Present,
    Elsewhere,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Failing, Self::Pulling, Self::Waiting, Self::Present, Self::Elsewhere];

    fn of(image: &ImageStatus) -> Self {
        match image.state {
            "Pulling" => Self::Pulling,
            "Pending" => Self::Waiting,
            "Present" => Self::Present,
            "NotForThisNode" => Self::Elsewhere,
            // BackOff, Missing and Invalid: somebody has to do something
            _ => Self::Failing,
        }
    }

    /// Anchor, heading, and what the second column has.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Failing => ("failing", "Failing", "What happened"),
            Self::Pulling => ("pulling", "Pulling", "Progress"),
            Self::Waiting => ("waiting", "Waiting", "So far"),
            Self::Present => ("present", "Present", "In the store"),
            Self::Elsewhere => ("elsewhere", "For other nodes", "Why"),
        }
    }

    /// What the images of one part have in common: title and remedy.
    fn common(self, image: &ImageStatus) -> (&str, &str) {
        match self {
            Self::Failing => {
                let title = image.class.map_or_else(|| image.reason.unwrap_or(image.state), |class| class.as_str());
                (title, image.remedy.as_deref().unwrap_or_default())
            }
            Self::Waiting => {
                let remedy = image.remedy.as_deref().unwrap_or_default();
                (image.wait.map_or("waiting", Wait::sentence), remedy)
            }
            Self::Pulling | Self::Present | Self::Elsewhere => ("", ""),
        }
    }
}

/// All groups that have any images.
pub(super) fn groups(status: &Status) -> Vec<Group> {
    let of = |kind| status.images.iter().filter(|image| Kind::of(image) == kind).collect::<Vec<_>>();
    let some = |kind| Some(of(kind)).filter(|images| !images.is_empty()).map(|images| group(kind, images));
    Kind::ALL.into_iter().filter_map(some).collect()
}

fn group(kind: Kind, mut images: Vec<&ImageStatus>) -> Group {
    // what counts for "warm" first, then what would be pulled first; else in list order
    images.sort_by_key(|image| Reverse((image.required, image.priority)));
    let mut by_reason: BTreeMap<(&str, &str), Vec<&ImageStatus>> = BTreeMap::new();
    for image in &images {
        by_reason.entry(kind.common(image)).or_default().push(image);
    }
    let mut by_reason: Vec<_> = by_reason.into_iter().collect();
    by_reason.sort_by_key(|(_, images)| Reverse(images.len()));
    let part = |((title, remedy), images): ((&str, &str), Vec<&ImageStatus>)| Part {
        title: sentence(&one_line(title)),
        remedy: one_line(remedy),
        count: grouped(images.len()),
        rows: images.iter().take(MOST_ROWS).map(|image| row(kind, image)).collect(),
        more: images.len().checked_sub(MOST_ROWS).filter(|more| *more > 0).map(grouped),
    };
    let parts: Vec<_> = by_reason.into_iter().map(part).collect();
    let why = (kind == Kind::Failing).then(|| {
        let classes: Vec<_> = parts.iter().take(MOST_CLASSES).map(|part| part.title.as_str()).collect();
        classes.join(", ") + if parts.len() > MOST_CLASSES { ", …" } else { "" }
    });
    let (id, title, column) = kind.words();
    Group { id, title, column, count: grouped(images.len()), why, parts }
}

/// With a capital at its beginning.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

fn row(kind: Kind, image: &ImageStatus) -> Row {
    let message = match kind {
        Kind::Failing => image.message.as_deref().unwrap_or_default(),
        Kind::Elsewhere => image.message.as_deref().unwrap_or("selects other nodes"),
        // a disk has figures, everything else is said by the title
        Kind::Waiting if image.remedy.is_some() => image.message.as_deref().unwrap_or_default(),
        Kind::Pulling | Kind::Waiting | Kind::Present => "",
    };
    Row {
        image: one_line(&image.image),
        tags: tags(kind, image),
        progress: progress(image).filter(|_| kind == Kind::Pulling),
        message: one_line(message),
        facts: facts(kind, image),
        next: next(image),
        problems: image.problems.iter().take(MOST_PROBLEMS).map(|problem| one_line(problem)).collect(),
        more_problems: image.problems.len().saturating_sub(MOST_PROBLEMS),
    }
}

fn tags(kind: Kind, image: &ImageStatus) -> Vec<String> {
    let tags = [
        (!image.required && kind != Kind::Elsewhere).then(|| "optional".to_owned()),
        (image.priority != 0).then(|| format!("priority {}", image.priority)),
        image.pinned.then(|| "pinned".to_owned()),
        (image.present && kind != Kind::Present).then(|| "in the store".to_owned()),
    ];
    tags.into_iter().flatten().collect()
}

fn progress(image: &ImageStatus) -> Option<(u64, u64)> {
    let (done, total) = (image.downloaded_bytes?, image.total_bytes.filter(|total| *total > 0)?);
    Some((done.min(total), total))
}

/// How far a download is, as far as that is known.
pub(super) fn downloaded(image: &ImageStatus) -> Option<String> {
    match (progress(image), image.downloaded_bytes) {
        (Some((done, total)), _) => Some(format!("{} %, {} of {}", percent(done, total), bytes(done), bytes(total))),
        (None, Some(done)) => Some(bytes(done)),
        (None, None) => None,
    }
}

/// How far all pulls of the node are together.
pub(super) fn together(status: &Status) -> Option<String> {
    let progress = status.progress.as_ref().filter(|progress| progress.total_bytes > 0)?;
    let (done, total) = (progress.downloaded_bytes.min(progress.total_bytes), progress.total_bytes);
    let speed = bytes(progress.bytes_per_second);
    Some(format!("{} %, {} of {} together, {speed}/s", percent(done, total), bytes(done), bytes(total)))
}

fn facts(kind: Kind, image: &ImageStatus) -> Vec<String> {
    let name = image.canonical.as_deref().filter(|canonical| **canonical != *image.image);
    let seconds = |seconds: u64| spoken(Duration::from_secs(seconds));
    let failed = |count: u32| match count {
        0 => None,
        1 => Some("1 attempt failed".to_owned()),
        many => Some(format!("{many} attempts failed")),
    };
    let facts: Vec<Option<String>> = match kind {
        Kind::Failing => vec![failed(image.attempt), name.map(|name| format!("means {}", one_line(name)))],
        Kind::Pulling => {
            vec![
                image.phase.map(str::to_owned),
                downloaded(image),
                image.bytes_per_second.map(|speed| format!("{}/s", bytes(speed))),
                image.seconds_left.map(|left| format!("{} left", seconds(left))),
                image.elapsed_seconds.map(|elapsed| match image.phase {
                    Some(_) => format!("for {}", seconds(elapsed)),
                    None => format!("under way for {}", seconds(elapsed)),
                }),
                (image.attempt > 1).then(|| format!("attempt {}", image.attempt)),
            ]
        }
        Kind::Waiting => vec![Some(failed(image.attempt).unwrap_or_else(|| "not tried yet".to_owned()))],
        Kind::Present => vec![
            image.size_bytes.map(bytes),
            image.digest.as_deref().map(|digest| one_line(digest).chars().take(DIGEST_CHARACTERS).collect()),
            image.credential.as_deref().map(|credential| format!("pulled with {}", one_line(credential))),
        ],
        Kind::Elsewhere => Vec::new(),
    };
    facts.into_iter().flatten().chain(image.pin_problem.as_deref().map(one_line)).collect()
}

/// Rounded down, so that nothing is done before it is.
fn percent(done: u64, total: u64) -> u64 {
    u64::try_from(u128::from(done) * 100 / u128::from(total.max(1))).unwrap_or(100)
}

fn next(image: &ImageStatus) -> Option<Next> {
    let at = one_line(image.next_attempt.as_deref()?);
    let relative = match image.next_attempt_in {
        Some(left) if left.as_secs() > 0 => format!("in {}", spoken(left)),
        _ => "as soon as it has its turn".to_owned(),
    };
    Some(Next { relative, clock: clock(&at), at })
}

/// The time of day of an RFC 3339 stamp in UTC.
pub(super) fn clock(stamp: &str) -> String {
    let time = stamp.split_once('T').map_or(stamp, |(_, time)| time.trim_end_matches('Z'));
    format!("{time} UTC")
}
