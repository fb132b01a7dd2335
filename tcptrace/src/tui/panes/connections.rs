//! What is open now.

use std::borrow::Cow;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::outcome::Open;
use crate::snapshot::Age;
use crate::tui::lanes;
use crate::tui::list::{List, RowKey};
use crate::tui::look::Look;
use crate::tui::query::{ConnectionOrder, Searchable as _};
use crate::tui::state::{Drawn, State};
use crate::tui::table::{Cell, Column, cell, figure, plain, words};
use crate::tui::theme::Theme;
use crate::tui::view::View;
use crate::views::human;
use crate::views::transitions;

use super::{list, say};

/// Orders of the list; see [`ConnectionOrder`].
pub const ORDERS: [&str; ConnectionOrder::ALL.len()] =
    ["state", "age", "process", "local address", "remote address", "unread bytes"];

/// The rows in order. The collector has searched and sorted already; while the view stands still it is for us.
#[must_use]
pub fn rows<'v>(view: &'v View, list: &List) -> Cow<'v, [Open]> {
    let order = ConnectionOrder::ALL[list.order % ORDERS.len()];
    let compare = |a: &Open, b: &Open| {
        let ordering = order.compare(a, b);
        if list.reverse { ordering.reverse() } else { ordering }
    };
    let rows = &view.connections.rows;
    let is_done = rows.is_sorted_by(|a, b| compare(a, b).is_le())
        && (list.search.is_empty() || rows.iter().all(|open| open.contains(&list.search)));
    if is_done {
        return Cow::Borrowed(rows);
    }
    let mut rows: Vec<_> = rows.iter().filter(|open| open.contains(&list.search)).copied().collect();
    rows.sort_by(compare);
    Cow::Owned(rows)
}

/// Draws the pane.
pub fn draw(buf: &mut Buffer, area: Rect, state: &State, look: &Look, drawn: &mut Drawn) {
    let (view, theme) = (&state.view, look.theme);
    let mut rest = area;
    let rows = rows(view, state.list());
    let total = view.connections.total;
    let order = ORDERS[state.list().order % ORDERS.len()];
    let mut sentence = format!("{}, by {order}", human::counted(total, "connection"));
    if (rows.len() as u64) < total {
        sentence += &format!(
            "; the first {} are shown: search or filter for others",
            human::count(rows.len() as u64)
        );
    }
    say(buf, &mut rest, &sentence, theme.heading(), theme, 1);
    let first = rows.first().map(|open| open.flow.netns);
    let several = rows.iter().any(|open| Some(open.flow.netns) != first);
    let columns = columns(several);
    let keys: Vec<_> = rows.iter().map(|open| RowKey::Connection(open.conn)).collect();
    let cells = |row: usize| cells(&rows[row], view, several, theme);
    list(buf, rest, state, theme, (&columns, &keys), &cells, drawn);
}

fn columns(netns: bool) -> Vec<Column> {
    let mut columns = vec![
        words("STATE", 10, 21, 0),
        figure("FOR", 10, 0),
        words("PROCESS", 12, 24, 1),
        words("LOCAL", 15, 46, 2),
        words("REMOTE", 15, 46, 0),
        figure("UNREAD", 7, 4),
    ];
    if netns {
        columns.push(figure("NETNS", 10, 5));
    }
    columns
}

fn cells(open: &Open, view: &View, netns: bool, theme: Theme) -> Vec<Cell> {
    let age = Age { ns: view.now().saturating_sub(open.since), is_lower_bound: open.since_is_lower_bound };
    let mut cells = vec![
        cell(lanes::name((open.state, open.phase)), theme.state(open.state)),
        plain(human::age(age)),
        open.owner.as_ref().map_or_else(
            || cell("?", theme.faint()),
            |owner| cell(format!("{}[{}]", owner.comm, owner.pid), Style::new()),
        ),
        plain(transitions::endpoint(open.flow.local_addr())),
        plain(transitions::endpoint(open.flow.remote_addr())),
        open.unread.map_or_else(|| cell("-", theme.faint()), |unread| plain(human::count(unread.into()))),
    ];
    if netns {
        cells.push(plain(open.flow.netns.to_string()));
    }
    cells
}
