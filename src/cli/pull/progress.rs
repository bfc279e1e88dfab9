//! Progress for people: bars on a terminal, one line for each change elsewhere. All on stderr.

use std::{collections::HashMap, io::IsTerminal as _, sync::Arc, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{
    agent::Reporter,
    cli::{output::note, table::bytes},
    error_text::one_line,
    image_state::ImageState,
    stock::{Stock, Transition, Warmth},
};

/// How often a bar is drawn.
const TICK: Duration = Duration::from_millis(120);

/// What fits where stderr goes.
pub(super) fn reporter() -> Box<dyn Reporter> {
    if std::io::stderr().is_terminal() {
        Box::new(Bars { all: MultiProgress::new(), bars: HashMap::new(), warned: false })
    } else {
        Box::new(Lines { warned: false })
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
        ImageState::Pending { .. } | ImageState::Invalid { .. } | ImageState::NotForThisNode => None,
    }
}

/// That the disk is nearly full, in one line, once.
fn warning(stock: &Stock, warned: &mut bool) -> Option<String> {
    let warning = stock.disk_warning().filter(|_| !*warned)?;
    *warned = true;
    Some(format!("prepull: warning: {warning}"))
}

/// For logs and pipes.
struct Lines {
    warned: bool,
}

impl Reporter for Lines {
    fn transition(&mut self, transition: &Transition) {
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
    bars: HashMap<Arc<str>, ProgressBar>,
    warned: bool,
}

impl Reporter for Bars {
    fn transition(&mut self, transition: &Transition) {
        if let ImageState::Pulling { attempt, .. } = &transition.to {
            let bar = self.all.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(style);
            }
            let again = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            bar.set_message(format!("{}: pulling{again}", one_line(&transition.image)));
            bar.enable_steady_tick(TICK);
            self.bars.insert(transition.image.clone(), bar);
            return;
        }
        if let Some(bar) = self.bars.remove(&transition.image) {
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
