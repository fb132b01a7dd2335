//! Plays a recording on the screen, with a clock of its own: it runs, stands still, goes faster or slower, and
//! jumps.

use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::Notify;

use crate::engine::Input;
use crate::event::MonoNs;
use crate::filter::parse_line;
use crate::live::Signals;
use crate::recording::{Ending, Reader};
use crate::settings::recorded::RecordedHost;

use super::action::{Effect, Play};
use super::collector::redraw_when_continued;
use super::query::Query;
use super::screen::{FromScreen, Handle, ToScreen};
use super::tape::Tape;
use super::view::Playback;

/// The slowest and the fastest that a recording is played.
pub const SPEEDS: std::ops::RangeInclusive<f64> = 0.125..=1024.0;
/// Feeding is interrupted this often to look for keys.
const SLICE: Duration = Duration::from_millis(20);
/// Views are this far apart when the recording is played faster than it happened.
const VIEW_EVERY: Duration = Duration::from_millis(250);
/// And this when it is not.
const VIEW_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// While it is on its way elsewhere, the way is seen.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
const SECOND_NS: i64 = 1_000_000_000;

/// See the module.
pub struct Player<'a> {
    tape: Tape<'a>,
    host: RecordedHost,
    clock: Clock,
    /// What was found on reading through all of it.
    length: Length,
    query: Query,
    /// There is a question that no view has answered yet.
    asked: bool,
    /// It is on its way to where it was sent.
    seeking: bool,
    shown: Instant,
}

/// The recording's time, and how it runs.
#[derive(Clone, Copy, Debug)]
struct Clock {
    at: MonoNs,
    read: Instant,
    speed: f64,
    paused: bool,
}

impl Clock {
    /// Goes on by the time that has passed.
    fn run(&mut self, stands: bool) {
        let passed = self.read.elapsed();
        self.read += passed;
        if !self.paused && !stands {
            self.at += passed.mul_f64(self.speed).as_nanos() as u64;
        }
    }
}

/// How long the recording is: known when it has been read through, which a thread does meanwhile.
enum Length {
    Asked(Receiver<Read>),
    Known(Read),
    Unknown,
}

/// What the thread found.
struct Read {
    ended: MonoNs,
    ending: Option<Ending>,
}

impl Length {
    fn ask(mut reader: Reader) -> io::Result<Self> {
        let (found, asked) = mpsc::channel();
        thread::Builder::new().name("length".to_owned()).spawn(move || {
            let mut ended = reader.header().started;
            while let Some(input) = reader.next_input() {
                match input {
                    Input::Event(event) => ended = ended.max(event.at()),
                    Input::InventoryBegins { at } | Input::Tick { at } => ended = ended.max(at),
                    Input::Inventory(_) | Input::Loss(_) => {}
                }
            }
            // Nobody asks any more: the player was ended.
            let _ = found.send(Read { ended, ending: reader.ending().cloned() });
        })?;
        Ok(Self::Asked(asked))
    }

    /// Looks whether it has become known; true once.
    fn take(&mut self) -> bool {
        let Self::Asked(asked) = self else { return false };
        *self = match asked.try_recv() {
            Ok(read) => Self::Known(read),
            Err(TryRecvError::Disconnected) => Self::Unknown,
            Err(TryRecvError::Empty) => return false,
        };
        true
    }

    fn ended(&self) -> Option<MonoNs> {
        match self {
            Self::Known(read) => Some(read.ended),
            Self::Asked(_) | Self::Unknown => None,
        }
    }
}

impl<'a> Player<'a> {
    /// At the beginning of the tape. `reader` is another reader of the same recording.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(tape: Tape<'a>, reader: Reader, host: RecordedHost, speed: f64) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            clock: Clock { at: tape.started(), read: now, speed, paused: false },
            tape,
            host,
            length: Length::ask(reader)?,
            query: Query::default(),
            asked: true,
            seeking: false,
            shown: now,
        })
    }

    /// The tape, as far as it was played.
    #[must_use]
    pub fn tape(&self) -> &Tape<'a> {
        &self.tape
    }

    /// Plays until somebody ends it. `wake` is what the screen notifies.
    ///
    /// # Errors
    /// What went wrong with the terminal.
    pub async fn run(&mut self, screen: &Handle, wake: &Notify) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        redraw_when_continued(screen)?;
        self.clock.read = Instant::now();
        while !screen.has_ended() {
            while let Some(request) = screen.asked() {
                self.answer(request, screen);
            }
            let arrived = self.go_on();
            let stands = arrived && (self.clock.paused || self.tape.ending().is_some());
            self.show(screen, stands);
            let wait = match (arrived, stands) {
                (false, _) => Duration::ZERO,
                (true, false) => self.next_view().saturating_duration_since(Instant::now()),
                // But for keys there is only the length to wait for.
                (true, true) => VIEW_EVERY,
            };
            tokio::select! {
                biased;
                _ = signals.any() => break,
                () = wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(())
    }

    /// Feeds what is due; true when there is nothing more to feed now.
    fn go_on(&mut self) -> bool {
        self.asked |= self.length.take();
        self.clock.run(self.seeking || self.tape.ending().is_some());
        let was_over = self.tape.ending().is_some();
        let arrived = self.tape.advance(self.clock.at, Instant::now() + SLICE);
        self.asked |= !was_over && self.tape.ending().is_some();
        if self.tape.ending().is_some() || (!arrived && !self.seeking) {
            // Where more happens than can be worked through it is played slower, rather than ever later.
            self.clock.at = self.tape.now();
        }
        if arrived && self.seeking {
            self.seeking = false;
            self.asked = true;
        }
        arrived
    }

    fn next_view(&self) -> Instant {
        let every = VIEW_AT_LEAST_EVERY.div_f64(self.clock.speed.max(1.0)).max(VIEW_EVERY);
        self.shown + if self.seeking { PROGRESS_EVERY } else { every }
    }

    /// `stands`: what was shown last is what is to be seen.
    fn show(&mut self, screen: &Handle, stands: bool) {
        let is_answer = self.asked && !self.seeking;
        if !is_answer && (stands || Instant::now() < self.next_view()) {
            return;
        }
        let mut view = self.tape.view(&self.query);
        view.playback = Some(Playback {
            speed: self.clock.speed,
            paused: self.clock.paused,
            started: self.tape.started(),
            ended: self.length.ended(),
            ending: self.tape.ending().map(str::to_owned),
            is_complete: self.tape.is_complete(),
            seeking: self.seeking,
        });
        screen.show(view);
        self.asked = false;
        self.shown = Instant::now();
    }

    fn answer(&mut self, request: FromScreen, screen: &Handle) {
        self.asked = true;
        let said = match request {
            FromScreen::Ask(query) => {
                self.query = query;
                Ok(None)
            }
            FromScreen::Effect(Effect::Play(play)) => self.play(play).map(|()| None),
            FromScreen::Effect(Effect::Filter(line)) => self.filter(&line).map(Some),
            // What the screen does itself, or means for the running kernel.
            FromScreen::Effect(_) => Ok(None),
        };
        let (text, is_error) = match said {
            Ok(None) => return,
            Ok(Some(text)) => (text, false),
            Err(error) => (format!("{error:#}"), true),
        };
        screen.tell(ToScreen::Say { text, is_error });
    }

    fn play(&mut self, play: Play) -> anyhow::Result<()> {
        match play {
            Play::Toggle if self.tape.ending().is_some() => {
                // As players do: once more from the beginning.
                self.clock.paused = false;
                return self.seek(self.tape.started());
            }
            Play::Toggle => self.clock.paused = !self.clock.paused,
            Play::Speed(faster) => {
                let speed = self.clock.speed * if faster { 2.0 } else { 0.5 };
                self.clock.speed = speed.clamp(*SPEEDS.start(), *SPEEDS.end());
            }
            Play::Seek(seconds) => {
                return self.seek(self.clock.at.saturating_add_signed(seconds * SECOND_NS));
            }
            Play::Start => return self.seek(self.tape.started()),
            Play::Part(permille) => {
                let Some(ended) = self.length.ended() else { return Ok(()) };
                let all = ended.saturating_sub(self.tape.started());
                return self.seek(self.tape.started() + all / 1000 * u64::from(permille));
            }
        }
        Ok(())
    }

    fn seek(&mut self, to: MonoNs) -> anyhow::Result<()> {
        let to = to.max(self.tape.started()).min(self.length.ended().unwrap_or(u64::MAX));
        if to < self.tape.now() {
            self.tape.rewind(to)?;
        }
        self.clock.at = to;
        self.seeking = true;
        Ok(())
    }

    fn filter(&mut self, line: &str) -> anyhow::Result<String> {
        if line.contains("--container") {
            // Only the end of a recording says which containers there were.
            match &self.length {
                Length::Known(Read { ending: Some(Ending::Complete(footer)), .. }) => {
                    self.host.set_cgroups(footer.cgroups.clone());
                }
                Length::Asked(_) => anyhow::bail!("the recording is still being read: try again in a moment"),
                Length::Known(_) | Length::Unknown => {
                    anyhow::bail!("which containers there were is not known: the recording has no end")
                }
            }
        }
        let filter = if line.is_empty() { None } else { Some(parse_line(line, &self.host)?) };
        let said = filter.as_ref().map_or_else(
            || "no filter".to_owned(),
            |filter| format!("filter {filter}, from the beginning of the recording on"),
        );
        self.tape.set_focus(filter)?;
        self.seeking = true;
        Ok(said)
    }
}
