//! The life of one connection: its states, how long each lasted, how it went on.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use crate::net::State as TcpState;
use crate::outcome::{Dwell, Evidence, Owner, Phase};
use crate::tui::history::Step;
use crate::tui::lanes;
use crate::tui::look::Look;
use crate::tui::text;
use crate::tui::theme::Theme;
use crate::tui::view::{Timeline, View};
use crate::views::transitions;

/// Bars are drawn on a logarithmic scale from a microsecond to an hour: a life has states of both kinds.
const SHORTEST_NS: f64 = 1e3;
const LONGEST_NS: f64 = 3.6e12;
const MOST_BAR: usize = 40;

/// Its lines.
#[must_use]
pub fn lines(view: &View, conn: u64, width: u16, look: &Look) -> Vec<Line<'static>> {
    let theme = look.theme;
    let Some(timeline) = view.timeline.as_ref().filter(|timeline| timeline.conn == conn) else {
        return vec![Line::raw(format!("connection {conn} …"))];
    };
    let mut lines = head(timeline, width, theme);
    let Some(past) = &timeline.past else {
        lines.extend(text::paragraph(
            "How it came here was not seen, or is not remembered any more.",
            width.into(),
            theme.faint(),
            theme,
        ));
        lines.extend(present(timeline, view, look, width));
        return lines;
    };
    if past.dropped > 0 {
        lines.push(Line::styled(
            format!("({} earlier steps are not remembered)", past.dropped),
            theme.faint(),
        ));
    }
    lines.push(title(theme));
    let states = past.steps().filter(|step| step.from != TcpState::Close && step.from != TcpState::Listen);
    lines.extend(states.map(|step| ended(step, view, look, width)));
    lines.extend(present(timeline, view, look, width));
    if timeline.open.is_none()
        && let Some(last) = past.steps().next_back()
        && last.to == TcpState::Close
    {
        lines.push(Line::raw(""));
        lines.push(Line::raw(format!("It was over at {}.", look.precise(view, last.at))));
    }
    lines
}

fn head(timeline: &Timeline, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut line = |text: String, style: Style| {
        lines.extend(text::paragraph(&text, width.into(), style, theme));
    };
    if let Some(flow) = &timeline.flow {
        let (local, remote) =
            (transitions::endpoint(flow.local_addr()), transitions::endpoint(flow.remote_addr()));
        line(format!("Connection {}: {local} → {remote}", timeline.conn), theme.heading());
        line(format!("in network namespace {}", flow.netns), theme.faint());
    }
    let owner =
        timeline.open.and_then(|open| open.owner).or(timeline.past.as_ref().and_then(|past| past.owner));
    line(owner.as_ref().map_or_else(|| "Whose it is is not known.".to_owned(), whose), Style::new());
    lines.push(Line::raw(""));
    lines
}

fn whose(owner: &Owner) -> String {
    let how = match owner.evidence {
        Evidence::Close => "it closed, or shut down, the socket",
        Evidence::Connect => "it called connect()",
        Evidence::Fd => "it was found holding the descriptor",
        Evidence::Listen => "it listens on the port that accepted the connection",
    };
    format!("Of {}[{}]: {how}.", owner.comm, owner.pid)
}

const STATE: usize = 21;
const LASTED: usize = 11;

fn title(theme: Theme) -> Line<'static> {
    Line::styled(format!("{:<12}  {:<STATE$}  {:>LASTED$}", "SINCE", "STATE", "LASTED"), theme.heading())
}

/// A state that is over.
fn ended(step: &Step, view: &View, look: &Look, width: u16) -> Line<'static> {
    let began =
        step.dwell.filter(|dwell| !dwell.is_lower_bound).map(|dwell| step.at.saturating_sub(dwell.ns));
    let began = began.map_or_else(|| "?".to_owned(), |at| look.precise(view, at));
    let mut note = step.end.map_or("", transitions::ending).to_owned();
    if step.rearmed > 0 {
        note += &format!(" re-armed {}×", step.rearmed);
    }
    row(&began, (step.from, step.phase), step.dwell, &note, (look.theme, width))
}

/// The state that it is in.
fn present(timeline: &Timeline, view: &View, look: &Look, width: u16) -> Option<Line<'static>> {
    let open = timeline.open.as_ref()?;
    let dwell =
        Dwell { ns: view.now().saturating_sub(open.since), is_lower_bound: open.since_is_lower_bound };
    let began = if open.since_is_lower_bound { "?".to_owned() } else { look.precise(view, open.since) };
    Some(row(&began, (open.state, open.phase), Some(dwell), "now", (look.theme, width)))
}

fn row(
    began: &str,
    (state, phase): (TcpState, Option<Phase>),
    dwell: Option<Dwell>,
    note: &str,
    (theme, width): (Theme, u16),
) -> Line<'static> {
    let lasted = theme.shown(&transitions::dwell(dwell));
    let room = usize::from(width).saturating_sub(12 + STATE + LASTED + 8 + 14).min(MOST_BAR);
    let bar = dwell.map_or_else(String::new, |dwell| bar(dwell.ns, room, theme));
    let name = lanes::name((state, phase));
    Line::from(vec![
        Span::raw(format!("{began:<12}  ")),
        Span::styled(format!("{name:<STATE$}"), theme.state(state)),
        Span::raw(format!("  {lasted:>LASTED$}  ")),
        Span::styled(format!("{bar:<room$}"), theme.state(state)),
        Span::raw(format!("  {}", theme.shown(note))),
    ])
}

fn bar(ns: u64, room: usize, theme: Theme) -> String {
    let share = (ns as f64 / SHORTEST_NS).max(1.0).ln() / (LONGEST_NS / SHORTEST_NS).ln();
    let columns = ((share.min(1.0) * room as f64).round() as usize).max(1);
    if theme.ascii { "#" } else { "█" }.repeat(columns.min(room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::Palette;

    #[test]
    fn bars_grow_with_the_logarithm() {
        let theme = Theme { palette: Palette::Plain, ascii: true };
        assert_eq!(bar(10, 40, theme), "#");
        assert_eq!(bar(u64::MAX, 40, theme).len(), 40);
        assert!(bar(1_000_000, 40, theme).len() < bar(1_000_000_000, 40, theme).len());
        assert_eq!(bar(5, 0, theme), "");
    }
}
