//! The cursor in a list whose rows come, go and change places.

use crate::leaks::Kind;
use crate::outcome::ConnId;
use crate::snapshot::Destination;

/// What a row is about, so that the cursor stays on it wherever it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKey {
    /// What a process leaks; or, without one, what nobody is known to hold, by what is wrong with it.
    Leak(Option<u32>, Option<Kind>),
    /// Where to.
    Destination(Destination),
    /// A connection.
    Connection(ConnId),
    /// An event, by its number.
    Event(u64),
    /// A sysctl.
    Sysctl(&'static str),
}

/// Cursor, order and search of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The row under the cursor.
    key: Option<RowKey>,
    /// Where it was, for when it is gone.
    index: usize,
    /// Stays at the end as rows are added there.
    pub follows: bool,
    /// Which of the pane's orders.
    pub order: usize,
    /// The other way round.
    pub reverse: bool,
    /// What rows must contain; in lower case.
    pub search: String,
}

impl List {
    /// A list that stays at its end.
    #[must_use]
    pub fn following() -> Self {
        Self { follows: true, ..Self::default() }
    }

    /// Where the cursor stands; `None` in an empty list.
    #[must_use]
    pub fn position(&self, keys: &[RowKey]) -> Option<usize> {
        let last = keys.len().checked_sub(1)?;
        if self.follows {
            return Some(last);
        }
        let found = self.key.and_then(|key| keys.iter().position(|&other| other == key));
        Some(found.unwrap_or(self.index.min(last)))
    }

    /// The row under the cursor.
    #[must_use]
    pub fn selected(&self, keys: &[RowKey]) -> Option<RowKey> {
        self.position(keys).map(|position| keys[position])
    }

    /// Puts the cursor on a row, or as near to it as there are rows.
    pub fn go(&mut self, keys: &[RowKey], position: usize) {
        let position = position.min(keys.len().saturating_sub(1));
        self.index = position;
        self.key = keys.get(position).copied();
        self.follows = false;
    }

    /// Moves the cursor.
    pub fn step(&mut self, keys: &[RowKey], by: isize) {
        if let Some(position) = self.position(keys) {
            self.go(keys, position.saturating_add_signed(by));
        }
    }

    /// Back to the first row, in whatever order: that of the cursor means nothing any more.
    pub fn rewind(&mut self) {
        self.key = None;
        self.index = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(numbers: &[u64]) -> Vec<RowKey> {
        numbers.iter().copied().map(RowKey::Connection).collect()
    }

    #[test]
    fn the_cursor_stays_on_its_row() {
        let mut list = List::default();
        list.step(&keys(&[1, 2, 3]), 1);
        assert_eq!(list.position(&keys(&[9, 8, 2, 1])), Some(2));
        assert_eq!(list.position(&keys(&[7, 6, 5])), Some(1), "it is gone: where it was");
        assert_eq!(list.position(&[]), None);
        list.step(&keys(&[1, 2, 3]), -5);
        assert_eq!(list.selected(&keys(&[1, 2, 3])), Some(RowKey::Connection(1)));
        list.step(&keys(&[1, 2, 3]), 50);
        assert_eq!(list.selected(&keys(&[1, 2, 3])), Some(RowKey::Connection(3)));
    }

    #[test]
    fn a_stream_is_followed_until_the_cursor_moves() {
        let mut list = List::following();
        assert_eq!(list.position(&keys(&[1, 2])), Some(1));
        assert_eq!(list.position(&keys(&[1, 2, 3])), Some(2));
        list.step(&keys(&[1, 2, 3]), -1);
        assert_eq!(list.position(&keys(&[1, 2, 3, 4])), Some(1));
    }
}
