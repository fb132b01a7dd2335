//! A set of TCP states.

use std::fmt;

use crate::net::State;

/// A set of TCP states: bit = state number. By default every state.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StateSet(u16);

impl StateSet {
    /// Every state, 1 to 12.
    pub const ALL: Self = Self(0b1_1111_1111_1110);
    /// No state.
    pub const NONE: Self = Self(0);

    /// A set with one member.
    #[must_use]
    pub const fn only(state: State) -> Self {
        Self(1 << state.number())
    }

    /// Is it a member?
    #[must_use]
    pub const fn contains(self, state: State) -> bool {
        self.0 & Self::only(state).0 != 0
    }

    /// The members of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The members of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// True without members.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, by number.
    pub fn iter(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |&state| self.contains(state))
    }

    /// As the BPF programs take it: bit = state number.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

impl Default for StateSet {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromIterator<State> for StateSet {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> Self {
        states.into_iter().fold(Self::NONE, |set, state| set.or(Self::only(state)))
    }
}

impl fmt::Debug for StateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
