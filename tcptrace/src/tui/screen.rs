//! The screen's two threads: one reads keys, one owns the terminal and the state.

use std::io::{self, BufWriter, Write as _};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use jiff::Zoned;
use ratatui::crossterm::event::{self, Event, KeyEventKind, MouseButton, MouseEventKind};
use ratatui::layout::Position;
use tokio::sync::Notify;

use crate::inventory::worker::Worker;

use super::action::{Action, Effect};
use super::look::Look;
use super::query::Query;
use super::state::State;
use super::terminal::{self, Screen};
use super::view::View;
use super::{export, files};

/// Rows that a notch of the wheel moves.
const NOTCH: isize = 3;
/// The kernel stops all threads of a process well within this time.
const STOP_WITHIN: Duration = Duration::from_millis(100);
/// How long the screen is waited for at the end, when its terminal takes nothing any more.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the screen is told.
#[derive(Debug)]
pub enum ToScreen {
    /// A key, the mouse, another size.
    Event(Event),
    /// There is no more input.
    InputFailed(io::Error),
    /// There is a new view.
    View,
    /// Something to say.
    Say {
        /// What.
        text: String,
        /// It is bad news.
        is_error: bool,
    },
    /// The program goes on after it was stopped: the terminal shows something else now.
    Continued,
    /// The end.
    End,
}

/// What the screen asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum FromScreen {
    /// Another view.
    Ask(Query),
    /// What the state could not do.
    Effect(Effect),
}

/// The last view that was made, until the screen takes it. Not a queue: a terminal that takes nothing for an hour must
/// not make an hour of views wait.
#[derive(Debug, Default)]
struct Latest(Mutex<Option<Box<View>>>);

impl Latest {
    /// True when the one before has been taken, so that the screen has to be told.
    fn put(&self, view: View) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(Box::new(view)).is_none()
    }

    fn take(&self) -> Option<Box<View>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The other end of the screen.
#[derive(Debug)]
pub struct Handle {
    latest: Arc<Latest>,
    to: Sender<ToScreen>,
    from: Receiver<FromScreen>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Handle {
    /// Takes the terminal over and starts the threads. `wake` is notified when there is something to ask; `maker`
    /// makes the files of exports.
    ///
    /// # Errors
    /// When the terminal refuses, or no thread can be started.
    pub fn start(look: Look, wake: Arc<Notify>, maker: Worker) -> io::Result<Self> {
        let (to, messages) = mpsc::channel();
        let (requests, from) = mpsc::channel();
        let screen = Screen::take()?;
        let keys = to.clone();
        // Ends with the process: nothing but a key ends a read of the terminal.
        thread::Builder::new().name("keys".to_owned()).spawn(move || read_keys(&keys))?;
        let latest = Arc::<Latest>::default();
        let state = State::default();
        let mut face =
            Face { screen, state, look, latest: Arc::clone(&latest), messages, requests, wake, maker };
        let thread = thread::Builder::new().name("screen".to_owned()).spawn(move || {
            let result = face.run();
            face.wake.notify_one();
            result
        })?;
        Ok(Self { latest, to, from, thread: Some(thread) })
    }

    /// Shows a view, in place of one that has not been shown yet.
    pub fn show(&self, view: View) {
        if self.latest.put(view) {
            self.tell(ToScreen::View);
        }
    }

    /// Sends a message; one that comes too late is not missed.
    pub fn tell(&self, message: ToScreen) {
        let _ = self.to.send(message);
    }

    /// A way to send messages from elsewhere.
    #[must_use]
    pub fn sender(&self) -> Sender<ToScreen> {
        self.to.clone()
    }

    /// The next thing that was asked for; `None` when there is nothing.
    #[must_use]
    pub fn asked(&self) -> Option<FromScreen> {
        self.from.try_recv().ok()
    }

    /// The screen has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the screen and gives the terminal back.
    ///
    /// # Errors
    /// What went wrong with the terminal.
    pub fn end(&mut self) -> io::Result<()> {
        self.tell(ToScreen::End);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let asked = Instant::now();
        while !thread.is_finished() && asked.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
        if !thread.is_finished() {
            // It waits for a terminal that takes nothing: what was on its way there is thrown away.
            let _ = rustix::termios::tcflush(rustix::stdio::stdout(), rustix::termios::QueueSelector::OFlush);
        }
        terminal::restore();
        if !thread.is_finished() {
            return Ok(());
        }
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the screen's thread panicked")))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Errors were told by `end`, if anybody wanted to know.
        let _ = self.end();
    }
}

fn read_keys(to: &Sender<ToScreen>) {
    loop {
        let message = match event::read() {
            Ok(event) => ToScreen::Event(event),
            Err(error) => {
                let _ = to.send(ToScreen::InputFailed(error));
                return;
            }
        };
        if to.send(message).is_err() {
            return;
        }
    }
}

struct Face {
    screen: Screen,
    state: State,
    look: Look,
    latest: Arc<Latest>,
    messages: Receiver<ToScreen>,
    requests: Sender<FromScreen>,
    wake: Arc<Notify>,
    maker: Worker,
}

impl Face {
    fn run(&mut self) -> io::Result<()> {
        self.screen.draw(&mut self.state, &self.look)?;
        while let Ok(first) = self.messages.recv() {
            // Whatever waits is taken in before anything is drawn.
            let mut next = Some(first);
            while let Some(message) = next {
                if self.take(message)? {
                    return Ok(());
                }
                next = self.messages.try_recv().ok();
            }
            self.screen.draw(&mut self.state, &self.look)?;
        }
        Ok(())
    }

    /// True at the end.
    fn take(&mut self, message: ToScreen) -> io::Result<bool> {
        let effects = match message {
            ToScreen::End => return Ok(true),
            ToScreen::InputFailed(error) => return Err(error),
            ToScreen::View => {
                if let Some(view) = self.latest.take() {
                    self.state.show(*view);
                }
                Vec::new()
            }
            ToScreen::Say { text, is_error: false } => {
                self.state.say(&text);
                Vec::new()
            }
            ToScreen::Say { text, is_error: true } => {
                self.state.complain(&text);
                Vec::new()
            }
            ToScreen::Continued => {
                self.screen.retake(self.state.mouse)?;
                Vec::new()
            }
            ToScreen::Event(event) => self.event(&event),
        };
        for effect in effects {
            if self.work(effect)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn event(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.state.key(key),
            Event::Mouse(mouse) => match mouse.kind {
                MouseEventKind::Down(MouseButton::Left) => {
                    self.state.click(Position { x: mouse.column, y: mouse.row })
                }
                MouseEventKind::ScrollDown => self.state.act(Action::Move(NOTCH)),
                MouseEventKind::ScrollUp => self.state.act(Action::Move(-NOTCH)),
                _ => Vec::new(),
            },
            Event::Paste(text) => self.state.paste(text),
            // Drawing asks for the size by itself.
            _ => Vec::new(),
        }
    }

    /// Does what the state cannot; true at the end.
    fn work(&mut self, effect: Effect) -> io::Result<bool> {
        match effect {
            Effect::Quit => return Ok(true),
            Effect::Redraw => self.screen.forget()?,
            Effect::Mouse(listen) => self.screen.listen_to_mouse(listen)?,
            Effect::Suspend => {
                terminal::restore();
                // As the terminal would have done to everything that was started with this line. Where nobody
                // could let it go on, the kernel does not stop it.
                rustix::process::kill_current_process_group(rustix::process::Signal::TSTP)?;
                // Some other thread may be the first to notice; this one must not go on before.
                thread::sleep(STOP_WITHIN);
                self.screen.retake(self.state.mouse)?;
            }
            Effect::Export => self.export(),
            Effect::Ask(query) => self.ask(FromScreen::Ask(query)),
            other => self.ask(FromScreen::Effect(other)),
        }
        Ok(false)
    }

    fn export(&mut self) {
        let State { view, pane, .. } = &self.state;
        let created = files::create_by(&self.maker, export::name(*pane), "jsonl", Zoned::now());
        let written = created.and_then(|(path, file)| {
            let mut out = BufWriter::new(file);
            export::write(view, *pane, self.state.list(), &mut out)?;
            out.flush()?;
            Ok(path)
        });
        match written {
            Ok(path) => self.state.say(&format!("written to {}", files::shown(&path))),
            Err(error) => self.state.complain(&format!("cannot export: {error}")),
        }
    }

    fn ask(&self, request: FromScreen) {
        // Nobody answers any more: the end is on its way.
        let _ = self.requests.send(request);
        self.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::query::Pane;

    #[test]
    fn a_screen_that_takes_nothing_makes_no_views_wait_but_the_last() {
        let latest = Latest::default();
        let told = (0..100).filter(|&seq| {
            let pane = Pane::ALL[seq % 6];
            latest.put(View { pane, ..View::default() })
        });
        assert_eq!(told.count(), 1);
        assert_eq!(latest.take().map(|view| view.pane), Some(Pane::ALL[99 % 6]));
        assert!(latest.take().is_none() && latest.put(View::default()));
    }
}
