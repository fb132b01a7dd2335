//! The full screen in a real terminal: how it takes it over, uses it, and gives it back, whatever happens. What it
//! shows is a recording, so that nothing of this needs privileges.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Result, ensure};
use jiff::tz::TimeZone;
use rustix::process::Signal;
use tcptrace::tui::files;
use tcptrace::tui::look::Look;
use tcptrace::tui::screen::Handle;
use tcptrace::tui::theme::{Palette, Theme};
use tcptrace::tui::view::View;
use tests::binary;
use tests::clock::{now_ns, sleep_ms, wait_until};
use tests::terminal::{LIMIT, Terminal, exit_code};

const RECORDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tcptrace/tests/recordings/demo.jsonl.zst");
const LEAK: &str = "demo-leaky[21253] leaks";
const TOO_SMALL: &str = "too small";

fn watch(vars: &[(&str, &str)], size: (u16, u16)) -> Result<Terminal> {
    Terminal::start(binary::path(), &["watch", "--from", RECORDING, "--speed", "32"], vars, size)
}

fn quits(mut terminal: Terminal, keys: &str) -> Result<()> {
    terminal.keys(keys)?;
    let status = terminal.ended()?;
    ensure!(exit_code(status) == Some(0), "{status}");
    terminal.is_as_before()?;
    // The summary is on the usual screen, where it stays.
    ensure!(terminal.text().contains(" connections"), "{}", terminal.text());
    Ok(())
}

#[test]
fn q_and_ctrl_c_leave_the_terminal_as_it_was() -> Result<()> {
    for keys in ["q", "\x03"] {
        let terminal = watch(&[], (80, 24))?;
        terminal.says(LEAK)?;
        ensure!(terminal.is_taken(), "{}", terminal.text());
        quits(terminal, keys)?;
    }
    Ok(())
}

#[test]
fn signals_leave_the_terminal_as_it_was() -> Result<()> {
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let mut terminal = watch(&[], (80, 24))?;
        terminal.says(LEAK)?;
        terminal.signal(signal)?;
        let status = terminal.ended()?;
        ensure!(exit_code(status) == Some(0), "{signal:?}: {status}");
        terminal.is_as_before()?;
    }
    Ok(())
}

/// A shell with job control, as people have one: it notices that the program was stopped.
#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_takes_it_again() -> Result<()> {
    let line = r#"set -m; "$0" watch --from "$1" --speed 32; echo "stopped with $?"; read answer; fg >/dev/null; echo over"#;
    let program = binary::path().to_str().expect("UTF-8");
    let mut terminal =
        Terminal::start(Path::new("/bin/bash"), &["-c", line, program, RECORDING], &[], (80, 24))?;
    terminal.says(LEAK)?;
    terminal.keys("\x1a")?;
    // 128 and SIGTSTP.
    terminal.says("stopped with 148")?;
    terminal.is_as_before()?;
    terminal.keys("\r")?;
    terminal.says(LEAK)?;
    ensure!(terminal.is_taken(), "{}", terminal.text());
    // From outside, where nobody asked the program first.
    terminal.keys("q")?;
    terminal.says("over")?;
    terminal.ended()?;
    terminal.is_as_before()
}

/// Not a test by itself: run by the next one, in a terminal.
#[test]
#[ignore = "panics in a terminal that another test makes for it"]
fn panics_with_the_screen_on() {
    let screen = tcptrace::tui::terminal::Screen::take().expect("a terminal");
    let screen = std::thread::spawn(move || {
        let _screen = screen;
        // Until the other side has seen that the screen was taken over.
        sleep_ms(500);
        panic!("the reason of the panic");
    });
    let _ = screen.join();
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_says_why() -> Result<()> {
    let own = std::env::current_exe()?;
    let args = ["--ignored", "--exact", "--nocapture", "panics_with_the_screen_on"];
    let mut terminal = Terminal::start(&own, &args, &[], (80, 24))?;
    terminal.shows("the alternate screen", |_| terminal.look(vt100::Screen::alternate_screen))?;
    terminal.ended()?;
    terminal.is_as_before()?;
    ensure!(terminal.text().contains("the reason of the panic"), "{}", terminal.text());
    Ok(())
}

/// Not a test by itself: run by the next one, in a terminal.
#[test]
#[ignore = "panics in a terminal that another test makes for it"]
fn another_thread_panics_under_the_screen() {
    let theme = Theme { palette: Palette::Plain, ascii: true };
    let maker = files::maker().expect("a thread");
    let look = Look { theme, zone: TimeZone::UTC };
    let mut screen = Handle::start(look, Arc::default(), maker).expect("a terminal");
    let _ = std::thread::spawn(|| panic!("the reason of the panic")).join();
    let ended = || {
        screen.show(View::default());
        screen.has_ended()
    };
    wait_until("the end of the screen", LIMIT, ended).expect("nobody can see that it still runs");
    println!("the screen: {}", screen.end().expect_err("all is well"));
}

#[test]
fn a_panic_elsewhere_ends_the_screen() -> Result<()> {
    let own = std::env::current_exe()?;
    let args = ["--ignored", "--exact", "--nocapture", "another_thread_panics_under_the_screen"];
    let mut terminal = Terminal::start(&own, &args, &[], (80, 24))?;
    let status = terminal.ended()?;
    terminal.is_as_before()?;
    let said = terminal.text();
    ensure!(exit_code(status) == Some(0), "{status}\n{said}");
    ensure!(said.contains("the reason of the panic"), "{said}");
    ensure!(said.contains("the screen: a part of the program panicked"), "{said}");
    Ok(())
}

#[test]
fn windows_of_any_size() -> Result<()> {
    let mut terminal = watch(&[], (80, 24))?;
    terminal.says(LEAK)?;
    terminal.resize(39, 7)?;
    terminal.says(TOO_SMALL)?;
    terminal.resize(60, 14)?;
    terminal.shows("the reduced view", |text| text.contains("demo-leaky") && text.contains("CLOSE_WAIT"))?;
    terminal.resize(200, 60)?;
    terminal.shows("all states", |text| text.contains("LAST 5 MINUTES") && text.contains("SYN_RECV"))?;
    quits(terminal, "q")
}

#[test]
fn the_mouse_brings_panes_to_the_front_and_opens_rows() -> Result<()> {
    let mut terminal = watch(&[], (100, 24))?;
    let shown = terminal.says(LEAK)?;
    ensure!(
        terminal.look(vt100::Screen::mouse_protocol_mode) != vt100::MouseProtocolMode::None,
        "the mouse is not asked for"
    );
    let column = shown.lines().nth(1).and_then(|tabs| tabs.find("Connections")).expect("a tab") + 1;
    terminal.keys(&format!("\x1b[<0;{column};2M\x1b[<0;{column};2m"))?;
    // Columns are as wide as what stands in them.
    let has_rows = |text: &str| {
        text.contains("connections, by state")
            && text.lines().nth(4).is_some_and(|row| row.contains("demo-leaky[21253]"))
    };
    terminal.shows("connections", has_rows)?;
    // The first click selects, the second opens.
    terminal.keys("\x1b[<0;5;6M\x1b[<0;5;6m")?;
    terminal.keys("\x1b[<0;5;6M\x1b[<0;5;6m")?;
    terminal.says("in network namespace")?;
    quits(terminal, "q")
}

#[test]
fn a_recording_is_played_to_and_fro() -> Result<()> {
    let mut terminal = watch(&[], (100, 24))?;
    terminal.says("■ 1:24 of 1:24  ×32  the end of the recording")?;
    terminal.says(LEAK)?;
    terminal.keys("0p")?;
    terminal.says("‖ ")?;
    terminal.keys("0]]]")?;
    terminal.says("‖ 0:30 of 1:24")?;
    let at_30 = terminal.says("for 30 s")?;
    terminal.keys("{")?;
    terminal.says("‖ 0:00 of 1:24")?;
    terminal.keys("}[[[")?;
    terminal.says("‖ 0:30 of 1:24")?;
    let again = terminal.says("for 30 s")?;
    ensure!(at_30 == again, "{at_30}\n{again}");
    terminal.keys("-")?;
    terminal.says("×16")?;
    quits(terminal, "q")
}

#[test]
fn nothing_is_written_while_nothing_changes() -> Result<()> {
    let mut terminal = watch(&[], (80, 24))?;
    terminal.says("the end of the recording")?;
    sleep_ms(300);
    let (before, begun) = (terminal.bytes().len(), now_ns());
    sleep_ms(2_000);
    let seconds = (now_ns() - begun) as f64 / 1e9;
    let written = terminal.bytes().len() - before;
    ensure!((written as f64) < 100.0 * seconds, "{written} bytes in {seconds} s of standing still");
    // A key redraws what it changed, and not all of it.
    let before = terminal.bytes().len();
    terminal.keys("2")?;
    terminal.says("sockets leaked")?;
    let written = terminal.bytes().len() - before;
    ensure!(written < 80 * 24 * 2, "{written} bytes for one key");
    quits(terminal, "q")
}

#[test]
fn no_color_means_none() -> Result<()> {
    let colours = |terminal: &Terminal| {
        terminal.look(|screen| {
            let (rows, columns) = (screen.size().0.get(), screen.size().1.get());
            let cells =
                (0..rows).flat_map(|row| (0..columns).filter_map(move |column| screen.cell(row, column)));
            cells
                .filter(|cell| {
                    cell.fgcolor() != vt100::Color::Default || cell.bgcolor() != vt100::Color::Default
                })
                .count()
        })
    };
    let plain = watch(&[("NO_COLOR", "1")], (80, 24))?;
    plain.says(LEAK)?;
    ensure!(colours(&plain) == 0, "{} cells in colour", colours(&plain));
    quits(plain, "q")?;
    let coloured = watch(&[], (80, 24))?;
    coloured.says(LEAK)?;
    ensure!(colours(&coloured) > 50, "{} cells in colour", colours(&coloured));
    quits(coloured, "q")
}

#[test]
fn a_terminal_without_utf_8_gets_ascii() -> Result<()> {
    let terminal = watch(&[("LANG", "C")], (80, 24))?;
    terminal.says("demo-leaky[21253] leaks")?;
    ensure!(terminal.text().is_ascii(), "{}", terminal.text());
    quits(terminal, "q")
}

#[test]
fn without_a_terminal_that_can_there_are_lines_and_a_word_about_it() -> Result<()> {
    for term in ["dumb", ""] {
        let args = ["watch", "--state", "TIME_WAIT", "--from", RECORDING];
        let mut terminal = Terminal::start(binary::path(), &args, &[("TERM", term)], (100, 24))?;
        let status = terminal.ended()?;
        ensure!(exit_code(status) == Some(0), "{status}");
        let written = String::from_utf8(terminal.bytes())?;
        ensure!(written.contains("note: a line per transition, because TERM names no terminal"), "{written}");
        ensure!(
            term.is_empty() || !written.contains('\x1b'),
            "{:?}",
            written.lines().find(|line| line.contains('\x1b'))
        );
        ensure!(written.contains("FIN_WAIT2 half-closed"), "{:?}", written.lines().nth(9));
        terminal.is_as_before()?;
    }
    let output =
        Command::new(binary::path()).args(["watch", "--from", RECORDING]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(said.contains("because standard output is not a terminal"), "{said}");
    ensure!(output.stdout.split(|&byte| byte == b'\n').count() > 5_000);
    Ok(())
}

#[test]
fn lines_on_a_terminal_have_their_header_on_every_screenful() -> Result<()> {
    let args = ["watch", "--plain", "--state", "TIME_WAIT", "--from", RECORDING];
    let mut terminal = Terminal::start(binary::path(), &args, &[], (160, 24))?;
    let status = terminal.ended()?;
    ensure!(exit_code(status) == Some(0), "{status}");
    let written = String::from_utf8(terminal.bytes())?;
    let lines: Vec<_> = written.lines().collect();
    let headers = lines.iter().enumerate().filter(|(_, line)| line.contains("TRANSITION")).map(|(at, _)| at);
    let headers: Vec<_> = headers.collect();
    ensure!(headers.len() > 40 && headers.windows(2).all(|pair| pair[1] - pair[0] <= 24), "{headers:?}");
    ensure!(written.contains("\x1b["), "no colour on a terminal");
    Ok(())
}
