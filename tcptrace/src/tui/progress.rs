//! The line that says where in a recording the screen is: time and length, speed, a bar to click on.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::event::MonoNs;

use super::text;
use super::theme::Theme;
use super::view::Playback;

/// A bar that is shorter says nothing.
const LEAST_BAR: u16 = 8;
/// A longer one says no more.
const MOST_BAR: u16 = 60;
const KEYS: &str = "[ ] 10 s   { } 1 min   - + speed   0 start";

/// Draws the line and says where its bar is.
pub fn draw(buf: &mut Buffer, area: Rect, playback: &Playback, now: MonoNs, theme: Theme) -> Rect {
    let at = now.saturating_sub(playback.started);
    let length = playback.ended.map(|ended| ended.saturating_sub(playback.started));
    let mark = mark(playback, theme.ascii);
    let of = length.map_or_else(|| "?".to_owned(), clock);
    let says = format!(
        "{mark} {} of {of}  {}{}  ",
        clock(at),
        if theme.ascii { "x" } else { "×" },
        speed(playback.speed)
    );
    let (x, _) = buf.set_stringn(area.x, area.y, &says, area.width.into(), theme.heading());
    let mut rest = Rect { x, width: area.right().saturating_sub(x), ..area };
    if let Some(ending) = &playback.ending {
        let style = if playback.is_complete { theme.heading() } else { theme.alarm() };
        let text = text::cut(&theme.shown(ending), rest.width.into(), theme);
        buf.set_stringn(rest.x, rest.y, text, rest.width.into(), style);
        return Rect::ZERO;
    }
    let keys = KEYS.len() as u16 + 2;
    if rest.width >= LEAST_BAR + keys {
        let x = area.right() - KEYS.len() as u16;
        buf.set_stringn(x, rest.y, KEYS, KEYS.len(), theme.faint());
        rest.width -= keys;
    }
    let Some(length) = length.filter(|_| rest.width >= LEAST_BAR) else { return Rect::ZERO };
    rest.width = rest.width.min(MOST_BAR);
    let done = (u128::from(at.min(length)) * u128::from(rest.width) / u128::from(length.max(1))) as usize;
    let (full, empty) = if theme.ascii { ("=", "-") } else { ("━", "─") };
    let (x, _) = buf.set_stringn(rest.x, rest.y, full.repeat(done), rest.width.into(), theme.key());
    let left = usize::from(rest.right().saturating_sub(x));
    buf.set_stringn(x, rest.y, empty.repeat(left), left, Style::new());
    rest
}

fn mark(playback: &Playback, ascii: bool) -> &'static str {
    match (playback, ascii) {
        (Playback { seeking: true, .. }, _) => "»",
        (Playback { ending: Some(_), .. }, false) => "■",
        (Playback { ending: Some(_), .. }, true) => "[]",
        (Playback { paused: true, .. }, false) => "‖",
        (Playback { paused: true, .. }, true) => "||",
        (_, false) => "▶",
        (_, true) => ">",
    }
}

/// A place in the recording: `0:07`, `12:31`, `1:02:03`.
fn clock(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// `10`, `0.5`.
fn speed(times: f64) -> String {
    // Rounded to what anybody would ask for.
    format!("{}", (times * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::Palette;

    const S: u64 = 1_000_000_000;
    const THEME: Theme = Theme { palette: Palette::Plain, ascii: false };

    fn shown(width: u16, at: u64, playback: &Playback) -> (String, Rect) {
        let area = Rect::new(0, 0, width, 1);
        let mut buf = Buffer::empty(area);
        let bar = draw(&mut buf, area, playback, 5 * S + at, THEME);
        let line: String = (0..width).map(|x| buf[(x, 0)].symbol()).collect();
        (line.trim_end().to_owned(), bar)
    }

    fn playback() -> Playback {
        Playback {
            speed: 10.0,
            paused: false,
            started: 5 * S,
            ended: Some(105 * S),
            ending: None,
            is_complete: true,
            seeking: false,
        }
    }

    #[test]
    fn time_length_speed_and_a_bar() {
        let (line, bar) = shown(40, 50 * S, &playback());
        assert_eq!(line, "▶ 0:50 of 1:40  ×10  ━━━━━━━━━──────────");
        assert_eq!(bar, Rect::new(21, 0, 19, 1));
        let unknown = Playback { ended: None, paused: true, speed: 0.5, ..playback() };
        assert_eq!(shown(40, 3_700 * S, &unknown), ("‖ 1:01:40 of ?  ×0.5".to_owned(), Rect::ZERO));
    }

    #[test]
    fn the_end_is_told_in_place_of_the_bar() {
        let over = Playback { ending: Some("the recording ends here".to_owned()), ..playback() };
        assert_eq!(shown(80, 100 * S, &over).0, "■ 1:40 of 1:40  ×10  the recording ends here");
        assert_eq!(shown(30, 100 * S, &over).0, "■ 1:40 of 1:40  ×10  the reco…");
    }
}
