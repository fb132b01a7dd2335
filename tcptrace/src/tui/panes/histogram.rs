//! How long a state lasts, drawn: finished dwells solid, open ones in another shade.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::snapshot::StateReport;
use crate::tui::lanes::{self, Lane};
use crate::tui::text;
use crate::tui::theme::Theme;
use crate::views::histogram::{Bin, bars, bins, labels};
use crate::views::human;

/// Draws a title and a row for each bin, as many as there is room for.
pub fn draw(buf: &mut Buffer, area: Rect, lane: Lane, report: Option<&StateReport>, theme: Theme) {
    if area.height == 0 || area.width < 10 {
        return;
    }
    let room = usize::from(area.width);
    let (x, _) =
        buf.set_stringn(area.x, area.y, lanes::name(lane), room, theme.state(lane.0).patch(theme.heading()));
    let rows = usize::from(area.height - 1);
    let shows_open = report.is_some_and(StateReport::shows_open);
    let bins = report.map_or_else(Vec::new, |report| fitting(report, shows_open, rows));
    let left = (area.x + area.width).saturating_sub(x);
    let subtitle = match report {
        Some(report) => summary(report, shows_open, left.into()),
        None => " none seen".to_owned(),
    };
    let subtitle = text::cut(&theme.shown(&subtitle), left.into(), theme);
    buf.set_stringn(x, area.y, subtitle, left.into(), theme.faint());
    let labels: Vec<_> = labels(&bins).iter().map(|label| theme.shown(label)).collect();
    let label_width = labels.iter().map(|label| text::width(label)).max().unwrap_or(0);
    let counts: Vec<_> = bins.iter().map(|bin| human::count(bin.finished + bin.open)).collect();
    let count_width = counts.iter().map(String::len).max().unwrap_or(0);
    let bar_width = room.saturating_sub(label_width + count_width + 3);
    let most = bins.iter().map(|bin| bin.finished + bin.open).max().unwrap_or(0);
    for (index, ((bin, label), count)) in bins.iter().zip(&labels).zip(&counts).enumerate() {
        let y = area.y + 1 + index as u16;
        let text = format!(" {label:>label_width$} {count:>count_width$} ");
        let (x, _) = buf.set_stringn(area.x, y, text, room, ratatui::style::Style::new());
        let left = usize::from((area.x + area.width).saturating_sub(x));
        let (solid, hollow) = bars(bin, most, bar_width, theme.ascii);
        buf.set_stringn(x, y, solid + &hollow, left, theme.state(lane.0));
    }
}

/// More rows than this say no more.
pub const MOST_ROWS: usize = 14;

/// As many bins as fit, with neighbours put together where there are more: nothing is left out, least of all
/// what lasts longest.
fn fitting(report: &StateReport, shows_open: bool, rows: usize) -> Vec<Bin> {
    let rows = rows.min(MOST_ROWS);
    let mut bins = bins(&report.finished, shows_open.then_some(&report.open), rows.max(1));
    while bins.len() > rows {
        let pairs = bins.windows(2).enumerate();
        let Some((at, _)) = pairs.min_by_key(|(_, pair)| loss_of_joining(pair)) else { break };
        let second = bins.remove(at + 1);
        let first = &mut bins[at];
        first.to_ns = second.to_ns;
        first.finished += second.finished;
        first.open += second.open;
    }
    bins
}

/// What is empty, what is over and what is open stay apart for as long as possible.
fn loss_of_joining(pair: &[Bin]) -> (bool, u64) {
    let nature = |bin: &Bin| (bin.finished > 0, bin.open > 0);
    let differ = pair.windows(2).any(|pair| nature(&pair[0]) != nature(&pair[1]));
    (differ, pair.iter().map(|bin| bin.finished + bin.open).sum())
}

/// ` 1,204 ended, ░ 31 open`, or less where that has no room.
fn summary(report: &StateReport, shows_open: bool, room: usize) -> String {
    let mark = if shows_open { "░ " } else { "" };
    let ended = human::count(report.finished.count);
    if report.open.count == 0 {
        return format!("  {ended} ended");
    }
    let open = human::count(report.open.count);
    let text = format!("  {ended} ended, {mark}{open} open");
    if text::width(&text) <= room { text } else { format!("  {ended}, {mark}{open} open") }
}
