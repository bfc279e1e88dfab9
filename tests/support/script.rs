//! What a CRI server in front of a test is to do differently: wait, hang, fail.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tonic::{Code, Status};

use super::journal::Method;

/// What happens to a call.
#[derive(Debug, Clone)]
enum Effect {
    Delay(Duration),
    Hang,
    Fail(Code, String),
    Pad(usize),
}

/// What happens to which calls.
#[derive(Debug, Clone)]
pub struct Rule {
    method: Method,
    image: Option<String>,
    times: Option<usize>,
    effect: Effect,
}

impl Rule {
    /// Calls wait before they go on.
    pub fn delay(method: Method, duration: Duration) -> Self {
        Self::new(method, Effect::Delay(duration))
    }

    /// Calls wait until the rule is removed, and then go on.
    pub fn hang(method: Method) -> Self {
        Self::new(method, Effect::Hang)
    }

    /// Calls fail at once.
    pub fn fail(method: Method, code: Code, message: &str) -> Self {
        Self::new(method, Effect::Fail(code, message.to_owned()))
    }

    /// Answers are so many bytes larger, where the server can pad them (`ListImages`).
    pub fn pad(method: Method, bytes: usize) -> Self {
        Self::new(method, Effect::Pad(bytes))
    }

    fn new(method: Method, effect: Effect) -> Self {
        Self { method, image: None, times: None, effect }
    }

    /// Only calls about this image, as the request writes it.
    #[must_use]
    pub fn image(self, image: &str) -> Self {
        Self { image: Some(image.to_owned()), ..self }
    }

    /// Only the next so many calls.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times: Some(times), ..self }
    }

    fn fits(&self, method: Method, image: &str) -> bool {
        self.method == method && self.times != Some(0) && self.image.as_ref().is_none_or(|wanted| wanted == image)
    }
}

/// Names a rule that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleId(u64);

#[derive(Debug, Default)]
struct Rules {
    next: u64,
    // one that is used up stays: a call may still hang on it
    all: Vec<(RuleId, Rule)>,
}

/// The rules of one server; clones share them. The first rule that fits a call decides.
#[derive(Debug, Clone, Default)]
pub struct Script(Arc<watch::Sender<Rules>>);

impl Script {
    /// Adds a rule behind the others, for calls that come from now on.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut id = RuleId(0);
        self.0.send_modify(|rules| {
            id = RuleId(rules.next);
            rules.next += 1;
            rules.all.push((id, rule));
        });
        id
    }

    /// Removes a rule; calls that hang on it go on.
    pub fn remove(&self, id: RuleId) {
        self.0.send_modify(|rules| rules.all.retain(|(other, _)| *other != id));
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.0.send_modify(|rules| rules.all.clear());
    }

    /// How much larger an answer is to be.
    pub fn padding(&self, method: Method) -> Option<usize> {
        let rules = self.0.borrow();
        rules.all.iter().find_map(|(_, rule)| match rule.effect {
            Effect::Pad(bytes) if rule.method == method => Some(bytes),
            _ => None,
        })
    }

    /// Does to a call what the first rule that fits says.
    pub async fn apply(&self, method: Method, image: &str) -> Result<(), Status> {
        let mut found = None;
        self.0.send_if_modified(|rules| {
            if let Some((id, rule)) = rules.all.iter_mut().find(|(_, rule)| rule.fits(method, image)) {
                rule.times = rule.times.map(|times| times - 1);
                found = Some((*id, rule.effect.clone()));
            }
            false
        });
        match found {
            None | Some((_, Effect::Pad(_))) => Ok(()),
            Some((_, Effect::Delay(duration))) => {
                tokio::time::sleep(duration).await;
                Ok(())
            }
            Some((id, Effect::Hang)) => {
                let mut rules = self.0.subscribe();
                let gone = rules.wait_for(|rules| rules.all.iter().all(|(other, _)| *other != id)).await;
                gone.map(|_| ()).map_err(|_| Status::unavailable("the script has ended"))
            }
            Some((_, Effect::Fail(code, message))) => Err(Status::new(code, message)),
        }
    }
}
