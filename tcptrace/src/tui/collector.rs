//! The collector's side of the screen: remembers what comes in and answers what is asked.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Zoned;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::engine::{Engine, Input};
use crate::event::Event;
use crate::filter::{Filter, parse_line};
use crate::inventory::clock;
use crate::inventory::worker::{Answer, Worker};
use crate::live::{DumpOf, Handler};
use crate::outcome::Outcome;
use crate::settings::{System, UsageError};

use super::action::Effect;
use super::leaks::Leaks;
use super::look::Look;
use super::model::Model;
use super::query::Query;
use super::recorder::Recorder;
use super::screen::{FromScreen, Handle, ToScreen};
use super::{files, sysctls, terminal};

/// Views are this far apart while nobody asks.
const VIEW_EVERY: Duration = Duration::from_secs(1);
/// And at most so far, however much they cost.
const VIEW_AT_LEAST_EVERY: Duration = Duration::from_secs(10);
/// A view that costs much is made less often: making views takes at most a hundredth of a processor.
const COST_FACTOR: u32 = 100;
/// Answers to questions may take more, but not all of it: of holding a key down nobody shall lose events.
const ASKED_COST_FACTOR: u32 = 4;
/// What is open is compared with the kernel's list this often: some minis change their state in silence.
const DUMP_EVERY: Duration = Duration::from_secs(30);

/// See the module.
pub struct Collector {
    look: Look,
    wake: Arc<Notify>,
    screen: Option<Handle>,
    model: Model,
    /// What the running system can be asked; from the start of tracing on.
    asking: Option<Asking>,
    filter: Filter,
    /// The filter that was typed in, while its names are being looked up.
    focusing: Option<Answer<Result<Filter, UsageError>>>,
    recorder: Recorder,
    query: Query,
    /// There is a question that no view has answered yet.
    asked: bool,
    pace: Pace,
    dumped: Instant,
}

struct Asking {
    worker: Worker,
    /// Makes the files that keys ask for.
    maker: Worker,
    leaks: Leaks,
    sysctls: sysctls::Watch,
}

/// When the next view may be made.
#[derive(Debug)]
struct Pace {
    made: Instant,
    /// Processor's time that it took. On a busy host it lasts longer, which is no reason to show less of it.
    cost: Duration,
}

impl Pace {
    fn is_due(&self, asked: bool) -> bool {
        let wait = if asked {
            self.cost * ASKED_COST_FACTOR
        } else {
            (self.cost * COST_FACTOR).clamp(VIEW_EVERY, VIEW_AT_LEAST_EVERY)
        };
        self.made.elapsed() >= wait
    }
}

impl Collector {
    /// Not on the screen yet. `filter` is that of the command line, `wake` asks the live loop for a turn.
    #[must_use]
    pub fn new(look: Look, wake: Arc<Notify>, filter: Filter) -> Self {
        let now = Instant::now();
        Self {
            look,
            wake,
            screen: None,
            model: Model::default(),
            asking: None,
            filter,
            focusing: None,
            recorder: Recorder::default(),
            query: Query::default(),
            asked: true,
            pace: Pace { made: now, cost: Duration::ZERO },
            dumped: now,
        }
    }

    /// Ends the screen, so that whatever is said is read on the usual one.
    ///
    /// # Errors
    /// What went wrong with the terminal.
    pub fn close(&mut self) -> anyhow::Result<()> {
        match self.screen.take() {
            Some(mut screen) => screen.end().context("cannot use the terminal"),
            None => Ok(()),
        }
    }

    /// Ends a recording in good order; what there is to say about that.
    ///
    /// # Errors
    /// What went wrong with the recording.
    pub fn end_recording(&mut self, engine: &Engine) -> anyhow::Result<Option<String>> {
        self.recorder.end(engine).map_err(anyhow::Error::msg)
    }

    fn say(&self, text: String, is_error: bool) {
        if let Some(screen) = &self.screen {
            screen.tell(ToScreen::Say { text, is_error });
        }
    }

    fn answer(&mut self, request: FromScreen, engine: &Engine) {
        match request {
            FromScreen::Ask(query) => self.query = query,
            FromScreen::Effect(Effect::Filter(line)) if line.is_empty() => self.focus(None, engine),
            FromScreen::Effect(Effect::Filter(line)) => {
                // Names of namespaces and containers are looked up by the thread that may.
                let worker = self.asking.as_ref().map(|asking| &asking.worker);
                self.focusing = worker.map(|worker| worker.ask(move || parse_line(&line, &System)));
            }
            FromScreen::Effect(Effect::Record) if self.recorder.is_on() => match self.recorder.end(engine) {
                Ok(Some(text)) => self.say(text, false),
                Ok(None) => self.say("nothing was recorded".to_owned(), false),
                Err(error) => self.say(error, true),
            },
            FromScreen::Effect(Effect::Record) => {
                if let Some(asking) = &self.asking {
                    self.recorder.begin(&asking.worker, asking.maker.clone(), Zoned::now());
                }
            }
            // What the screen does itself, or means for a recording that is played.
            FromScreen::Effect(_) => {}
        }
        self.asked = true;
    }

    fn focus(&mut self, filter: Option<Filter>, engine: &Engine) {
        let text = match &filter {
            Some(filter) => format!("filter {filter}; figures count from now on"),
            None => "no filter".to_owned(),
        };
        self.model.set_focus(filter, engine.now());
        if let Some(asking) = &mut self.asking {
            asking.leaks.refocus(engine, self.model.focus());
        }
        self.say(text, false);
        self.asked = true;
    }

    fn take_answers(&mut self, engine: &Engine) {
        if let Some(answer) = self.focusing.as_mut().and_then(Answer::take) {
            self.focusing = None;
            match answer.map_err(|error| UsageError::new(error.to_string())).and_then(|filter| filter) {
                Ok(filter) => self.focus(Some(filter), engine),
                Err(error) => self.say(error.to_string(), true),
            }
        }
        match self.recorder.turn(engine) {
            Ok(None) => {}
            Ok(Some(text)) => self.say(text, false),
            Err(error) => self.say(error, true),
        }
        if let Some(asking) = &mut self.asking {
            asking.leaks.turn(engine, self.model.focus());
            if let Some(values) = asking.sysctls.turn() {
                self.model.set_sysctls(values);
            }
        }
    }

    fn show(&mut self, engine: &Engine) {
        let begun = clock::thread_cpu();
        let mut view = self.model.view(engine, &self.query);
        if let Some(asking) = &self.asking {
            view.leaks = asking.leaks.report();
            view.leaks_failed = asking.leaks.failure().map(str::to_owned);
        }
        view.recording = self.recorder.state();
        if let Some(screen) = &self.screen {
            screen.show(view);
        }
        self.pace = Pace { made: Instant::now(), cost: clock::thread_cpu().saturating_sub(begun) };
        self.asked = false;
    }
}

impl Handler for Collector {
    fn inventory(&mut self, worker: &Worker) -> anyhow::Result<()> {
        terminal::open_input().context("cannot use the terminal")?;
        self.asking = Some(Asking {
            worker: worker.clone(),
            maker: files::maker()?,
            leaks: Leaks::of_system(worker.clone(), self.filter.clone()),
            sysctls: sysctls::Watch::new(worker.clone(), &self.filter),
        });
        Ok(())
    }

    fn started(&mut self, _engine: &Engine) -> anyhow::Result<()> {
        let asking = self.asking.as_ref().context("the screen begins with the trace")?;
        let screen = Handle::start(self.look.clone(), Arc::clone(&self.wake), asking.maker.clone());
        let screen = screen.context("cannot use the terminal")?;
        redraw_when_continued(&screen)?;
        self.screen = Some(screen);
        Ok(())
    }

    fn event(&mut self, event: &Event) {
        self.recorder.event(event);
    }

    fn input(&mut self, input: &Input) -> anyhow::Result<()> {
        if let Some(failure) = self.recorder.input(input) {
            self.say(failure, true);
        }
        Ok(())
    }

    fn outcome(&mut self, outcome: &Outcome) {
        self.model.outcome(outcome);
    }

    fn wants_dump(&mut self) -> Option<DumpOf> {
        if self.recorder.wants_dump() {
            self.dumped = Instant::now();
            return Some(DumpOf::Holders);
        }
        if self.dumped.elapsed() < DUMP_EVERY {
            return None;
        }
        self.dumped = Instant::now();
        Some(DumpOf::Sockets)
    }

    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        while let Some(request) = self.screen.as_ref().and_then(Handle::asked) {
            self.answer(request, engine);
        }
        if self.screen.as_ref().is_none_or(Handle::has_ended) {
            // At once: ending the trace may take a moment.
            self.close()?;
            return Ok(ControlFlow::Break(()));
        }
        self.model.turn(engine);
        self.take_answers(engine);
        if self.pace.is_due(self.asked) {
            self.show(engine);
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A program that was stopped finds another picture on its terminal, and other settings.
pub(super) fn redraw_when_continued(screen: &Handle) -> anyhow::Result<()> {
    let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))
        .context("cannot listen for signals")?;
    let to = screen.sender();
    tokio::spawn(async move {
        while continued.recv().await.is_some() {
            if to.send(ToScreen::Continued).is_err() {
                return;
            }
        }
    });
    Ok(())
}
