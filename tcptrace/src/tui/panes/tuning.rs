//! Sysctls: their values, what they really do, what was measured.

use std::collections::BTreeSet;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;

use crate::facts::{FACTS, Fact, fact, measured};
use crate::tui::list::{List, RowKey};
use crate::tui::look::Look;
use crate::tui::state::{Drawn, State};
use crate::tui::table::{Cell, Column, cell, plain, words};
use crate::tui::text;
use crate::tui::view::View;

use super::{lines, list, say, with_details};

const COLUMNS: [Column; 4] = [
    words("SYSCTL", 23, 35, 0),
    words("VALUE", 11, 18, 0),
    words("WHAT IT DOES", 42, 42, 0),
    words("MEASURED", 30, 60, 1),
];

/// Wider sentences are hard to read.
const TEXT: u16 = 120;

/// Those that are there; and those that are not, where people still set them.
#[must_use]
pub fn rows(view: &View, list: &List) -> Vec<&'static Fact> {
    let is_shown = |fact: &&Fact| {
        let text = format!("{} {}", fact.name, fact.does).to_lowercase();
        list.search.split_whitespace().all(|word| text.contains(word))
    };
    let mut rows: Vec<_> = FACTS.iter().filter(is_shown).collect();
    // In the order of interest; what this kernel does not have stands at the end.
    rows.sort_by_key(|fact| values(view, fact.name).is_empty());
    if list.reverse {
        rows.reverse();
    }
    rows
}

/// The values in the namespaces that were looked at, each once.
fn values<'v>(view: &'v View, name: &str) -> BTreeSet<&'v str> {
    let sysctls = view.snapshot.meta.sysctls.iter();
    sysctls.filter_map(|sysctls| sysctls.values.get(name)).map(String::as_str).collect()
}

/// The value, or values where namespaces differ; `None` where there is none.
#[must_use]
pub fn value(view: &View, name: &str) -> Option<String> {
    let values: Vec<_> =
        values(view, name).into_iter().map(|value| crate::text::escape(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(" or "))
}

/// Draws the pane.
pub fn draw(buf: &mut Buffer, area: Rect, state: &State, look: &Look, drawn: &mut Drawn) {
    let (view, theme) = (&state.view, look.theme);
    let mut rest = area;
    let namespaces = view.snapshot.meta.sysctls.len();
    let of = match (namespaces, view.snapshot.meta.sysctls.first().and_then(|sysctls| sysctls.netns)) {
        (0, _) => "values are not known".to_owned(),
        (1, Some(netns)) => format!("values of network namespace {netns}"),
        (n, _) => format!("values of {n} network namespaces"),
    };
    let sentence = format!("What each does to closing connections; {of}");
    say(buf, &mut rest, &sentence, theme.heading(), theme, 1);
    let facts = rows(view, state.list());
    let keys: Vec<_> = facts.iter().map(|fact| RowKey::Sysctl(fact.name)).collect();
    let cells = |row: usize| cells(facts[row], view, look);
    let (place, below) = with_details(rest, keys.len());
    list(buf, place, state, theme, (&COLUMNS, &keys), &cells, drawn);
    if let (Some(below), Some(row)) = (below, state.list().position(&keys)) {
        let details = details(view, facts[row].name, below.width.min(TEXT), look);
        lines(buf, below, &details, theme);
    }
}

fn cells(fact: &Fact, view: &View, look: &Look) -> Vec<Cell> {
    let theme = look.theme;
    let short = fact.name.strip_prefix("net.ipv4.").unwrap_or(fact.name);
    let short = short.strip_prefix("net.netfilter.").unwrap_or(short);
    let short = short.strip_prefix("net.core.").unwrap_or(short);
    let value = value(view, fact.name);
    let style = if value.is_none() { theme.faint() } else { Style::new() };
    vec![
        cell(short, style),
        value.map_or_else(|| cell("-", theme.faint()), |value| cell(value, theme.heading())),
        cell(fact.does, style),
        measured(fact.name, &view.snapshot).map_or_else(Vec::new, plain),
    ]
}

/// All about one of them.
#[must_use]
pub fn details(view: &View, name: &str, width: u16, look: &Look) -> Vec<Line<'static>> {
    let (theme, room) = (look.theme, width.into());
    let Some(fact) = fact(name) else { return Vec::new() };
    let value = value(view, name)
        .unwrap_or_else(|| "this kernel has none, or it is not seen from this network namespace".to_owned());
    let mut lines =
        vec![Line::styled(theme.shown(&format!("{name} = {value}")), theme.heading()), Line::raw("")];
    let mut paragraph = |text: &str, style: Style| {
        if !text.is_empty() {
            lines.extend(text::paragraph(text, room, style, theme));
            lines.push(Line::raw(""));
        }
    };
    paragraph(fact.truth, Style::new());
    let default = fact.default(None).filter(|default| !default.is_empty());
    paragraph(
        &default.map_or_else(String::new, |default| format!("The kernel sets it to: {default}.")),
        theme.faint(),
    );
    let measured = measured(name, &view.snapshot);
    paragraph(&measured.map_or_else(String::new, |text| format!("Measured here: {text}.")), theme.good());
    let said =
        if fact.folklore.is_empty() { String::new() } else { format!("Said of it: {}", fact.folklore) };
    paragraph(&said, theme.warning());
    paragraph(
        &format!("tcptrace experiment --sandbox --set {name}=VALUE measures what another value does."),
        theme.faint(),
    );
    lines
}
