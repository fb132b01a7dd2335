//! What a filter lets through in the kernel is enough: with `--state S` the tracker says of S exactly what it
//! says when it hears everything.

use tcptrace::event::Event;
use tcptrace::filter::{Filter, StateSet};
use tcptrace::net::State;
use tcptrace::outcome::{Open, Outcome, Transition};

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
    let mut complaints = Vec::new();
    for (name, scenario) in super::all() {
        for state in State::ALL {
            let filter = Filter { states: StateSet::from(state), ..Filter::default() };
            let everything = play(&scenario, &filter, |_| true);
            let kernel = filter.kernel_part(StateSet::ALL);
            let filtered = play(&scenario, &filter, |event| match event {
                Event::State(change) => {
                    kernel.transitions[usize::from(change.from.number())] & (1 << change.to.number()) != 0
                }
                // Minis' timers are never filtered by state.
                _ => true,
            });
            if everything != filtered {
                complaints
                    .push(format!("{name}, --state {state}:\nall {everything:#?}\nfiltered {filtered:#?}"));
            }
        }
    }
    assert!(complaints.is_empty(), "{}\n\n{}", complaints.len(), complaints.join("\n\n"));
}

fn play(scenario: &Scenario, filter: &Filter, passes: impl Fn(&Event) -> bool) -> Said {
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
