//! The status of a node as a web page: one document without any script, whose style sheet and icon stand beside it.
//!
//! Links are relative, so that it works behind the API server's proxy of pods as well. Rows are bounded: 10,000 images
//! make a page that a telephone can show, and what it leaves out it counts.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use askama::Template;

use super::{
    cooldown,
    groups::{self, Group},
};
use crate::{
    clock::{Moment, rfc3339},
    error_text::one_line,
    status::{ListStatus, Status},
};

/// The page's style sheet, at `style.css`.
pub const STYLE: &str = include_str!("../../templates/style.css");

/// How often a page comes again while something is under way.
pub const REFRESH: Duration = Duration::from_secs(5);
/// How often it does while all is well.
const REFRESH_AT_REST: Duration = Duration::from_secs(30);

/// Lists that are shown, those with problems first.
const MOST_LISTS: usize = 20;
/// Problems that are shown of a list.
const MOST_PROBLEMS: usize = 10;
/// Registries that are shown.
const MOST_REGISTRIES: usize = 20;

/// Names a style sheet by its content, so that a browser keeps it and never shows a new page with an old one.
static STYLE_REVISION: LazyLock<String> = LazyLock::new(|| crate::list::revision(STYLE));

/// How a node is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Warm,
    Warming,
    Failing,
}

impl Tone {
    fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Warming => "warming",
            Self::Failing => "failing",
        }
    }

    /// The colour of the icon in the browser's tab.
    fn colour(self) -> &'static str {
        match self {
            Self::Warm => "#2da44e",
            Self::Warming => "#d4a017",
            Self::Failing => "#d1242f",
        }
    }
}

/// The icon at a path such as `/icon-warm.svg`.
pub fn icon(path: &str) -> Option<String> {
    let tone = [Tone::Warm, Tone::Warming, Tone::Failing]
        .into_iter()
        .find(|tone| path.strip_prefix("/icon-").and_then(|path| path.strip_suffix(".svg")) == Some(tone.as_str()))?;
    let colour = tone.colour();
    Some(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="{colour}"/></svg>"#
    ))
}

#[derive(Template)]
#[template(path = "status.html")]
struct Page<'a> {
    tone: &'static str,
    verdict: &'static str,
    node: String,
    reason: String,
    /// Required images that are present, and required images.
    required: (usize, usize),
    style: &'a str,
    /// When the page was made, RFC 3339 and for people.
    now: String,
    now_shown: String,
    /// Seconds until the page comes again.
    refresh: Option<u64>,
    runtime: String,
    runtime_problem: Option<String>,
    /// Used part of the image filesystem in percent.
    disk: Option<u64>,
    /// How far all pulls are together.
    progress: Option<String>,
    lists: Vec<List>,
    more_lists: usize,
    registries: Vec<(String, String)>,
    more_registries: usize,
    groups: Vec<Group>,
    version: &'static str,
    build: &'static str,
}

/// A list on the page.
struct List {
    source: String,
    revision: String,
    problems: Vec<String>,
    more_problems: usize,
    notes: Vec<String>,
}

/// The page as of a wall-clock time, and after what time it should come again; never where that is not wanted.
pub fn page(status: &Status, wall: SystemTime, refresh: bool) -> Result<(String, Option<Duration>), askama::Error> {
    let groups = groups::groups(status);
    let any = |id: &str| groups.iter().any(|group| group.id == id);
    let unwell = status.runtime_problem.is_some() || status.lists.iter().any(|list| !list.problems.is_empty());
    let tone = match status.warm {
        true => Tone::Warm,
        false if any("failing") || unwell => Tone::Failing,
        false => Tone::Warming,
    };
    let at_rest = status.warm && !unwell && !any("failing") && !any("pulling") && !any("waiting");
    let refresh = refresh.then_some(if at_rest { REFRESH_AT_REST } else { REFRESH });
    let now = rfc3339(Moment::default(), Moment::default(), wall);
    let page = Page {
        tone: tone.as_str(),
        verdict: if status.warm { "warm" } else { "not warm" },
        node: one_line(&status.node),
        reason: one_line(&status.not_warm_reason),
        required: status.required,
        style: &STYLE_REVISION,
        now_shown: format!("{} {}", now.split('T').next().unwrap_or_default(), groups::clock(&now)),
        now,
        refresh: refresh.map(|time| time.as_secs()),
        runtime: one_line(&status.runtime),
        runtime_problem: status.runtime_problem.as_deref().map(one_line),
        progress: groups::together(status),
        disk: status.image_fs_used_ratio.filter(|ratio| ratio.is_finite()).map(in_percent),
        lists: lists(&status.lists),
        more_lists: status.lists.len().saturating_sub(MOST_LISTS),
        registries: status
            .cooldowns
            .iter()
            .take(MOST_REGISTRIES)
            .map(|(registry, left)| (one_line(registry), cooldown(*left)))
            .collect(),
        more_registries: status.cooldowns.len().saturating_sub(MOST_REGISTRIES),
        groups,
        version: env!("CARGO_PKG_VERSION"),
        build: env!("PREPULL_REVISION"),
    };
    Ok((page.render()?, refresh))
}

fn lists(lists: &[ListStatus]) -> Vec<List> {
    let mut lists: Vec<_> = lists.iter().collect();
    lists.sort_by_key(|list| list.problems.is_empty());
    let shown = |list: &ListStatus| List {
        source: one_line(&list.source),
        revision: one_line(&list.revision),
        problems: list.problems.iter().take(MOST_PROBLEMS).map(|problem| one_line(problem)).collect(),
        more_problems: list.problems.len().saturating_sub(MOST_PROBLEMS),
        notes: list.notes.iter().map(|note| one_line(note)).collect(),
    };
    lists.into_iter().take(MOST_LISTS).map(shown).collect()
}

/// A part of one in whole percent.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 100")]
fn in_percent(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * 100.0).round() as u64
}
