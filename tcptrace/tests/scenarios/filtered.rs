//! What a filter lets through in the kernel is enough: with `--state S` the tracker says of S exactly what it
//! says when it hears everything.

use tcptrace::event::Event;
use tcptrace::filter::{Detail, Filter, StateSet};
use tcptrace::net::State;
use tcptrace::outcome::{Open, Outcome, Transition};
use tcptrace_common::config::TAKEOVER_S;

use super::format::{Act, Scenario, moment};
use super::{new_tracker, take};

/// What a run said of the wanted states.
#[derive(Debug, PartialEq)]
struct Said {
    transitions: Vec<Transition>,
    open: Vec<Open>,
}

#[test]
fn a_state_filter_changes_nothing_that_is_said_of_the_state() {
    compare_all(Detail::Transitions, |_| {});
}

#[test]
fn nor_does_leaving_out_how_connections_began_change_what_is_said_of_their_ends() {
    compare_all(Detail::Dwells, |said| {
        for transition in &mut said.transitions {
            // How long it was established is told with transitions only.
            if matches!(transition.from, State::SynSent | State::SynRecv | State::Established) {
                transition.dwell = None;
            }
        }
    });
}

fn compare_all(detail: Detail, blur: impl Fn(&mut Said)) {
    let mut complaints = Vec::new();
    for (name, scenario) in super::all() {
        let ending = [
            State::FinWait1,
            State::FinWait2,
            State::TimeWait,
            State::CloseWait,
            State::LastAck,
            State::Closing,
        ];
        let states = match detail {
            Detail::Transitions => &State::ALL[..],
            Detail::Dwells => &ending[..],
        };
        for &state in states {
            let filter = Filter { states: StateSet::from(state), ..Filter::default() };
            let mut everything = play(&scenario, &filter, |_| true);
            let kernel = filter.kernel_part(StateSet::ALL, detail);
            let mut ended_early = None;
            let mut filtered = play(&scenario, &filter, |event| match event {
                Event::State(change) => {
                    let names = |table: &[u16]| {
                        table[usize::from(change.from.number())] & (1 << change.to.number()) != 0
                    };
                    let is_possible = ended_early.is_some_and(|early: u64| {
                        change.at.saturating_sub(early) < TAKEOVER_S * 1_000_000_000
                    });
                    names(&kernel.transitions) || is_possible && names(&kernel.takeover)
                }
                Event::MiniCancelled(timer) if timer.left_jiffies > 0 => {
                    ended_early = Some(timer.at);
                    true
                }
                // Minis' timers are never filtered by state.
                _ => true,
            });
            blur(&mut everything);
            blur(&mut filtered);
            if everything != filtered {
                complaints
                    .push(format!("{name}, --state {state}:\nall {everything:#?}\nfiltered {filtered:#?}"));
            }
        }
    }
    assert!(complaints.is_empty(), "{}\n\n{}", complaints.len(), complaints.join("\n\n"));
}

fn play(scenario: &Scenario, filter: &Filter, mut passes: impl FnMut(&Event) -> bool) -> Said {
    let mut tracker = new_tracker(scenario);
    let mut outcomes = Vec::new();
    let mut now = 0;
    for step in &scenario.steps {
        now = moment(&step.at).unwrap();
        match scenario.act(step).unwrap() {
            Act::Apply(event) if !passes(&event) => tracker.expire(now, &mut outcomes),
            act => take(&mut tracker, act, now, &mut outcomes),
        }
    }
    // Connections are numbered as they are seen, and fewer are.
    let unnumbered = |transition: &Transition| Transition { conn: 0, ..*transition };
    let transitions = outcomes.iter().filter_map(|outcome| match outcome {
        Outcome::Transition(transition) => {
            filter.matches_transition(transition).then(|| unnumbered(transition))
        }
        Outcome::ConnectFailed { .. } => None,
    });
    let open =
        tracker.open().filter(|open| filter.matches_open(open, now)).map(|open| Open { conn: 0, ..open });
    let mut said = Said { transitions: transitions.collect(), open: open.collect() };
    said.open.sort_by_key(|open| (open.flow, open.since));
    said
}
