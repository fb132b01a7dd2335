//! The states that the screen counts, FIN_WAIT2 in its phases.

use crate::net::State;
use crate::outcome::Phase;

/// A state and, for FIN_WAIT2, its phase.
pub type Lane = (State, Option<Phase>);

/// In the order in which they are shown: the closing states first, because they are what people come for.
pub const LANES: [Lane; 11] = [
    (State::CloseWait, None),
    (State::TimeWait, None),
    (State::FinWait2, Some(Phase::Orphaned)),
    (State::FinWait2, Some(Phase::HalfClosed)),
    (State::Established, None),
    (State::FinWait1, None),
    (State::FinWait2, None),
    (State::Closing, None),
    (State::LastAck, None),
    (State::SynSent, None),
    (State::SynRecv, None),
];

/// The lanes whose dwells are drawn.
pub const CLOSING: usize = 4;

/// Index into [`LANES`]; `None` for what no connection dwells in.
#[must_use]
pub fn lane(state: State, phase: Option<Phase>) -> Option<usize> {
    let phase = if state == State::FinWait2 { phase } else { None };
    LANES.iter().position(|&lane| lane == (state, phase))
}

/// The name in the width of a table.
#[must_use]
pub fn name((state, phase): Lane) -> String {
    match (state, phase) {
        (State::FinWait2, None) => "FIN_WAIT2 passing".to_owned(),
        _ => crate::views::transitions::state(state, phase),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_that_lasts_has_a_lane() {
        for state in State::ALL {
            let lasts = !matches!(state, State::Close | State::Listen | State::NewSynRecv);
            assert_eq!(lane(state, None).is_some(), lasts, "{state}");
        }
        assert_ne!(lane(State::FinWait2, None), lane(State::FinWait2, Some(Phase::Orphaned)));
    }
}
