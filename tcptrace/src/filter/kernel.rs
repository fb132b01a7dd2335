//! The part of a filter that the BPF programs decide.

use tcptrace_common::Filter as KernelFilter;
use tcptrace_common::state::SLOTS;

use super::{Filter, StateSet};
use crate::net::{Family, State};

/// The paths of a connection through the states, as full sockets take them: `tcp_rcv_state_process`,
/// `tcp_close_state` and `tcp_fin`. Ways into CLOSE are left out, as every state has one. TIME_WAIT is entered
/// by the mini, which the transitions tell only as →CLOSE.
const PATHS: [(State, State); 13] = {
    use State::{
        CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent, TimeWait,
    };
    [
        (Listen, SynRecv),
        (SynSent, SynRecv),
        (SynSent, Established),
        (SynRecv, Established),
        (SynRecv, FinWait1),
        (SynRecv, CloseWait),
        (Established, FinWait1),
        (Established, CloseWait),
        (FinWait1, FinWait2),
        (FinWait1, Closing),
        (FinWait2, TimeWait),
        (Closing, TimeWait),
        (CloseWait, LastAck),
    ]
};

/// Transitions that run in process context, and so tell the owner of whatever follows.
const OWNER_BEARING: [(State, State); 6] = {
    use State::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent};
    [
        // connect()
        (Close, SynSent),
        // listen(): the owner of connections nobody has accepted or closed yet
        (Close, Listen),
        // close() or shutdown()
        (Established, FinWait1),
        (SynRecv, FinWait1),
        // close() of a half-closed socket: its FIN_WAIT2 becomes an orphan
        (FinWait2, FinWait2),
        (CloseWait, LastAck),
    ]
};

/// How it is seen that a new connection took over the four-tuple of a mini: connect() says the task at
/// CLOSE→SYN_SENT, before the mini goes, and the port at SYN_SENT→ESTABLISHED; an incoming SYN shows as the child
/// of a listener. All but the first come after the mini's end, and matter only then.
const TAKEOVER: [(State, State); 4] = {
    use State::{Established, Listen, SynRecv, SynSent};
    [(SynSent, Established), (SynSent, SynRecv), (Listen, SynRecv), (SynRecv, Established)]
};

/// What a command tells of the states that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Every transition, with how long the state before it lasted.
    Transitions,
    /// How long the states lasted, and who is in them: what happened before them need not be seen.
    Dwells,
}

impl Filter {
    /// The part that the BPF programs can decide, for a command that is interested in `wanted` states.
    ///
    /// It lets through at least what this filter lets through, and in addition whatever the tracker needs to
    /// be right about that. Of several values of an option only user space makes a choice. A local port is looked
    /// for on either side: the other end of a connection may be a socket of this host, and what it does tells
    /// things about this end that nothing else tells as soon.
    #[must_use]
    pub fn kernel_part(&self, wanted: StateSet, detail: Detail) -> KernelFilter {
        let (transitions, takeover) = transitions_for(self.states.and(wanted), detail);
        KernelFilter {
            transitions,
            takeover,
            family: match self.family {
                None => 0,
                Some(Family::Ipv4) => libc::AF_INET as u16,
                Some(Family::Ipv6) => libc::AF_INET6 as u16,
            },
            either_port: [&self.ports, &self.local_ports, &self.remote_ports]
                .into_iter()
                .map(|ports| only(ports))
                .find(|&port| port != 0)
                .unwrap_or(0),
            netns: match self.namespaces.as_slice() {
                [netns] => netns.inode,
                _ => 0,
            },
            ..KernelFilter::ALL
        }
    }
}

/// The value of a list of one; 0, which filters nothing, otherwise.
fn only(values: &[u16]) -> u16 {
    match values {
        [value] => *value,
        _ => 0,
    }
}

/// For each old state the new states that must reach user space so that the tracker is right about `wanted`; then
/// those that must only after a mini's early end.
///
/// For each wanted state S these are
/// 1. every transition into S and out of S, self-transitions included: its beginning and its end;
/// 2. every transition into a state that leads to S directly: the line that reports the entry into S says how
///    long the state before it lasted. With [`Detail::Dwells`] a connection may first be seen when it begins to end;
/// 3. process-context transitions on a path to S: they tell the owner;
/// 4. for TIME_WAIT and FIN_WAIT2, which minis hold: after a mini's early end the first steps of connections,
///    because one of them may have taken the four-tuple over, which is why the mini ended;
/// 5. every transition to CLOSE: the address of a socket is used again at once, so the tracker must learn that
///    what it knew of it is over. `tcp_time_wait` ends in it, too (`tcp_done`), which shows
///    a TIME_WAIT's beginning where the mini alone does not: from CLOSING, or of a socket that is not known. And where an
///    orphan's mini becomes a TIME_WAIT in silence, the peer's way out of LAST_ACK tells.
///
/// The minis' timers are no transitions and are never filtered by state.
fn transitions_for(wanted: StateSet, detail: Detail) -> ([u16; SLOTS], [u16; SLOTS]) {
    // Every state leads to CLOSE.
    if wanted == StateSet::ALL || wanted.contains(State::Close) {
        return (KernelFilter::ALL.transitions, KernelFilter::ALL.takeover);
    }
    let mut mask = Mask([0; SLOTS]);
    let mut takeover = Mask([0; SLOTS]);
    for state in wanted.iter() {
        mask.way_out(state);
        mask.way_in(state);
        PATHS
            .iter()
            .filter(|(before, to)| *to == state && (detail == Detail::Transitions || is_ending(*before)))
            .for_each(|&(before, _)| mask.way_in(before));
        for (from, to) in OWNER_BEARING {
            if leads_to(to, state) {
                mask.add(from, to);
            }
        }
        if matches!(state, State::TimeWait | State::FinWait2) {
            mask.add(State::Close, State::SynSent);
            TAKEOVER.iter().for_each(|&(from, to)| takeover.add(from, to));
        }
    }
    mask.way_in(State::Close);
    (mask.0, takeover.0)
}

/// The connection has begun to end: one side at least has closed.
fn is_ending(state: State) -> bool {
    !matches!(
        state,
        State::Close
            | State::Listen
            | State::SynSent
            | State::SynRecv
            | State::NewSynRecv
            | State::Established
    )
}

/// Can a connection in `from` come to `to`, or is it there?
fn leads_to(from: State, to: State) -> bool {
    // PATHS has no cycle: a connection only gets older.
    from == to || PATHS.iter().any(|&(before, after)| before == from && leads_to(after, to))
}

/// Whether these transitions are all that a connection makes once it has begun to end.
#[must_use]
pub fn tells_every_end(transitions: &[u16; SLOTS]) -> bool {
    let is_told =
        |from: State, to: State| transitions[usize::from(from.number())] & StateSet::from(to).bits() != 0;
    PATHS
        .iter()
        .filter(|(_, to)| is_ending(*to) && *to != State::TimeWait)
        .all(|&(from, to)| is_told(from, to))
        && is_told(State::FinWait2, State::FinWait2)
}

struct Mask([u16; SLOTS]);

impl Mask {
    fn add(&mut self, from: State, to: State) {
        self.0[usize::from(from.number())] |= StateSet::from(to).bits();
    }

    fn way_out(&mut self, state: State) {
        self.0[usize::from(state.number())] |= StateSet::ALL.bits();
    }

    fn way_in(&mut self, state: State) {
        self.0.iter_mut().for_each(|row| *row |= StateSet::from(state).bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{
        Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, NewSynRecv, SynRecv,
        SynSent, TimeWait,
    };

    fn passes(wanted: StateSet, from: State, to: State) -> bool {
        transitions_for(wanted, Detail::Transitions).0[usize::from(from.number())] & StateSet::from(to).bits()
            != 0
    }

    /// The same for a command that tells dwells: always, and after a mini's early end.
    fn passes_for_dwells(wanted: StateSet, from: State, to: State) -> (bool, bool) {
        let (always, takeover) = transitions_for(wanted, Detail::Dwells);
        let holds = |mask: [u16; SLOTS]| mask[usize::from(from.number())] & StateSet::from(to).bits() != 0;
        (holds(always), holds(always) || holds(takeover))
    }

    /// Which of the transitions that occur pass for one state.
    fn passing(state: State) -> Vec<(State, State)> {
        let occurring = PATHS
            .into_iter()
            .filter(|(_, to)| *to != TimeWait)
            .chain(OWNER_BEARING)
            .chain(State::ALL.into_iter().map(|state| (state, Close)));
        let mut passing: Vec<_> =
            occurring.filter(|&(from, to)| to != Close && passes(StateSet::from(state), from, to)).collect();
        passing.sort();
        passing.dedup();
        passing
    }

    #[test]
    fn everything_wanted_is_everything_let_through() {
        assert_eq!(Filter::default().kernel_part(StateSet::ALL, Detail::Transitions), KernelFilter::ALL);
    }

    #[test]
    fn every_way_to_close_always_passes() {
        for wanted in State::ALL {
            for from in State::ALL {
                assert!(passes(StateSet::from(wanted), from, Close), "{wanted}: {from}→CLOSE");
            }
        }
    }

    #[test]
    fn beginnings_ends_and_self_transitions_of_the_state_pass() {
        for wanted in State::ALL {
            for other in State::ALL {
                assert!(passes(StateSet::from(wanted), other, wanted), "{other}→{wanted}");
                assert!(passes(StateSet::from(wanted), wanted, other), "{wanted}→{other}");
            }
        }
    }

    #[test]
    fn close_wait_needs_no_active_close() {
        assert_eq!(
            passing(CloseWait),
            [
                (SynSent, SynRecv),
                (SynSent, Established),
                (SynRecv, Established),
                (SynRecv, CloseWait),
                (Established, CloseWait),
                (Close, SynSent),
                (Close, Listen),
                (CloseWait, LastAck),
                (Listen, SynRecv),
            ]
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
        );
    }

    #[test]
    fn time_wait_needs_its_owner_and_its_way_in_but_no_passive_close() {
        let passing = passing(TimeWait);
        for needed in [
            (Close, SynSent),
            (Close, Listen),
            (Established, FinWait1),
            (FinWait2, FinWait2),
            (FinWait1, FinWait2),
            (FinWait1, Closing),
        ] {
            assert!(passing.contains(&needed), "{needed:?}");
        }
        for dispensable in [(Established, CloseWait), (CloseWait, LastAck)] {
            assert!(!passing.contains(&dispensable), "{dispensable:?}");
        }
    }

    #[test]
    fn who_took_a_time_wait_over_is_looked_for_only_when_one_ended_early() {
        for wanted in [TimeWait, FinWait2] {
            for (from, to) in TAKEOVER {
                let passes = passes_for_dwells(StateSet::from(wanted), from, to);
                assert_eq!(passes, (false, true), "{wanted}: {from}→{to}");
            }
        }
        assert_eq!(passes_for_dwells(StateSet::from(CloseWait), SynRecv, Established), (false, false));
        assert_eq!(passes_for_dwells(StateSet::from(CloseWait), Close, SynSent), (true, true));
    }

    #[test]
    fn last_ack_needs_the_closer_and_the_dwell_of_close_wait_before_it() {
        let passing = passing(LastAck);
        assert!(passing.contains(&(CloseWait, LastAck)));
        assert!(
            passing.contains(&(Established, CloseWait)),
            "the line CLOSE_WAIT→LAST_ACK carries that dwell"
        );
        assert!(!passing.contains(&(Established, FinWait1)));
    }

    #[test]
    fn a_listener_needs_nothing_of_connections_but_their_first_step() {
        assert_eq!(passing(Listen), [(Close, Listen), (Listen, SynRecv)]);
        assert_eq!(passing(NewSynRecv), []);
    }

    #[test]
    fn several_states_are_the_union_and_the_command_narrows() {
        let two = StateSet::from_iter([CloseWait, TimeWait]);
        for from in State::ALL {
            for to in State::ALL {
                assert_eq!(
                    passes(two, from, to),
                    passes(StateSet::from(CloseWait), from, to) || passes(StateSet::from(TimeWait), from, to)
                );
            }
        }
        let filter = Filter { states: two, ..Filter::default() };
        assert_eq!(
            filter.kernel_part(StateSet::from(CloseWait), Detail::Transitions).transitions,
            transitions_for(StateSet::from(CloseWait), Detail::Transitions).0
        );
    }

    #[test]
    fn one_value_goes_into_the_kernel_several_do_not() {
        let either = |filter: &Filter| {
            let part = filter.kernel_part(StateSet::ALL, Detail::Dwells);
            assert_eq!((part.local_port, part.remote_port), (0, 0), "the peer on this host must pass");
            part.either_port
        };
        assert_eq!(either(&Filter { ports: vec![80], ..Filter::default() }), 80);
        assert_eq!(either(&Filter { ports: vec![80, 443], ..Filter::default() }), 0);
        assert_eq!(
            either(&Filter { local_ports: vec![443], remote_ports: vec![1, 2], ..Filter::default() }),
            443
        );
        assert_eq!(either(&Filter { remote_ports: vec![1], ..Filter::default() }), 1);
    }

    #[test]
    fn owner_bearing_transitions_are_needed_only_on_the_way() {
        assert!(leads_to(Established, TimeWait));
        assert!(leads_to(Listen, LastAck));
        assert!(!leads_to(CloseWait, TimeWait));
        assert!(!leads_to(FinWait1, CloseWait));
    }
}
