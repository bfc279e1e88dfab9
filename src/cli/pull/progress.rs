//! Progress for people: bars on a terminal, one line for each change elsewhere. All on stderr.

use std::{collections::HashMap, io::IsTerminal as _, sync::Arc, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::{
    agent::Reporter,
    cli::output::note,
    display::bytes,
    error_text::one_line,
    image_state::ImageState,
    page::spoken,
    progress::{ImageProgress, Phase},
    stock::{Stock, Transition, Warmth},
};

/// How often a bar is drawn.
const TICK: Duration = Duration::from_millis(120);
/// How often a line tells of a pull under way.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What fits where stderr goes.
pub(super) fn reporter() -> Box<dyn Reporter> {
    if std::io::stderr().is_terminal() {
        Box::new(Bars { all: MultiProgress::new(), running: HashMap::new(), warned: false })
    } else {
        Box::new(Lines { told: HashMap::new(), warned: false })
    }
}

/// What happened, in one line; none for what is no news.
fn line(transition: &Transition) -> Option<String> {
    let image = one_line(&transition.image);
    match &transition.to {
        ImageState::Present { stored, .. } if transition.first_look => {
            Some(format!("{image}: already present ({})", bytes(stored.size)))
        }
        ImageState::Present { stored, credential, .. } => {
            let with = credential.as_ref().map(|c| format!(", with {}", one_line(&c.to_string()))).unwrap_or_default();
            Some(format!("{image}: pulled ({}{with})", bytes(stored.size)))
        }
        ImageState::BackOff { failures, error, .. } => {
            Some(format!("{image}: attempt {} failed: {}: {}", failures.count, error.class, error.message))
        }
        ImageState::Missing { .. } => Some(format!("{image}: not present, and its policy is Never")),
        ImageState::Pulling { .. } => Some(format!("{image}: pulling")),
        ImageState::Pending { .. } => {
            let error = transition.broke_off.as_ref()?;
            Some(format!("{image}: the download broke off and goes on from where it was: {}", error.message))
        }
        ImageState::Invalid { .. } | ImageState::NotForThisNode => None,
    }
}

/// How far a pull is, in words.
fn far(progress: &ImageProgress) -> String {
    let mut words = vec![progress.phase.as_str().to_owned()];
    match (progress.phase, progress.downloaded, progress.total) {
        (Phase::Downloading, Some(done), Some(total)) if total > 0 => {
            words.push(format!("{} % of {}", u128::from(done) * 100 / u128::from(total), bytes(total)));
        }
        (Phase::Unpacking, _, Some(total)) => words.push(bytes(total)),
        _ => {}
    }
    words.extend(progress.bytes_per_second.map(|speed| format!("{}/s", bytes(speed))));
    words.extend(progress.seconds_left.map(|left| format!("{} left", spoken(Duration::from_secs(left)))));
    words.join(", ")
}

/// That the disk is nearly full, in one line, once.
fn warning(stock: &Stock, warned: &mut bool) -> Option<String> {
    let warning = stock.disk_warning().filter(|_| !*warned)?;
    *warned = true;
    Some(format!("prepull: warning: {warning}"))
}

/// For logs and pipes.
struct Lines {
    /// When something was last told about an image, and its phase then.
    told: HashMap<Arc<str>, (Instant, Option<Phase>)>,
    warned: bool,
}

impl Reporter for Lines {
    fn progress(&mut self, image: &str, progress: &ImageProgress) {
        let Some((at, phase)) = self.told.get_mut(image) else { return };
        // what takes no ten seconds needs no line, and what unpacks says so once
        let again = progress.phase == Phase::Downloading || *phase != Some(progress.phase);
        if at.elapsed() >= LINE_EVERY && again {
            (*at, *phase) = (Instant::now(), Some(progress.phase));
            note(&format!("{}: {}", one_line(image), far(progress)));
        }
    }

    fn transition(&mut self, transition: &Transition) {
        if let ImageState::Pulling { .. } = &transition.to {
            self.told.insert(transition.image.clone(), (Instant::now(), None));
        } else {
            self.told.remove(&transition.image);
        }
        if let Some(line) = line(transition) {
            note(&line);
        }
    }

    fn warmth(&mut self, _: &Warmth) {}

    fn turned(&mut self, stock: &Stock) {
        if let Some(line) = warning(stock, &mut self.warned) {
            note(&line);
        }
    }
}

/// For terminals: what runs moves, what ended stands above.
struct Bars {
    all: MultiProgress,
    running: HashMap<Arc<str>, ProgressBar>,
    warned: bool,
}

/// Without a style that can be read the bar keeps the one it has.
fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

impl Reporter for Bars {
    fn progress(&mut self, image: &str, progress: &ImageProgress) {
        let Some(bar) = self.running.get(image) else { return };
        bar.set_message(format!("{}: {}", one_line(image), far(progress)));
        if let (Some(done), Some(total)) = (progress.downloaded, progress.total) {
            if bar.length() != Some(total) {
                bar.set_length(total);
                style(bar, "{spinner} [{bar:20}] {msg} {elapsed}");
            }
            bar.set_position(done.min(total));
        }
    }

    fn transition(&mut self, transition: &Transition) {
        if let ImageState::Pulling { attempt, .. } = &transition.to {
            let bar = self.all.add(ProgressBar::new_spinner());
            style(&bar, "{spinner} {msg} {elapsed}");
            let again = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            bar.set_message(format!("{}: pulling{again}", one_line(&transition.image)));
            bar.enable_steady_tick(TICK);
            self.running.insert(transition.image.clone(), bar);
            return;
        }
        if let Some(bar) = self.running.remove(&transition.image) {
            bar.finish_and_clear();
        }
        if let Some(line) = line(transition) {
            // a terminal that is gone has nobody to tell
            let _ = self.all.println(line);
        }
    }

    fn warmth(&mut self, _: &Warmth) {}

    fn turned(&mut self, stock: &Stock) {
        if let Some(line) = warning(stock, &mut self.warned) {
            let _ = self.all.println(line);
        }
    }
}
