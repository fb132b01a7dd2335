//! One file for each pane: functions of the view and the state that draw into a buffer.

mod histogram;
pub mod overview;

use super::list::RowKey;
use super::query::Pane;
use super::state::State;

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
