//! `tcptrace run`: traces one command and everything it starts.

mod gate;
mod members;
mod output;

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use anyhow::Context as _;

use super::{Exit, block_on, trace};
use crate::cli::RunArgs;
use crate::engine::Engine;
use crate::event::MonoNs;
use crate::filter::{Detail, Filter};
use crate::inventory::clock;
use crate::live::{self, Handler};
use crate::net::{Flow, State};
use crate::outcome::{ConnId, Evidence, Outcome, Owner};
use crate::sandbox::Sandbox;
use crate::settings::Tracing;

use gate::Gate;
pub use gate::pass;
use members::{Members, has_ended};

/// A process that is gone this long after it closed a socket closed it by ending, or as the last thing it did.
const LAST_MOMENT_NS: u64 = 50_000_000;
/// How long the trace goes on after the command: until its last events have been read and judged.
const SETTLE_NS: u64 = 250_000_000;

/// Runs the command.
pub fn run(args: &RunArgs) -> anyhow::Result<Exit> {
    let report = match &args.report {
        // Before the command runs, which may take hours.
        Some(path) => Some(File::create(path).with_context(|| format!("cannot write {}", path.display()))?),
        None => None,
    };
    let sandbox = args.private_net.then(Sandbox::new).transpose()?;
    let gate = Gate::start(&args.command, sandbox.as_ref())?;
    let members = Members::of(gate.id(), sandbox.as_ref());
    let mut filter = Filter { states: trace::CLOSING_STATES.into_iter().collect(), ..Filter::default() };
    let tracing = Tracing { fail_on_loss: args.fail_on_loss, ..Tracing::default() };
    if sandbox.is_some() {
        members.restrict(&mut filter);
    }
    // The kernel is not told about processes: what they are comes to be known while they run.
    let mut options = trace::options(&filter, filter.states, Detail::Transitions, &tracing);
    options.forward_signals_to = Some(gate.pid()?);
    members.restrict(&mut filter);
    let mut engine = trace::engine(&filter, None);
    engine.note(members.note().to_owned());
    let min_age_ns = u64::try_from(args.min_age.as_nanos()).unwrap_or(u64::MAX);
    let mut course = Course { gate, members, min_age_ns, closed: Vec::new(), leaks: Vec::new(), ended: None };
    let traced = block_on(live::run(&options, &mut engine, &mut course));
    if let Err(error) = traced {
        // The user's command is not ended for a failure of ours.
        course.gate.wait().context("cannot wait for the command")?;
        return Err(error);
    }
    course.judge(MonoNs::MAX);
    course.add_open(&engine);
    let status = course.ended.map(|(status, _)| status).context("the command was not waited for")?;
    output::write(args, report, &engine, &course.leaks, status)?;
    Ok(match trace::exit(&engine, &tracing) {
        _ if args.fail_on_leak && !course.leaks.is_empty() => Exit::Leak,
        Exit::Loss => Exit::Loss,
        _ => Exit::Status(code(status)),
    })
}

/// As shells give it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// A socket that the command left in CLOSE_WAIT.
struct Leaked {
    conn: ConnId,
    flow: Flow,
    owner: Option<Owner>,
    /// Time in CLOSE_WAIT; `None` where its beginning was not seen.
    age_ns: Option<u64>,
    /// A process that outlived the command holds it; otherwise it was closed as its process ended.
    still_open: bool,
}

/// Takes the command from its start to a little after its end.
struct Course {
    gate: Gate,
    members: Members,
    min_age_ns: u64,
    /// Closed in CLOSE_WAIT, and when: leaked if the process goes at once.
    closed: Vec<(MonoNs, Leaked)>,
    leaks: Vec<Leaked>,
    ended: Option<(ExitStatus, MonoNs)>,
}

impl Course {
    /// Decides about what was closed more than a moment before `now`.
    fn judge(&mut self, now: MonoNs) {
        let leaks = &mut self.leaks;
        self.closed.retain_mut(|(at, leaked)| {
            if now.saturating_sub(*at) < LAST_MOMENT_NS {
                return true;
            }
            if leaked.owner.is_some_and(|owner| has_ended(owner.pid)) {
                leaks.push(Leaked { ..*leaked });
            }
            false
        });
    }

    fn add_open(&mut self, engine: &Engine) {
        let now = engine.now();
        for open in engine.open().filter(|open| open.state == State::CloseWait) {
            let age_ns = now.saturating_sub(open.since);
            if age_ns >= self.min_age_ns {
                self.leaks.push(Leaked {
                    conn: open.conn,
                    flow: open.flow,
                    owner: open.owner,
                    age_ns: (!open.since_is_lower_bound).then_some(age_ns),
                    still_open: true,
                });
            }
        }
        self.leaks.sort_unstable_by_key(|leaked| leaked.conn);
    }
}

impl Handler for Course {
    fn started(&mut self, _engine: &Engine) -> anyhow::Result<()> {
        self.gate.open()
    }

    fn outcome(&mut self, outcome: &Outcome) {
        let Outcome::Transition(transition) = outcome else { return };
        let long_enough = transition.dwell.is_some_and(|dwell| dwell.ns >= self.min_age_ns);
        // Only somebody who closed it can have leaked it until then.
        let is_closed = transition.owner.is_some_and(|owner| owner.evidence == Evidence::Close);
        // With data unread it ends by RST (`tcp_close()`), which is no less a leak.
        if transition.from == State::CloseWait && long_enough && is_closed {
            let leaked = Leaked {
                conn: transition.conn,
                flow: transition.flow,
                owner: transition.owner,
                age_ns: transition.dwell.filter(|dwell| !dwell.is_lower_bound).map(|dwell| dwell.ns),
                still_open: false,
            };
            self.closed.push((transition.at, leaked));
        }
    }

    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        let now = clock::monotonic_ns();
        if self.members.search() {
            let mut filter = engine.filter().clone();
            self.members.restrict(&mut filter);
            engine.set_filter(filter);
        }
        self.judge(now);
        if self.ended.is_none() {
            let ended = self.gate.ended().context("cannot wait for the command")?;
            self.ended = ended.map(|status| (status, now));
        }
        let is_over = self.ended.is_some_and(|(_, at)| now.saturating_sub(at) >= SETTLE_NS);
        Ok(if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }
}
