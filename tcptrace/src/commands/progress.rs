//! A line on standard error, when that is a terminal, so that nobody stares at nothing for a minute.

use std::ops::ControlFlow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::engine::Engine;
use crate::live::Handler;
use crate::net::State;
use crate::views::human;

/// The line. As a handler it does nothing else.
pub struct Progress {
    bar: ProgressBar,
    duration: Option<Duration>,
}

impl Progress {
    /// For a trace of this length.
    pub fn new(duration: Option<Duration>) -> Self {
        // At most four redraws a second: this may be at the other end of a slow line.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, duration }
    }

    /// Brings the line up to date.
    pub fn show(&self, engine: &Engine) {
        if self.bar.is_hidden() {
            return;
        }
        let elapsed = Duration::from_nanos(engine.meta().elapsed_ns()).as_secs();
        let length = match self.duration {
            Some(duration) => format!("{elapsed} s of {} s", duration.as_secs()),
            None => format!("{elapsed} s"),
        };
        let counted = engine.open_by_state();
        let open = |state| human::count(counted(state));
        self.bar.set_message(format!(
            "{length}   {} events   TIME_WAIT {}   FIN_WAIT2 {}   CLOSE_WAIT {}   Ctrl-C ends and reports",
            human::count(engine.events()),
            open(State::TimeWait),
            open(State::FinWait2),
            open(State::CloseWait),
        ));
        self.bar.tick();
    }

    /// Makes room for something else.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Handler for Progress {
    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        self.show(engine);
        Ok(ControlFlow::Continue(()))
    }
}
