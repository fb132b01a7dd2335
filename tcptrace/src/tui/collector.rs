//! The collector's side of the screen: remembers what comes in and answers what is asked.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::live::Handler;
use crate::outcome::Outcome;

use super::action::Effect;
use super::look::Look;
use super::model::Model;
use super::query::Query;
use super::screen::{FromScreen, Handle, ToScreen};

/// Views are this far apart while nobody asks.
const VIEW_EVERY: Duration = Duration::from_secs(1);
/// And at most so far, however much they cost.
const VIEW_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// A view that takes long is made less often: making views takes at most a fiftieth of the time.
const COST_FACTOR: u32 = 50;
/// Answers to questions may take more, but not all of it: of holding a key down nobody shall lose events.
const ASKED_COST_FACTOR: u32 = 4;

/// See the module.
pub struct Collector {
    look: Look,
    wake: Arc<Notify>,
    screen: Option<Handle>,
    model: Model,
    query: Query,
    /// There is a question that no view has answered yet.
    asked: bool,
    pace: Pace,
}

/// When the next view may be made.
#[derive(Debug)]
struct Pace {
    made: Instant,
    cost: Duration,
}

impl Pace {
    fn is_due(&self, asked: bool) -> bool {
        let since = self.made.elapsed();
        let wait = if asked {
            self.cost * ASKED_COST_FACTOR
        } else {
            (self.cost * COST_FACTOR).clamp(VIEW_EVERY, VIEW_AT_LEAST_EVERY)
        };
        since >= wait
    }
}

impl Collector {
    /// Not on the screen yet.
    #[must_use]
    pub fn new(look: Look, wake: Arc<Notify>) -> Self {
        Self {
            look,
            wake,
            screen: None,
            model: Model::default(),
            query: Query::default(),
            asked: true,
            pace: Pace { made: Instant::now(), cost: Duration::ZERO },
        }
    }

    /// Ends the screen.
    ///
    /// # Errors
    /// What went wrong with the terminal.
    pub fn end(&mut self) -> anyhow::Result<()> {
        match self.screen.take() {
            Some(mut screen) => screen.end().context("cannot use the terminal"),
            None => Ok(()),
        }
    }

    fn answer(&mut self, request: FromScreen) {
        match request {
            FromScreen::Ask(query) => {
                self.query = query;
                self.asked = true;
            }
            FromScreen::Effect(Effect::Filter(_) | Effect::Record | Effect::Export | Effect::Play(_)) => {}
            FromScreen::Effect(_) => {}
        }
    }
}

impl Handler for Collector {
    fn started(&mut self, _engine: &Engine) -> anyhow::Result<()> {
        let screen = Handle::start(self.look.clone(), Arc::clone(&self.wake));
        self.screen = Some(screen.context("cannot use the terminal")?);
        Ok(())
    }

    fn outcome(&mut self, outcome: &Outcome) {
        self.model.outcome(outcome);
    }

    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        while let Some(request) = self.screen.as_ref().and_then(Handle::asked) {
            self.answer(request);
        }
        let Some(screen) = &self.screen else { return Ok(ControlFlow::Break(())) };
        if screen.has_ended() {
            self.end()?;
            return Ok(ControlFlow::Break(()));
        }
        self.model.turn(engine);
        if self.pace.is_due(self.asked) {
            let begun = Instant::now();
            let view = self.model.view(engine, &self.query);
            screen.tell(ToScreen::View(Box::new(view)));
            self.pace = Pace { made: Instant::now(), cost: begun.elapsed() };
            self.asked = false;
        }
        Ok(ControlFlow::Continue(()))
    }
}
