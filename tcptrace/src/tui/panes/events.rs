//! What happened, newest last.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::net::State as TcpState;
use crate::outcome::{ConnId, End, Outcome, Transition};
use crate::tui::list::{List, RowKey};
use crate::tui::look::Look;
use crate::tui::query::{ROWS, Searchable as _};
use crate::tui::state::{Drawn, State};
use crate::tui::table::{Cell, Column, cell, figure, plain, words};
use crate::tui::view::{Seen, View};
use crate::views::{human, transitions};

use super::{list, say};

const COLUMNS: [Column; 8] = [
    words("TIME", 12, 0, 0),
    words("PROCESS", 12, 24, 1),
    words("LOCAL", 15, 46, 6),
    words("REMOTE", 15, 46, 2),
    words("FROM", 11, 21, 0),
    words("TO", 11, 21, 0),
    figure("LASTED", 9, 0),
    words("END", 9, 40, 4),
];

/// The rows in order. The collector has searched already; while the view stands still it is for us.
#[must_use]
pub fn rows<'v>(view: &'v View, list: &List) -> Cow<'v, [Seen]> {
    let rows = &view.events.rows;
    if list.search.is_empty() || rows.iter().all(|seen| seen.contains(&list.search)) {
        return Cow::Borrowed(rows);
    }
    Cow::Owned(rows.iter().filter(|seen| seen.contains(&list.search)).copied().collect())
}

/// The connection of an event; `None` where there was none.
#[must_use]
pub fn connection(view: &View, seq: u64) -> Option<ConnId> {
    let seen = view.events.rows.iter().find(|seen| seen.seq == seq)?;
    match &seen.outcome {
        Outcome::Transition(transition) => Some(transition.conn),
        Outcome::ConnectFailed { .. } => None,
    }
}

/// Draws the pane.
pub fn draw(buf: &mut Buffer, area: Rect, state: &State, look: &Look, drawn: &mut Drawn) {
    let (view, theme) = (&state.view, look.theme);
    let mut rest = area;
    let rows = rows(view, state.list());
    let rate = view.trends.per_second(5_000_000_000, |sample| sample.events);
    let rate = rate.map_or_else(String::new, |rate| format!(", {}/s now", crate::tui::text::rate(rate)));
    let shown = if rows.len() < ROWS {
        format!("{} that can be seen", human::counted(rows.len() as u64, "event"))
    } else {
        format!("the last {} events", human::count(ROWS as u64))
    };
    let follows = if state.list().follows { "new ones come at the end" } else { "G follows the end" };
    say(buf, &mut rest, &format!("{shown}{rate}; {follows}"), theme.heading(), theme, 1);
    let keys: Vec<_> = rows.iter().map(|seen| RowKey::Event(seen.seq)).collect();
    let cells = |row: usize| cells(&rows[row], view, look);
    list(buf, rest, state, theme, (&COLUMNS, &keys), &cells, drawn);
}

fn cells(seen: &Seen, view: &View, look: &Look) -> Vec<Cell> {
    match &seen.outcome {
        Outcome::Transition(transition) => transition_cells(transition, view, look),
        Outcome::ConnectFailed { at, flow, owner } => {
            let alarm = look.theme.alarm();
            vec![
                plain(look.precise(view, *at)),
                plain(
                    owner
                        .as_ref()
                        .map_or_else(|| "?".to_owned(), |owner| format!("{}[{}]", owner.comm, owner.pid)),
                ),
                plain(transitions::endpoint(flow.local_addr())),
                plain(transitions::endpoint(flow.remote_addr())),
                cell("connect()", alarm),
                cell("failed", alarm),
                plain("-"),
                cell("no local port, or no route", alarm),
            ]
        }
    }
}

fn transition_cells(transition: &Transition, view: &View, look: &Look) -> Vec<Cell> {
    let theme = look.theme;
    let is_alarm = matches!(transition.end, Some(End::Reset | End::Destroyed | End::Overflow));
    let owner = transition.owner.as_ref();
    let dwell = if matches!(transition.from, TcpState::Close | TcpState::Listen) {
        "-".to_owned()
    } else {
        transitions::dwell(transition.dwell)
    };
    vec![
        plain(look.precise(view, transition.at)),
        owner.map_or_else(
            || cell("?", theme.faint()),
            |owner| plain(format!("{}[{}]", owner.comm, owner.pid)),
        ),
        plain(transitions::endpoint(transition.flow.local_addr())),
        plain(transitions::endpoint(transition.flow.remote_addr())),
        cell(transitions::state(transition.from, transition.phase), theme.state(transition.from)),
        cell(transitions::state(transition.to, transition.to_phase), theme.state(transition.to)),
        plain(dwell),
        cell(transitions::end(transition), if is_alarm { theme.alarm() } else { Style::new() }),
    ]
}
