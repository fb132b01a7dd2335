//! A set of TCP states, as `sock_diag` and the BPF programs take it.

use std::fmt;

use crate::net::State;

/// A set of states: bit = the kernel's state number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateSet(u16);

impl StateSet {
    /// No state.
    pub const EMPTY: Self = Self(0);
    /// Every state, 1 to 12.
    pub const ALL: Self = Self(0x1ffe);
    /// The states for whose age `tcp_info` gives a lower bound: CLOSE_WAIT and FIN_WAIT2.
    pub const AGED_BY_TCP_INFO: Self = Self::EMPTY.with(State::CloseWait).with(State::FinWait2);

    /// The set and `state`.
    #[must_use]
    pub const fn with(self, state: State) -> Self {
        Self(self.0 | 1 << state.number())
    }

    /// True when `state` is in the set.
    #[must_use]
    pub const fn contains(self, state: State) -> bool {
        self.0 & 1 << state.number() != 0
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is here but not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits: bit = the kernel's state number.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// True when nothing is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The states in the set, in the kernel's order.
    pub fn iter(self) -> impl Iterator<Item = State> {
        State::ALL.into_iter().filter(move |&state| self.contains(state))
    }

    /// `idiag_states`. Request sockets are asked for by SYN_RECV and answered as SYN_RECV
    /// (`inet_diag_dump_icsk`, `inet_req_diag_fill`).
    pub(super) const fn idiag_states(self) -> u32 {
        let mask = if self.contains(State::NewSynRecv) { self.with(State::SynRecv) } else { self };
        mask.0 as u32
    }
}

impl From<State> for StateSet {
    fn from(state: State) -> Self {
        Self::EMPTY.with(state)
    }
}

impl FromIterator<State> for StateSet {
    fn from_iter<I: IntoIterator<Item = State>>(states: I) -> Self {
        states.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Display for StateSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(State::name).collect();
        f.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_add_subtract_and_list() {
        let set: StateSet = [State::TimeWait, State::CloseWait].into_iter().collect();
        assert_eq!(set.to_string(), "TIME_WAIT, CLOSE_WAIT");
        assert!(!set.without(State::TimeWait.into()).contains(State::TimeWait));
        assert_eq!(StateSet::ALL.iter().count(), 12);
        assert_eq!(StateSet::ALL, State::ALL.into_iter().collect());
        assert!(set.and(State::Listen.into()).is_empty());
        assert_eq!(StateSet::from(State::NewSynRecv).idiag_states(), 1 << 3 | 1 << 12);
    }
}
