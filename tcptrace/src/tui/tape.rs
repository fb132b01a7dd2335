//! A recording, played up to a moment: what the engine and the screen's model were fed so far, and how to get to
//! any other moment. Forwards by feeding on; backwards from a checkpoint, or from the beginning.
//!
//! Reads no clock but to stop in time: what is shown at a moment is the same however it was reached.

use std::time::{Duration, Instant};

use crate::engine::{Engine, Input};
use crate::event::MonoNs;
use crate::filter::Filter;
use crate::recording::{Ending, Reader};
use crate::replay;

use super::leaks::Leaks;
use super::model::Model;
use super::query::Query;
use super::view::View;

/// Opens the recording, at its beginning, with an engine that was fed nothing.
pub type Open<'a> = Box<dyn Fn() -> anyhow::Result<(Reader, Engine)> + 'a>;

const SECOND_NS: u64 = 1_000_000_000;
/// Looks are this far apart, counted from the beginning, so that rates
/// are the same from wherever it came.
const LOOK_EVERY_NS: u64 = 3 * SECOND_NS;
/// Inputs between two looks at the clock.
const INPUTS_AT_ONCE: u32 = 256;
/// A checkpoint saves at least so much feeding.
const CHECKPOINT_WORTH: Duration = Duration::from_millis(250);
/// Each holds tables as large as those of a live trace: tens of megabytes with 100,000 connections.
const CHECKPOINTS: usize = 12;

/// See the module.
pub struct Tape<'a> {
    open: Open<'a>,
    filter: Filter,
    focus: Option<Filter>,
    reader: Reader,
    /// Read and not fed yet.
    next: Option<Input>,
    /// Lines to pass over, because the present moment holds them already.
    skip_to: u64,
    moment: Moment,
    checkpoints: Vec<Checkpoint>,
    /// Feeding that no checkpoint saves yet.
    fed: Duration,
    worth: Duration,
    /// How the recording ended, in words, once that is known.
    ending: Option<String>,
}

/// Everything that was learned up to a moment.
struct Moment {
    engine: Engine,
    model: Model,
    leaks: Leaks,
    /// The next whole second of the recording: samples are taken then.
    second: MonoNs,
    started: MonoNs,
    /// How the recording ended: no more input will come.
    has_ended: bool,
}

struct Checkpoint {
    moment: Moment,
    lines: u64,
}

impl Moment {
    fn new(mut engine: Engine, started: MonoNs, filter: Filter, focus: Option<Filter>) -> Self {
        engine.begin(started);
        let mut model = Model::default();
        model.set_focus(focus, started);
        let leaks = Leaks::of_engine(filter);
        Self { engine, model, leaks, second: started, started, has_ended: false }
    }

    fn fork(&self) -> Self {
        Self { engine: self.engine.clone(), model: self.model.clone(), leaks: self.leaks.fork(), ..*self }
    }

    fn feed(&mut self, input: &Input) {
        let Self { engine, model, .. } = self;
        engine.feed(input, |outcome| model.outcome(outcome));
        if let Input::Inventory(inventory) = input {
            self.leaks.dumped(inventory.dump.namespaces.len() as u64);
        }
    }

    fn tick(&mut self, at: MonoNs) {
        let Self { engine, model, .. } = self;
        engine.tick(at, |outcome| model.outcome(outcome));
    }

    /// What a live screen does once a second.
    fn second(&mut self) {
        let at = self.second;
        self.second += SECOND_NS;
        self.tick(at);
        self.model.turn(&self.engine);
        self.leaks.turn(&self.engine, self.model.focus());
        if (at - self.started).is_multiple_of(LOOK_EVERY_NS) {
            self.model.look(&self.engine);
        }
    }
}

/// When it happened; `None` for what comes whenever it comes.
fn time(input: &Input) -> Option<MonoNs> {
    match input {
        Input::Event(event) => Some(event.at()),
        Input::InventoryBegins { at } | Input::Tick { at } => Some(*at),
        Input::Inventory(_) | Input::Loss(_) => None,
    }
}

impl<'a> Tape<'a> {
    /// At the beginning. `filter` is that of the command line.
    ///
    /// # Errors
    /// When the recording cannot be opened.
    pub fn new(open: Open<'a>, filter: Filter) -> anyhow::Result<Self> {
        let (reader, engine) = open()?;
        let moment = Moment::new(engine, reader.header().started, filter.clone(), None);
        Ok(Self {
            open,
            filter,
            focus: None,
            reader,
            next: None,
            skip_to: 0,
            moment,
            checkpoints: Vec::new(),
            fed: Duration::ZERO,
            worth: CHECKPOINT_WORTH,
            ending: None,
        })
    }

    /// A checkpoint is kept for so much feeding; less takes more memory and goes back faster.
    pub fn keep_checkpoints_worth(&mut self, feeding: Duration) {
        self.worth = feeding;
    }

    /// Where it begins.
    #[must_use]
    pub fn started(&self) -> MonoNs {
        self.reader.header().started
    }

    /// The moment that it has come to.
    #[must_use]
    pub fn now(&self) -> MonoNs {
        self.moment.engine.now()
    }

    /// How the recording ended, in words, where it has come to its end.
    #[must_use]
    pub fn ending(&self) -> Option<&str> {
        self.ending.as_deref().filter(|_| self.moment.has_ended)
    }

    /// The recording ended in good order, as far as it was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        matches!(self.reader.ending(), Some(Ending::Complete(_)))
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.moment.engine
    }

    /// What is seen there.
    #[must_use]
    pub fn view(&mut self, query: &Query) -> View {
        let Moment { engine, model, leaks, .. } = &mut self.moment;
        let mut view = model.view(engine, query);
        view.leaks = leaks.report();
        view
    }

    /// Sets, or takes away, a filter that is typed in. It holds from the beginning of the recording on, which is
    /// where the tape is now.
    ///
    /// # Errors
    /// When the recording cannot be opened any more.
    pub fn set_focus(&mut self, focus: Option<Filter>) -> anyhow::Result<()> {
        self.focus = focus;
        self.checkpoints.clear();
        self.rewind(self.started())
    }

    /// Back, so that [`Tape::advance`] can go to `to`.
    ///
    /// # Errors
    /// When the recording cannot be opened any more; everything is as before then.
    pub fn rewind(&mut self, to: MonoNs) -> anyhow::Result<()> {
        let (reader, engine) = (self.open)()?;
        self.reader = reader;
        self.next = None;
        self.fed = Duration::ZERO;
        self.checkpoints.retain(|checkpoint| checkpoint.moment.engine.now() <= to);
        match self.checkpoints.last() {
            Some(checkpoint) => {
                self.moment = checkpoint.moment.fork();
                self.skip_to = checkpoint.lines;
            }
            None => {
                self.moment = Moment::new(engine, self.started(), self.filter.clone(), self.focus.clone());
                self.skip_to = 0;
            }
        }
        Ok(())
    }

    /// Feeds everything up to `to`, which is not before now, or as much as can be until `until`; true when it is
    /// there, or at the end of the recording.
    pub fn advance(&mut self, to: MonoNs, until: Instant) -> bool {
        let begun = Instant::now();
        let arrived = self.feed(to, until);
        self.fed += begun.elapsed();
        arrived
    }

    fn feed(&mut self, to: MonoNs, until: Instant) -> bool {
        let mut inputs = 0_u32;
        while !self.moment.has_ended {
            inputs = inputs.wrapping_add(1);
            if inputs.is_multiple_of(INPUTS_AT_ONCE) && Instant::now() >= until {
                return false;
            }
            if self.reader.lines_read() < self.skip_to && self.reader.skip_line() {
                continue;
            }
            if self.next.is_none() {
                self.next = self.reader.next_input();
            }
            let at = self.next.as_ref().map(|input| time(input).unwrap_or_else(|| self.now()));
            let second = self.moment.second;
            if second <= to && at.is_some_and(|at| second <= at) {
                self.moment.second();
                self.keep_checkpoint();
                if Instant::now() >= until {
                    return false;
                }
                continue;
            }
            match self.next.take_if(|_| at.is_some_and(|at| at <= to)) {
                Some(input) => self.moment.feed(&input),
                None if at.is_some() => {
                    self.moment.tick(to);
                    return true;
                }
                None => self.end(),
            }
        }
        true
    }

    fn end(&mut self) {
        let Moment { engine, model, leaks, has_ended, .. } = &mut self.moment;
        engine.finish(|outcome| model.outcome(outcome));
        replay::conclude(&self.reader, engine);
        model.turn(engine);
        leaks.refocus(engine, model.focus());
        *has_ended = true;
        self.ending = Some(match self.reader.ending() {
            Some(Ending::Damaged { line, .. }) => format!("the recording is damaged from line {line} on"),
            Some(Ending::CutOff { .. }) => "cut off: its recorder was killed or is still at work".to_owned(),
            Some(Ending::Complete(_)) | None => "the end of the recording; p plays it again".to_owned(),
        });
    }

    /// A way back that is worth what it costs, if there is none yet.
    fn keep_checkpoint(&mut self) {
        if self.fed < self.worth {
            return;
        }
        self.fed = Duration::ZERO;
        if self.checkpoints.len() == CHECKPOINTS {
            // Every other one goes, and new ones are twice as far apart.
            let mut keep = false;
            self.checkpoints.retain(|_| {
                keep = !keep;
                keep
            });
            self.worth *= 2;
        }
        let unfed = u64::from(self.next.is_some());
        self.checkpoints
            .push(Checkpoint { moment: self.moment.fork(), lines: self.reader.lines_read() - unfed });
    }
}
