//! Halves of one recording, and a change that is known.

use std::collections::BTreeMap;
use std::path::Path;

use fastrand::Rng;

use super::*;
use crate::cli::SourceArgs;
use crate::commands::source::{Source, Wanted};
use crate::engine::Engine;
use crate::filter::{Detail, Filter, StateSet};
use crate::live::{self, Handler};
use crate::net::Flow;
use crate::outcome::Outcome;
use crate::settings::Tracing;
use crate::snapshot::Bucket;
use crate::stats::survival::Longest;
use crate::wheel;

const SPLITS: u64 = 100;
/// Of how many at least it must say that nothing changed: a true level of 5 % fails here once in 100 runs.
const ENOUGH: u64 = 90;

/// One dwell of the recording.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Both ends of a connection have the same.
    connection: usize,
    state: (State, Option<Phase>),
    ns: u64,
    has_ended: bool,
}

/// What the demonstration did, as `compare` takes it: dwells whose beginning was seen.
struct Sample {
    connections: BTreeMap<[(crate::net::Addr, u16); 2], usize>,
    dwells: Vec<Seen>,
}

impl Sample {
    fn connection(&mut self, flow: &Flow) -> usize {
        let mut ends = [(flow.local, flow.local_port), (flow.remote, flow.remote_port)];
        ends.sort_unstable();
        let next = self.connections.len();
        *self.connections.entry(ends).or_insert(next)
    }
}

impl Handler for Sample {
    fn outcome(&mut self, outcome: &Outcome) {
        let Outcome::Transition(transition) = outcome else { return };
        let Some(dwell) = transition.dwell.filter(|dwell| !dwell.is_lower_bound) else { return };
        let connection = self.connection(&transition.flow);
        let state = (transition.from, transition.phase);
        self.dwells.push(Seen { connection, state, ns: dwell.ns, has_ended: true });
    }
}

/// States of which there are enough in either half.
const COMPARED: [(State, Option<Phase>); 6] = [
    (State::FinWait1, None),
    (State::FinWait2, Some(Phase::HalfClosed)),
    (State::FinWait2, Some(Phase::Orphaned)),
    (State::TimeWait, None),
    (State::CloseWait, None),
    (State::LastAck, None),
];

fn demo() -> Sample {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/demo.jsonl.zst");
    let source = Source::open(&SourceArgs { from: Some(path) }, false).expect("the recording");
    let filter = Filter::default();
    let wanted = Wanted {
        filter: &filter,
        by: None,
        states: StateSet::ALL,
        detail: Detail::Dwells,
        tracing: &Tracing::default(),
        tick: live::LAZY_TICK,
    };
    let mut engine: Engine = source.engine(&wanted);
    let mut sample = Sample { connections: BTreeMap::new(), dwells: Vec::new() };
    source.run(&mut engine, &wanted, &mut sample).expect("replayed");
    let now = engine.now();
    for open in engine.open().filter(|open| !open.since_is_lower_bound) {
        let (connection, state) = (sample.connection(&open.flow), (open.state, open.phase));
        let ns = now - open.since;
        sample.dwells.push(Seen { connection, state, ns, has_ended: false });
    }
    sample.dwells.retain(|seen| COMPARED.contains(&seen.state));
    sample
}

/// In cells of two to three digits, as the statistics keep them.
fn cell(ns: u64) -> u64 {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(8);
    ns >> shift << shift
}

fn survival<'a>(dwells: impl Iterator<Item = &'a Seen>) -> Survival {
    let (mut ended, mut open) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
    for seen in dwells {
        *if seen.has_ended { &mut ended } else { &mut open }.entry(cell(seen.ns)).or_default() += 1;
    }
    let longest = Longest {
        finished_ns: ended.last_key_value().map(|(&ns, _)| ns),
        open_ns: open.last_key_value().map(|(&ns, _)| ns),
    };
    let buckets = |cells: BTreeMap<u64, u64>| -> Vec<Bucket> {
        cells.into_iter().map(|(ns, count)| Bucket { ge_ns: ns, le_ns: ns, count }).collect()
    };
    Survival::estimate(&buckets(ended), &buckets(open), longest, 0)
}

/// The verdict about each of [`COMPARED`], with the connections dealt to two halves.
fn halves(
    dwells: &[Seen],
    connections: usize,
    seed: u64,
    change: impl Fn(&Seen, &mut Rng) -> Seen,
) -> Vec<Verdict> {
    let mut rng = Rng::with_seed(seed);
    let is_second: Vec<bool> = (0..connections).map(|_| rng.bool()).collect();
    let (first, mut second): (Vec<Seen>, Vec<Seen>) =
        dwells.iter().partition(|seen| !is_second[seen.connection]);
    second.iter_mut().for_each(|seen| *seen = change(seen, &mut rng));
    let of = |half: &[Seen], state| survival(half.iter().filter(|seen| seen.state == state));
    let samples: Vec<_> = COMPARED.iter().map(|&state| (of(&first, state), of(&second, state))).collect();
    let pairs: Vec<_> = samples.iter().map(|(a, b)| (a, b)).collect();
    compare_all(&pairs, seed).iter().map(|comparison| comparison.verdict).collect()
}

#[test]
fn halves_of_a_recording_do_not_differ() {
    let Sample { connections, dwells } = demo();
    for state in COMPARED {
        let ended = dwells.iter().filter(|seen| seen.state == state && seen.has_ended).count();
        assert!(ended > 100, "{state:?}: {ended}");
    }
    let mut without_change = 0;
    let mut shown = 0;
    for seed in 0..SPLITS {
        let verdicts = halves(&dwells, connections.len(), seed, |seen, _| *seen);
        without_change += u64::from(verdicts.iter().all(|verdict| *verdict != Verdict::Changed));
        shown += verdicts.iter().filter(|verdict| **verdict == Verdict::Unchanged).count();
    }
    println!("nothing changed in {without_change} of {SPLITS} splits; {shown} of {} shown", SPLITS * 6);
    assert!(without_change >= ENOUGH, "{without_change} of {SPLITS}");
    // It is not that it never knows: sameness is shown more often than not.
    assert!(shown as u64 > SPLITS * 6 / 2, "{shown}");
}

#[test]
fn a_shorter_timeout_is_always_found_and_nothing_else() {
    let Sample { connections, dwells } = demo();
    let orphaned = (State::FinWait2, Some(Phase::Orphaned));
    // 3 s at HZ = 250, as late as the timer wheel likes.
    let shorter = wheel::Expected::of(750, 250).expect("a range");
    let mut others = 0;
    // Fewer: it is found in all of them, by far.
    for seed in 0..SPLITS / 5 {
        let verdicts = halves(&dwells, connections.len(), seed, |seen, rng| {
            if seen.state != orphaned {
                return *seen;
            }
            Seen { ns: rng.u64(shorter.base_ns..=shorter.latest_ns), has_ended: true, ..*seen }
        });
        for (state, verdict) in COMPARED.into_iter().zip(verdicts) {
            if state == orphaned {
                assert_eq!(verdict, Verdict::Changed, "seed {seed}");
            } else {
                others += u64::from(verdict == Verdict::Changed);
            }
        }
    }
    assert!(others <= (SPLITS - ENOUGH) / 5, "{others} of what nobody changed");
}

/// One state of two samples, with these dwells ended, in nanoseconds and how often.
fn effect(a: &[(u64, u64)], b: &[(u64, u64)]) -> StateEffect {
    let sample = |dwells: &[(u64, u64)]| {
        let cells: Vec<_> =
            dwells.iter().map(|&(ns, count)| Bucket { ge_ns: ns, le_ns: ns, count }).collect();
        let longest = Longest { finished_ns: dwells.last().map(|&(ns, _)| ns), open_ns: None };
        Side { survival: Survival::estimate(&cells, &[], longest, 0), ..Side::default() }
    };
    let (a, b) = (sample(a), sample(b));
    let comparison = compare_all(&[(&a.survival, &b.survival)], 1).remove(0);
    StateEffect { state: State::FinWait1, phase: None, key: None, a, b, comparison }
}

#[test]
fn a_change_is_told_by_what_changed() {
    const US: u64 = 1_000;
    const MS: u64 = 1_000_000;
    // A hundredth of the dwells is longer: no percentile that is compared shows it.
    let rare = effect(&[(20 * US, 3_000)], &[(23 * US, 2_975), (44 * MS, 25)]);
    assert_eq!(rare.comparison.verdict, Verdict::Changed);
    let sentence = rare.sentence();
    assert!(
        sentence.starts_with("FIN_WAIT1 changed in its rarer dwells: 0.8 % more last longer"),
        "{sentence}"
    );
    assert!(sentence.ends_with("after than before; the median did not change: 20 µs before, 23 µs after."));
    // A fiftieth: the 99th percentile does.
    let tail = effect(&[(20 * US, 3_000)], &[(23 * US, 2_900), (44 * MS, 100)]).sentence();
    assert!(tail.starts_with("FIN_WAIT1 changed: 99th percentile 20 µs before, 44"), "{tail}");
    assert!(tail.contains("; the median did not change: 20 µs before, 23 µs after; most of all, 3.3 % more"));
    // All of them: nothing needs to be said beside the median.
    let all = effect(&[(20 * MS, 300)], &[(60 * MS, 300)]).sentence();
    assert!(all.starts_with("FIN_WAIT1 changed: median 20"), "{all}");
    assert!(!all.contains("the median"), "{all}");
    assert!(all.contains("100 % more last longer than 21"), "{all}");
}
