//! The screen, drawn from a recording of the demonstration: every pane at three sizes, what Enter shows, and that a
//! moment looks the same however the tape came to it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use tcptrace::cli::SourceArgs;
use tcptrace::commands::source::{Source, Wanted};
use tcptrace::filter::{Detail, Filter, StateSet};
use tcptrace::live;
use tcptrace::settings::Tracing;
use tcptrace::tui::action::Effect;
use tcptrace::tui::draw;
use tcptrace::tui::look::Look;
use tcptrace::tui::query::{Pane, Query};
use tcptrace::tui::state::State;
use tcptrace::tui::tape::Tape;
use tcptrace::tui::theme::{Palette, Theme};
use tcptrace::tui::view::Playback;

/// 84 s of `tcptrace demo --rate 10 record`, recompressed; host and kernel have shorter names than they had.
const RECORDING: &str = "tests/recordings/demo.jsonl.zst";
const LOOK: Theme = Theme { palette: Palette::Plain, ascii: false };
const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];
const SECOND: u64 = 1_000_000_000;

fn tape(path: &Path) -> Tape<'static> {
    let path = path.to_owned();
    let filter = Filter::default();
    let open = move || {
        let source = Source::open(&SourceArgs { from: Some(path.clone()) }, false)?;
        let engine = source.engine(&Wanted {
            filter: &Filter::default(),
            by: None,
            states: StateSet::ALL,
            detail: Detail::Transitions,
            tracing: &Tracing::default(),
            tick: live::LAZY_TICK,
        });
        let Source::Recording(recording) = &source else { unreachable!("--from was given") };
        Ok((recording.reopen()?, engine))
    };
    Tape::new(Box::new(open), filter).expect("opens")
}

/// A person at the screen of a tape.
struct Person {
    tape: Tape<'static>,
    state: State,
    look: Look,
    size: (u16, u16),
}

impl Person {
    fn new(path: &str, (width, height): (u16, u16)) -> Self {
        let look = Look { theme: LOOK, zone: TimeZone::UTC };
        Self { tape: tape(Path::new(path)), state: State::default(), look, size: (width, height) }
    }

    /// To a second of the recording.
    fn go(&mut self, second: u64) {
        let to = self.tape.started() + second * SECOND;
        if to < self.tape.now() {
            self.tape.rewind(to).expect("rewinds");
        }
        while !self.tape.advance(to, Instant::now() + Duration::from_secs(1)) {}
        self.ask(&self.state.query());
    }

    fn ask(&mut self, query: &Query) {
        let view = self.tape.view(query);
        self.state.show(view);
    }

    /// Presses keys: `\r` for Enter, `\x1b` for Esc.
    fn press(&mut self, keys: &str) {
        for key in keys.chars() {
            let code = match key {
                '\r' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                key => KeyCode::Char(key),
            };
            for effect in self.state.key(&KeyEvent::new(code, KeyModifiers::NONE)) {
                match effect {
                    Effect::Ask(query) => self.ask(&query),
                    other => panic!("{other:?}"),
                }
            }
            self.sees();
        }
    }

    /// What is on the screen.
    fn sees(&mut self) -> String {
        let (width, height) = self.size;
        let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
        let frame = draw::draw(&mut buf, &self.state, &self.look);
        self.state.drawn = frame.drawn;
        let line = |y: u16| (0..width).map(|x| buf[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
    }
}

#[test]
fn every_pane_at_three_sizes() {
    let mut person = Person::new(RECORDING, SIZES[0]);
    person.go(75);
    for pane in Pane::ALL {
        person.press(&(pane.index() + 1).to_string());
        for size in SIZES {
            person.size = size;
            let name = format!("{} {}x{}", pane.title(), size.0, size.1);
            insta::assert_snapshot!(name, person.sees());
        }
    }
}

#[test]
fn smaller_than_80x24() {
    let mut person = Person::new(RECORDING, (60, 14));
    person.go(75);
    insta::assert_snapshot!("Overview 60x14", person.sees());
    person.press("4");
    insta::assert_snapshot!("Connections 60x14", person.sees());
    person.size = (39, 7);
    insta::assert_snapshot!("too small", person.sees());
    for (width, height) in [(1, 1), (40, 1), (1, 40), (40, 8), (300, 9), (41, 100)] {
        person.size = (width, height);
        for pane in Pane::ALL {
            person.press(&(pane.index() + 1).to_string());
            person.sees();
        }
    }
}

#[test]
fn details() {
    let mut person = Person::new(RECORDING, (100, 40));
    person.go(75);
    for (name, keys) in [
        ("details of a leak", "2\r"),
        ("details of a destination", "3\r"),
        ("timeline of a connection", "4\r"),
        ("timeline of an event", "5/expired\r\r"),
        ("details of a sysctl", "6\r"),
        ("help", "?"),
    ] {
        person.press(keys);
        insta::assert_snapshot!(name, person.sees());
        person.press("\x1b\x1b");
    }
}

#[test]
fn searching_and_sorting() {
    let mut person = Person::new(RECORDING, (100, 24));
    person.go(75);
    person.press("4/demo-leaky close_wait");
    let seen = person.sees();
    let rows: Vec<_> = seen.lines().filter(|line| line.contains("CLOSE_WAIT")).collect();
    assert!(rows.len() > 3 && rows.iter().all(|row| row.contains("demo-leaky")), "{seen}");
    person.press("\rss");
    assert!(person.sees().contains("sorted by process"), "{}", person.sees());
    person.press("\x1b");
    assert!(!person.sees().contains("search \""), "Esc ends the search");
}

/// All panes, as text.
fn everything(person: &mut Person, second: u64) -> String {
    person.go(second);
    let mut all = String::new();
    for pane in Pane::ALL {
        person.press(&(pane.index() + 1).to_string());
        all += &person.sees();
    }
    all
}

#[test]
fn a_moment_looks_the_same_however_the_tape_came_there() {
    let mut forwards = Person::new(RECORDING, SIZES[1]);
    let expected: Vec<_> = [5, 31, 62].map(|second| everything(&mut forwards, second)).into();
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);
    for worth in [Duration::ZERO, Duration::from_secs(3600)] {
        let mut back = Person::new(RECORDING, SIZES[1]);
        back.tape.keep_checkpoints_worth(worth);
        back.go(80);
        for (second, expected) in [62, 31, 5].into_iter().zip(expected.iter().rev()) {
            let seen = everything(&mut back, second);
            for (seen, expected) in seen.lines().zip(expected.lines()) {
                assert_eq!(seen, expected, "at {second} s, with checkpoints worth {worth:?}");
            }
            assert_eq!(seen.len(), expected.len());
        }
        assert!(everything(&mut back, 62) == expected[2], "forwards again");
    }
}

#[test]
fn the_end_of_a_recording_is_told_and_what_came_before_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = fs::read(RECORDING).expect("the recording");
    let cut = whole[..whole.len() / 2].to_vec();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2..whole.len() / 2 + 64].fill(0x55);
    for (name, bytes, wanted) in [
        ("whole", whole, "the end of the recording"),
        ("cut", cut, "cut off: its recorder was killed or is still at work"),
        ("damaged", damaged, "the recording is damaged from line "),
    ] {
        let path = directory.path().join(name);
        fs::write(&path, bytes).expect("written");
        let mut person = Person::new(path.to_str().expect("UTF-8"), SIZES[0]);
        person.go(1000);
        let ending = person.tape.ending().expect("it has ended").to_owned();
        assert!(ending.contains(wanted), "{name}: {ending}");
        person.state.view.playback = Some(Playback {
            speed: 1.0,
            paused: false,
            started: person.tape.started(),
            ended: Some(person.tape.now()),
            ending: Some(ending),
            is_complete: person.tape.is_complete(),
            seeking: false,
        });
        let seen = person.sees();
        assert!(seen.contains(wanted) && seen.contains("leaks"), "{name}: {seen}");
        assert!(seen.contains("demo-leaky"), "{name}: {seen}");
        person.go(10);
        assert!(person.tape.ending().is_none() && person.sees().contains("for 10 s"), "{}", person.sees());
    }
}

#[test]
fn a_name_of_a_strangers_is_shown_and_drives_no_terminal() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = zstd::decode_all(&*fs::read(RECORDING).expect("the recording")).expect("compressed");
    let whole = String::from_utf8(whole).expect("text");
    assert!(whole.contains(r#""demo-leaky""#));
    let path = directory.path().join("hostile.jsonl");
    fs::write(&path, whole.replace(r#""demo-leaky""#, r#""\u001b[2J\u0007\nevil""#)).expect("written");
    let mut person = Person::new(path.to_str().expect("UTF-8"), SIZES[2]);
    let seen = everything(&mut person, 75);
    assert!(seen.contains(r"\x1b[2J\x07\x0aevil"), "{seen}");
    assert!(!seen.contains(|c: char| c.is_control() && c != '\n'), "{seen:?}");
    person.press("2\r");
    assert!(person.sees().contains(r"\x1b[2J\x07\x0aevil"), "{}", person.sees());
}
