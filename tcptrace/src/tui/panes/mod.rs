//! One file for each pane: functions of the view and the state that draw into a buffer.

mod histogram;
pub mod overview;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::list::RowKey;
use super::look::Look;
use super::query::Pane;
use super::state::{Drawn, State};

/// The orders that a pane's list can have, in words.
#[must_use]
pub fn orders(_pane: Pane) -> &'static [&'static str] {
    &[]
}

/// The rows of the list in front, in order.
#[must_use]
pub fn keys(_state: &State) -> Vec<RowKey> {
    Vec::new()
}

/// Whose details Enter shows; a sentence where there are none.
///
/// # Errors
/// The sentence.
pub fn detail_of(_state: &State, key: RowKey) -> Result<RowKey, &'static str> {
    Ok(key)
}

/// Draws the pane in front, or what lies over it. `reduced` where there is less room than panes are laid out
/// for.
pub fn draw(buf: &mut Buffer, area: Rect, state: &State, look: &Look, _reduced: bool, _drawn: &mut Drawn) {
    overview::draw(buf, area, &state.view, look);
}
