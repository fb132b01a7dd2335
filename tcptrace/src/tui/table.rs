//! A list in columns: only the rows that are seen are made, columns fit themselves to the width.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::text;
use super::theme::Theme;

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its title.
    pub title: &'static str,
    /// Columns that it needs.
    pub width: u16,
    /// Columns that it takes where there are some left; 0 for no more than `width`.
    pub most: u16,
    /// Figures stand to the right.
    pub right: bool,
    /// Left out first where there is no room; 0 for what always stands.
    pub drop: u8,
}

/// A figure, to the right.
#[must_use]
pub const fn figure(title: &'static str, width: u16, drop: u8) -> Column {
    Column { title, width, most: 0, right: true, drop }
}

/// A text, to the left.
#[must_use]
pub const fn words(title: &'static str, width: u16, most: u16, drop: u8) -> Column {
    Column { title, width, most, right: false, drop }
}

/// Blank columns between two.
const GAP: u16 = 2;

/// A cell: pieces of text in their styles.
pub type Cell = Vec<(String, Style)>;

/// A cell in one style.
#[must_use]
pub fn cell(text: impl Into<String>, style: Style) -> Cell {
    vec![(text.into(), style)]
}

/// A cell without style.
#[must_use]
pub fn plain(text: impl Into<String>) -> Cell {
    cell(text, Style::new())
}

/// The rows of a table.
pub struct Rows<'a> {
    /// How many.
    pub count: usize,
    /// Makes one: a cell for each column.
    pub cells: &'a dyn Fn(usize) -> Vec<Cell>,
    /// The one under the cursor.
    pub cursor: Option<usize>,
    /// The first one that was seen before.
    pub top: usize,
}

/// What came of drawing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Where the rows are.
    pub rows: Rect,
    /// The first of them.
    pub top: usize,
}

/// Draws a table with its header.
pub fn draw(buf: &mut Buffer, area: Rect, columns: &[Column], rows: &Rows<'_>, theme: Theme) -> Placed {
    let [header, body] = split(area);
    let height = usize::from(body.height);
    let top = window(rows.top, rows.cursor, rows.count, height);
    let seen: Vec<_> = (top..rows.count.min(top + height)).map(|row| (row, (rows.cells)(row))).collect();
    let widest = |index: usize| {
        let cells = seen.iter().filter_map(|(_, cells)| cells.get(index));
        cells.map(|cell| cell_width(cell, theme)).max().unwrap_or(0)
    };
    let wanted: Vec<_> = (0..columns.len()).map(widest).collect();
    let fitted = fit(columns, &wanted, area.width);
    for &(index, x, width) in &fitted {
        let column = &columns[index];
        let cell = cell(column.title, theme.heading());
        put(buf, Rect { x: header.x + x, width, ..header }, column.right, &cell, theme);
    }
    for (line, (row, cells)) in seen.iter().enumerate() {
        // `line` is below `height`, a u16.
        let place = Rect { y: body.y + line as u16, height: 1, ..body };
        for &(index, x, width) in &fitted {
            if let Some(cell) = cells.get(index) {
                put(buf, Rect { x: place.x + x, width, ..place }, columns[index].right, cell, theme);
            }
        }
        if rows.cursor == Some(*row) {
            buf.set_style(place, theme.selected());
        }
    }
    Placed { rows: body, top }
}

fn split(area: Rect) -> [Rect; 2] {
    let header = Rect { height: area.height.min(1), ..area };
    [header, Rect { y: area.y + header.height, height: area.height - header.height, ..area }]
}

/// The first row that is seen: where it was, unless the cursor would be out of sight.
fn window(top: usize, cursor: Option<usize>, count: usize, height: usize) -> usize {
    let top = match cursor {
        Some(cursor) if cursor < top => cursor,
        Some(cursor) if cursor >= top + height => cursor + 1 - height.max(1),
        _ => top,
    };
    top.min(count.saturating_sub(height))
}

/// Index, offset and width of the columns that fit. What there is to show (`wanted`, columns of text) has room
/// before anything else.
fn fit(columns: &[Column], wanted: &[usize], room: u16) -> Vec<(usize, u16, u16)> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let needed = |shown: &[usize]| -> u32 {
        let gaps = u32::from(GAP) * shown.len().saturating_sub(1) as u32;
        shown.iter().map(|&index| u32::from(columns[index].width)).sum::<u32>() + gaps
    };
    while needed(&shown) > u32::from(room) {
        // The last of those that are dropped first.
        let Some(&victim) = shown.iter().rev().max_by_key(|&&index| columns[index].drop) else { break };
        if columns[victim].drop == 0 {
            break;
        }
        shown.retain(|&index| index != victim);
    }
    let mut left = u32::from(room).saturating_sub(needed(&shown)) as u16;
    let mut widths: Vec<u16> = shown.iter().map(|&index| columns[index].width).collect();
    let full = |index: usize| columns[index].most;
    grow(&mut widths, &shown, &mut left, |index| {
        full(index).min(u16::try_from(wanted[index]).unwrap_or(u16::MAX))
    });
    grow(&mut widths, &shown, &mut left, full);
    let mut x = 0;
    shown
        .into_iter()
        .zip(widths)
        .filter_map(|(index, width)| {
            let (at, width) = (x, width.min(room.saturating_sub(x)));
            x = x.saturating_add(width).saturating_add(GAP);
            (width > 0).then_some((index, at, width))
        })
        .collect()
}

/// Makes columns wider, each by one in turn, so that all that may grow do.
fn grow(widths: &mut [u16], shown: &[usize], left: &mut u16, most: impl Fn(usize) -> u16) {
    let mut grew = true;
    while grew {
        grew = false;
        for (width, &index) in widths.iter_mut().zip(shown) {
            if *left > 0 && *width < most(index) {
                *width += 1;
                *left -= 1;
                grew = true;
            }
        }
    }
}

fn cell_width(cell: &Cell, theme: Theme) -> usize {
    cell.iter().map(|(text, _)| text::width(&theme.shown(text))).sum()
}

/// Puts a cell into its place, cut where it does not fit.
fn put(buf: &mut Buffer, area: Rect, right: bool, cell: &Cell, theme: Theme) {
    if area.height == 0 {
        return;
    }
    let room = usize::from(area.width);
    let taken = cell_width(cell, theme);
    let mut x = area.x + if right { room.saturating_sub(taken) as u16 } else { 0 };
    for (text, style) in cell {
        let left = usize::from((area.x + area.width).saturating_sub(x));
        let shown = text::cut(&theme.shown(text), left, theme);
        (x, _) = buf.set_stringn(x, area.y, shown, left, *style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::theme::Palette;

    const THEME: Theme = Theme { palette: Palette::Plain, ascii: false };
    const COLUMNS: [Column; 3] = [words("NAME", 6, 12, 0), figure("COUNT", 5, 0), words("WHY", 4, 40, 1)];

    fn shown(width: u16, height: u16, cursor: Option<usize>) -> Vec<String> {
        let area = Rect::new(0, 0, width, height);
        let mut buf = Buffer::empty(area);
        let cells =
            |row: usize| vec![plain(format!("row {row} of many")), plain(row.to_string()), plain("x")];
        let rows = Rows { count: 10, cells: &cells, cursor, top: 0 };
        draw(&mut buf, area, &COLUMNS, &rows, THEME);
        (0..height)
            .map(|y| {
                let line: String = (0..width).map(|x| buf[(x, y)].symbol()).collect();
                line.trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn columns_grow_and_go() {
        assert_eq!(shown(24, 2, None), ["NAME         COUNT  WHY", "row 0 of m…      0  x"]);
        assert_eq!(shown(14, 2, None), ["NAME     COUNT", "row 0 …      0"]);
        assert_eq!(shown(3, 2, None), ["NA…", "ro…"]);
        assert_eq!(shown(0, 0, None), [""; 0]);
    }

    #[test]
    fn the_cursor_is_always_seen() {
        assert_eq!(shown(14, 3, Some(9))[2], "row 9 …      9");
        assert_eq!(window(5, Some(2), 10, 3), 2);
        assert_eq!(window(0, Some(5), 10, 3), 3);
        assert_eq!(window(8, None, 4, 3), 1);
        assert_eq!(window(0, Some(0), 1, 0), 0);
    }
}
