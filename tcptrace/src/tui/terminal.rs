//! The terminal: taken over, given back however the program ends.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen,
    disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute, queue};
use ratatui::layout::Rect;

use super::draw;
use super::look::Look;
use super::state::State;

/// A frame goes out in one system call unless it is larger than this: a full screen of 200×60 in colours.
const FRAME_BYTES: usize = 64 << 10;

/// The terminal shows the screen. One for the process, as there is one terminal: whoever ends the program, a
/// panic included, must be able to give it back.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Some thread has panicked: the screen was given back for good, and the program is to end.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Held while a frame is drawn: one that goes out after the terminal was given back would cover what is said then.
static FRAME: Mutex<()> = Mutex::new(());

/// How long a frame is waited for before the terminal is given back all the same: it may be of the very thread that
/// panicked, or of a terminal that takes nothing.
const FRAME_PATIENCE: Duration = Duration::from_millis(100);

/// Makes the terminal standard input, where that is something else: keys are read from the terminal, and its settings
/// changed, by way of standard input. To be called before the privilege to open devices for writing is given up.
///
/// # Errors
/// When there is no terminal.
pub fn open_input() -> io::Result<()> {
    if !io::stdin().is_terminal() {
        let terminal = File::options().read(true).write(true).open("/dev/tty")?;
        rustix::stdio::dup2_stdin(terminal)?;
    }
    Ok(())
}

/// The screen of this terminal.
#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When it is none, or refuses; it is as before then.
    pub fn take() -> io::Result<Self> {
        restore_on_panic();
        let out = BufWriter::with_capacity(FRAME_BYTES, io::stdout());
        let terminal = Terminal::new(CrosstermBackend::new(out))?;
        enter(true)?;
        Ok(Self { terminal })
    }

    /// Draws what has changed.
    ///
    /// # Errors
    /// When the terminal is gone, or was given back because some thread has panicked.
    pub fn draw(&mut self, state: &mut State, look: &Look) -> io::Result<()> {
        let _frame = FRAME.lock().unwrap_or_else(PoisonError::into_inner);
        if PANICKED.load(Ordering::Acquire) {
            return Err(io::Error::other("a part of the program panicked"));
        }
        if !TAKEN.load(Ordering::Acquire) {
            return Ok(());
        }
        // Terminals that know this show the frame at once and whole; others ignore it.
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        let mut drawn = None;
        self.terminal.draw(|frame| {
            let placed = draw::draw(frame.buffer_mut(), state, look);
            if let Some(cursor) = placed.cursor {
                frame.set_cursor_position(cursor);
            }
            drawn = Some(placed.drawn);
        })?;
        queue!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        self.terminal.backend_mut().flush()?;
        state.drawn = drawn.unwrap_or_default();
        Ok(())
    }

    /// The next frame is drawn in full: the terminal shows something else.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn forget(&mut self) -> io::Result<()> {
        // Not `clear()`: that asks the terminal where its cursor is, and the answer would come as keys.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::new(0, 0, size.width, size.height))
    }

    /// Listens to the mouse, or leaves it to the terminal, which can mark and copy text with it.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn listen_to_mouse(&mut self, listen: bool) -> io::Result<()> {
        if listen {
            execute!(self.terminal.backend_mut(), EnableMouseCapture)
        } else {
            execute!(self.terminal.backend_mut(), DisableMouseCapture)
        }
    }

    /// Takes it over again, after it was given back or somebody else used it.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn retake(&mut self, mouse: bool) -> io::Result<()> {
        // Whoever stopped us may have changed the settings: they are put back to what they were, and changed anew.
        let _ = disable_raw_mode();
        enter(mouse)?;
        self.forget()
    }
}

fn enter(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::Release);
    let mut out = io::stdout().lock();
    let entered = execute!(out, EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)
        .and_then(|()| if mouse { execute!(out, EnableMouseCapture) } else { Ok(()) });
    drop(out);
    if entered.is_err() {
        restore();
    }
    entered
}

/// Gives the terminal back; does nothing where it was not taken. Errors are not told: there is nobody left to
/// tell them to.
pub fn restore() {
    if !TAKEN.swap(false, Ordering::AcqRel) {
        return;
    }
    wait_for_the_frame();
    let _ = disable_raw_mode();
    // Not through the lock of standard output: the thread that panicked, or waits for a terminal that takes
    // nothing, may hold it.
    let mut out = Direct;
    let _ = execute!(
        out,
        EndSynchronizedUpdate,
        DisableMouseCapture,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    );
}

/// Waits until no frame is under way; none begins any more, once the terminal is not taken.
fn wait_for_the_frame() {
    const STEP: Duration = Duration::from_millis(2);
    let mut waited = Duration::ZERO;
    while waited < FRAME_PATIENCE && matches!(FRAME.try_lock(), Err(std::sync::TryLockError::WouldBlock)) {
        std::thread::sleep(STEP);
        waited += STEP;
    }
}

/// Standard output without a buffer and without a lock.
struct Direct;

impl io::Write for Direct {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stdout(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// So that the message of a panic is read on the usual screen.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::Release);
            restore();
            before(panic);
        }));
    });
}
