//! Runs every file of `tests/scenarios`: what the kernel does, step by step, and what the tracker makes of it.

#[path = "scenarios/filtered.rs"]
mod filtered;
#[path = "scenarios/format.rs"]
mod format;

use std::path::{Path, PathBuf};

use tcptrace::outcome::{Open, Outcome};
use tcptrace::tracker::{Limits, Tracker};

use format::{Act, Scenario, Step, moment};

/// When [`Tracker::expire`] is called besides: results must not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ticks {
    Never,
    AtDeadlines,
    Often,
}

/// Every file, ordered by name.
fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    assert!(files.len() > 50, "only {} scenarios in {}", files.len(), directory.display());
    files
}

/// Every scenario with its name.
fn all() -> impl Iterator<Item = (String, Scenario)> {
    files().into_iter().map(|file| {
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let scenario = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file.file_stem().unwrap().to_string_lossy().into_owned(), scenario)
    })
}

#[test]
fn scenarios() {
    let files = files();
    let mut complaints = Vec::new();
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy();
        for ticks in [Ticks::Never, Ticks::AtDeadlines, Ticks::Often] {
            if let Err(complaint) = run(file, ticks) {
                complaints.push(format!("{name} ({ticks:?}): {complaint}"));
                break;
            }
        }
    }
    assert!(complaints.is_empty(), "{} of {}:\n\n{}", complaints.len(), files.len(), complaints.join("\n\n"));
}

fn run(file: &Path, ticks: Ticks) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    if !text.starts_with('#') {
        return Err("begins with a comment that says what the kernel does".to_owned());
    }
    let mut scenario: Scenario = toml::from_str(&text).map_err(|error| error.to_string())?;
    play(&scenario, ticks).map_err(|error| format!("{}: {error}", scenario.title))?;
    scenario.leave_out_what_minis_tell();
    play(&scenario, ticks).map_err(|error| format!("{}, without CLOSE after minis: {error}", scenario.title))
}

fn play(scenario: &Scenario, ticks: Ticks) -> Result<(), String> {
    let mut tracker = new_tracker(scenario);
    let mut wanted = Vec::new();
    let mut actual = Vec::new();
    let mut before = 0;
    for (number, step) in scenario.steps.iter().enumerate() {
        let at = moment(&step.at)?;
        if at < before {
            return Err(format!("step {number} goes back in time"));
        }
        let first = actual.len();
        tick(&mut tracker, ticks, before, at, &mut actual);
        take(
            &mut tracker,
            scenario.act(step).map_err(|error| format!("step {number}: {error}"))?,
            at,
            &mut actual,
        );
        before = at;
        if ticks == Ticks::Never {
            compare_step(scenario, number, step, &actual[first..])?;
        }
        wanted.extend(step.expect.iter().map(|expected| (step, expected)));
    }
    compare_all(scenario, &wanted, &actual)?;
    compare_end(scenario, &tracker)
}

fn new_tracker(scenario: &Scenario) -> Tracker {
    let limits = Limits::default();
    let mut tracker = Tracker::new(Limits {
        full_sockets: scenario.full_sockets.unwrap_or(limits.full_sockets),
        minis: scenario.minis.unwrap_or(limits.minis),
    });
    tracker.expect_every_end(true);
    tracker.set_hz(Some(scenario.hz).filter(|&hz| hz > 0));
    tracker
}

fn tick(tracker: &mut Tracker, ticks: Ticks, before: u64, at: u64, out: &mut Vec<Outcome>) {
    match ticks {
        Ticks::Never => {}
        Ticks::AtDeadlines => {
            while let Some(deadline) = tracker.deadline().filter(|&deadline| deadline <= at) {
                tracker.expire(deadline, out);
                assert_ne!(tracker.deadline(), Some(deadline), "a deadline that never passes");
            }
        }
        Ticks::Often => {
            for tenth in 0..=10 {
                tracker.expire(before + (at - before) / 10 * tenth, out);
            }
        }
    }
}

fn take(tracker: &mut Tracker, act: Act, at: u64, out: &mut Vec<Outcome>) {
    match act {
        Act::Apply(event) => tracker.apply(&event, out),
        Act::BeginResync => tracker.begin_resync(at),
        Act::Reconcile(dump, owners, lossless) => {
            tracker.trust_events(lossless);
            tracker.expire(at, out);
            let owner_of = |socket: &tcptrace::inventory::diag::DiagSocket| {
                owners.iter().find(|(flow, _)| *flow == socket.flow).map(|&(_, owner)| owner)
            };
            tracker.reconcile(&dump, &owner_of, out);
        }
        Act::Expire => tracker.expire(at, out),
    }
}

fn compare_step(scenario: &Scenario, number: usize, step: &Step, actual: &[Outcome]) -> Result<(), String> {
    let all: Vec<_> = step.expect.iter().map(|expected| (step, expected)).collect();
    compare_all(scenario, &all, actual).map_err(|error| format!("step {number} at {}{error}", step.at))
}

fn compare_all(
    scenario: &Scenario,
    wanted: &[(&Step, &format::Expected)],
    actual: &[Outcome],
) -> Result<(), String> {
    for (index, actual) in actual.iter().enumerate() {
        let Some((step, expected)) = wanted.get(index) else {
            return Err(format!(": not expected:\n{actual:#?}"));
        };
        let expected = scenario.outcome(step, expected, actual)?;
        if expected != *actual {
            return Err(format!(":\nexpected {expected:#?}\ngot {actual:#?}"));
        }
    }
    match wanted.get(actual.len()) {
        Some((step, missing)) => Err(format!(": of the step at {} did not come: {missing:#?}", step.at)),
        None => Ok(()),
    }
}

fn compare_end(scenario: &Scenario, tracker: &Tracker) -> Result<(), String> {
    let mut open: Vec<Open> = tracker.open().collect();
    open.sort_by_key(|open| open.conn);
    let pairs = scenario.open.iter().enumerate();
    let wanted: Vec<Open> =
        pairs.map(|(index, wanted)| scenario.open(wanted, open.get(index))).collect::<Result<_, _>>()?;
    if wanted != open {
        return Err(format!("open in the end:\nexpected {wanted:#?}\ngot {open:#?}"));
    }
    let counts = tracker.counts();
    let got = format::ExpectedCounts {
        censored: counts.censored,
        table_full: counts.table_full,
        connections: scenario.counts.connections.map(|_| counts.connections),
        gaps: tracker.gaps(),
    };
    if got != scenario.counts {
        return Err(format!("expected {:?}, got {got:?}", scenario.counts));
    }
    let by_state: u64 = counts.open.iter().sum();
    if by_state != u64::try_from(open.len()).unwrap() {
        return Err(format!("{by_state} open by state, {} in all", open.len()));
    }
    Ok(())
}
