//! `tcptrace experiment`: changes a sysctl for a while, measures what it did, and puts it back.

mod findings;

use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::promise::Promise;
use super::{Advice as _, Exit, LineSink, block_on, trace};
use crate::cli::ExperimentArgs;
use crate::engine::Engine;
use crate::event::MonoNs;
use crate::experiment::Setting;
use crate::experiment::arms::{Arm, Arms};
use crate::experiment::journal::{self, Changed, Entry, Journal};
use crate::experiment::knobs::{Acts, acts, knob};
use crate::experiment::setter::Setter;
use crate::filter::{Detail, Filter, Netns, StateSet};
use crate::inventory::clock;
use crate::inventory::namespaces::{self, Namespace};
use crate::live::{self, Handler};
use crate::net::State;
use crate::outcome::Outcome;
use crate::sandbox::Sandbox;
use crate::settings::{Environment, Output, System, Tracing, UsageError};
use crate::views::human;
use crate::workload::{Kind, Running, Settings as Traffic};

use findings::Findings;

/// Where a sandbox's servers listen: from the range for benchmarks (RFC 2544), because for 127.0.0.0/8
/// tcp_tw_reuse has a rule of its own.
const SANDBOX_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// An arm of a sysctl that acts when a state begins.
const SHORT_ARM: Duration = Duration::from_secs(20);
/// An arm of one that acts at any time: longer than a TIME_WAIT.
const LONG_ARM: Duration = Duration::from_secs(75);
/// A TIME_WAIT and what the timer wheel adds to it at HZ=100, the coarsest in use.
const TIME_WAIT_AND_MORE: Duration = Duration::from_secs(66);

/// Runs the command.
pub fn run(args: &ExperimentArgs) -> anyhow::Result<Exit> {
    if args.restore {
        return restore();
    }
    let left = journal::left_behind().context("cannot look for earlier experiments in /run/tcptrace")?;
    if let Some(entry) = left.first()
        && !args.sandbox
    {
        return Err(anyhow::anyhow!("an experiment was killed and left changed: {}", names(&entry.journal)))
            .advise("run `tcptrace experiment --restore` first");
    }
    let place = Place::new(args)?;
    let mut filter = Filter::from_args(&args.filter, &System)?;
    place.narrow(&mut filter)?;
    let plan = Plan::new(args, &place.setter)?;
    if args.dry_run {
        return plan.tell(args, &place);
    }
    // Before anything is changed.
    let html = args.html.as_deref().map(Promise::file).transpose()?;
    if let Some(sandbox) = &place.sandbox {
        plan.prepare(sandbox)?;
    }
    // Before privileges are given up; kept until the end.
    let traffic = place.sandbox.as_ref().map(|sandbox| plan.start_traffic(args, sandbox)).transpose()?;
    let result = measure(args, &filter, &plan, &place, html.as_ref());
    drop(traffic);
    result
}

/// Where the sysctls are changed.
struct Place {
    sandbox: Option<Sandbox>,
    netns: u32,
    setter: Setter,
}

impl Place {
    fn new(args: &ExperimentArgs) -> anyhow::Result<Self> {
        if args.sandbox {
            if !args.filter.netns.is_empty() {
                return Err(UsageError::new("--sandbox has a network namespace of its own")
                    .hint("leave out --netns, or --sandbox")
                    .into());
            }
            let sandbox = Sandbox::new()?;
            let (netns, setter) = (sandbox.netns(), Setter::start(&sandbox)?);
            return Ok(Self { sandbox: Some(sandbox), netns, setter });
        }
        let namespace = match args.filter.netns.as_slice() {
            [] => Namespace::own()?,
            [one] => namespaces::resolve(one)?,
            _ => {
                return Err(UsageError::new("an experiment changes the sysctls of one network namespace")
                    .hint("give --netns once")
                    .into());
            }
        };
        Ok(Self { sandbox: None, netns: namespace.inode, setter: Setter::start(&namespace)? })
    }

    /// Traffic of other namespaces has nothing to do with it.
    fn narrow(&self, filter: &mut Filter) -> anyhow::Result<()> {
        filter.namespaces = vec![Netns { wanted: self.netns.to_string(), inode: self.netns }];
        if filter.states == StateSet::ALL {
            filter.states = trace::CLOSING_STATES.into_iter().collect();
        }
        if filter.states.iter().eq([State::Close]) {
            bail!(UsageError::new("--state CLOSE: nothing is in CLOSE, so nothing can be measured"));
        }
        Ok(())
    }
}

/// What is done, and for how long.
struct Plan {
    settings: Vec<Setting>,
    acts: Acts,
    arm: Duration,
    settle: Duration,
    drain: Duration,
    repeat: u32,
    workload: Kind,
}

impl Plan {
    fn new(args: &ExperimentArgs, setter: &Setter) -> anyhow::Result<Self> {
        if args.baseline.is_some() && args.set.len() != 1 {
            return Err(UsageError::new("--baseline goes with one --set").into());
        }
        let setting = |(name, value): &(String, String)| -> anyhow::Result<Setting> {
            let original = setter.read(name).advise("sysctl -a lists what this kernel has")?;
            setter.check(name).advise("an experiment needs root in the network namespace")?;
            let baseline = args.baseline.clone().unwrap_or_else(|| original.clone());
            if baseline == *value {
                return Err(UsageError::new(format!("{name} is {value} in both arms"))
                    .hint("give another value with --set, or with --baseline")
                    .into());
            }
            Ok(Setting { name: name.clone(), original, baseline, changed: value.clone() })
        };
        let settings: Vec<Setting> = args.set.iter().map(setting).collect::<anyhow::Result<_>>()?;
        let acts = match settings.iter().all(|setting| acts(&setting.name) == Acts::AtBegin) {
            true => Acts::AtBegin,
            false => Acts::AnyTime,
        };
        let arm = args.duration.unwrap_or(if acts == Acts::AtBegin { SHORT_ARM } else { LONG_ARM });
        let drain = args.drain.unwrap_or(match acts {
            Acts::AtBegin => TIME_WAIT_AND_MORE.max(longest_fin_wait2(&settings) + Duration::from_secs(2)),
            Acts::AnyTime => Duration::ZERO,
        });
        let known = settings.first().and_then(|setting| knob(&setting.name));
        let workload = args.workload.or(known.map(|knob| knob.workload)).unwrap_or(Kind::Mixed);
        Ok(Self { settings, acts, arm, settle: args.settle, drain, repeat: args.repeat, workload })
    }

    fn total(&self) -> Duration {
        (self.arm + self.settle) * 2 * self.repeat + self.drain
    }

    /// `--dry-run`.
    fn tell(&self, args: &ExperimentArgs, place: &Place) -> anyhow::Result<Exit> {
        let mut out = LineSink::stdout();
        let at = match &place.sandbox {
            Some(_) => format!("a private network namespace with {:?} traffic", self.workload),
            None => format!("network namespace {}", place.netns),
        };
        writeln!(out, "In {at}, {} times:", self.repeat)?;
        for setting in &self.settings {
            writeln!(
                out,
                "  {} = {} for {}, then {} for {} (now {}; restored afterwards)",
                setting.name,
                setting.baseline,
                human::duration(nanoseconds(self.arm)),
                setting.changed,
                human::duration(nanoseconds(self.arm)),
                setting.original
            )?;
        }
        writeln!(
            out,
            "then {} at most for what began in an arm to end; {} in all. Nothing was changed.",
            human::duration(nanoseconds(self.drain)),
            human::duration(nanoseconds(self.total()))
        )?;
        if let Some(knob) = args.set.first().and_then(|(name, _)| knob(name)) {
            writeln!(out, "{}", knob.truth)?;
        }
        out.flush()?;
        Ok(Exit::Done)
    }

    /// Makes a sandbox fit to show the effect, and finds out whether the kernel takes the values.
    fn prepare(&self, sandbox: &Sandbox) -> anyhow::Result<()> {
        sandbox.add_address(SANDBOX_ADDRESS)?;
        for setting in &self.settings {
            let conditions = knob(&setting.name).map_or(&[] as &[_], |knob| knob.conditions);
            for (name, value) in conditions.iter().filter(|(name, _)| !self.sets(name)) {
                sandbox.set_sysctl(name, value)?;
            }
            sandbox.set_sysctl(&setting.name, &setting.changed)?;
            sandbox.set_sysctl(&setting.name, &setting.baseline)?;
        }
        Ok(())
    }

    fn sets(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| setting.name == name)
    }

    fn start_traffic(&self, args: &ExperimentArgs, sandbox: &Sandbox) -> anyhow::Result<Running> {
        let traffic = Traffic {
            address: IpAddr::V4(SANDBOX_ADDRESS),
            rate: args.rate.into(),
            quiet: true,
            // What began in the first arm must not be ended by a server that lost patience.
            ..Traffic::for_fin_timeout(longest_fin_wait2(&self.settings))
        };
        Ok(Running::start(sandbox, self.workload, &traffic)?)
    }
}

/// The longest that an orphaned FIN_WAIT2 lasts in either arm: above 60 s the kernel waits twice for the excess.
fn longest_fin_wait2(settings: &[Setting]) -> Duration {
    let values = settings
        .iter()
        .filter(|setting| setting.name == "net.ipv4.tcp_fin_timeout")
        .flat_map(|setting| [&setting.baseline, &setting.changed])
        .filter_map(|value| value.parse::<u64>().ok());
    let longest = values.map(|s| if s > 60 { 2 * (s - 60) } else { s }).max().unwrap_or(60);
    // And an eighth for the timer wheel.
    Duration::from_secs(longest + longest.div_ceil(8))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn measure(
    args: &ExperimentArgs,
    filter: &Filter,
    plan: &Plan,
    place: &Place,
    html: Option<&Promise>,
) -> anyhow::Result<Exit> {
    let tracing = Tracing { fail_on_loss: args.fail_on_loss, ..Tracing::default() };
    let output = Output::from_args(&args.output, &Environment::detect());
    let mut engine = trace::engine(filter, None);
    let options = trace::options(filter, filter.states, Detail::Dwells, &tracing);
    let mut course = Course::new(plan, place)?;
    let ended = block_on(live::run(&options, &mut engine, &mut course));
    // First of all, whatever came of the trace.
    let restored = course.change.restore();
    ended?;
    restored?;
    trace::note_gone(&mut engine, filter);
    let [baseline, changed] = course.arms.snapshots(&engine);
    let result = Findings { plan, place, arms: &course.arms, baseline, changed, engine: &engine };
    result.write(args, output, html)?;
    Ok(trace::exit(&engine, &tracing))
}

/// Sysctls that are changed, and are put back when this goes.
struct Change<'a> {
    setter: &'a Setter,
    settings: &'a [Setting],
    /// `None` in a sandbox, which goes with everything in it.
    journal: Option<Entry>,
    is_changed: bool,
}

impl Change<'_> {
    fn apply(&mut self, arm: Arm) -> anyhow::Result<()> {
        self.is_changed = true;
        for setting in self.settings {
            let value = match arm {
                Arm::Baseline => &setting.baseline,
                Arm::Changed => &setting.changed,
            };
            if self.setter.read(&setting.name)? != *value {
                self.setter.write(&setting.name, value)?;
            }
        }
        Ok(())
    }

    fn restore(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.is_changed) {
            for setting in self.settings {
                self.setter
                    .write(&setting.name, &setting.original)
                    .with_context(|| {
                        format!("{} could NOT be restored to {}", setting.name, setting.original)
                    })
                    .advise(format!("sudo sysctl -w {}='{}'", setting.name, setting.original))?;
            }
        }
        if let Some(entry) = self.journal.take() {
            for setting in self.settings {
                eprintln!("restored {} = {}", setting.name, setting.original);
            }
            entry.remove().context("cannot remove the journal of the experiment")?;
        }
        Ok(())
    }
}

/// On the way out of an error or a panic.
impl Drop for Change<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            eprintln!("tcptrace: error: {error:#}");
        }
    }
}

/// Where the experiment is.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Tracing has not begun, or the sockets from before are not known yet.
    Waiting,
    /// A value was set and nothing counts yet.
    Settling { arm: Arm, until: MonoNs },
    /// An arm lasts.
    Running { arm: Arm, until: MonoNs },
    /// All arms are over, what began in them may end.
    Draining { until: MonoNs },
}

/// Takes the experiment through its stages while the trace runs.
struct Course<'a> {
    plan: &'a Plan,
    change: Change<'a>,
    arms: Arms,
    stage: Stage,
    rounds_left: u32,
    show_progress: bool,
    shown: MonoNs,
}

impl<'a> Course<'a> {
    fn new(plan: &'a Plan, place: &'a Place) -> anyhow::Result<Self> {
        let journal = match place.sandbox {
            Some(_) => None,
            None => Some(enter(plan, place.netns)?),
        };
        let change = Change { setter: &place.setter, settings: &plan.settings, journal, is_changed: false };
        Ok(Self {
            plan,
            change,
            arms: Arms::new(plan.acts),
            stage: Stage::Waiting,
            rounds_left: plan.repeat,
            show_progress: std::io::stderr().is_terminal(),
            shown: 0,
        })
    }

    fn set(&mut self, arm: Arm, now: MonoNs) -> anyhow::Result<()> {
        self.change.apply(arm)?;
        self.stage = Stage::Settling { arm, until: now + nanoseconds(self.plan.settle) };
        Ok(())
    }

    /// Goes on where the time has come; `Break` at the end.
    fn advance(&mut self, engine: &Engine, now: MonoNs) -> anyhow::Result<ControlFlow<()>> {
        match self.stage {
            Stage::Waiting => self.set(Arm::Baseline, now)?,
            Stage::Settling { arm, until } if now >= until => {
                self.arms.begin(arm, now);
                self.stage = Stage::Running { arm, until: now + nanoseconds(self.plan.arm) };
            }
            Stage::Running { arm, until } if now >= until => {
                // Before the value changes: what begins from here on is in no arm.
                self.arms.end(now);
                match arm {
                    Arm::Baseline => self.set(Arm::Changed, now)?,
                    Arm::Changed => {
                        self.rounds_left -= 1;
                        if self.rounds_left > 0 {
                            self.set(Arm::Baseline, now)?;
                        } else {
                            self.change.restore()?;
                            self.stage = Stage::Draining { until: now + nanoseconds(self.plan.drain) };
                        }
                    }
                }
            }
            Stage::Draining { until } if now >= until || self.nothing_left(engine) => {
                return Ok(ControlFlow::Break(()));
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Everything that a timer will end has ended.
    fn nothing_left(&self, engine: &Engine) -> bool {
        self.plan.acts == Acts::AnyTime
            || engine.open().all(|open| {
                !matches!(open.state, State::TimeWait | State::FinWait2) || !self.arms.contains(open.since)
            })
    }

    fn progress(&mut self, now: MonoNs) -> std::io::Result<()> {
        const EVERY_NS: u64 = 250_000_000;
        if !self.show_progress || now.saturating_sub(self.shown) < EVERY_NS {
            return Ok(());
        }
        self.shown = now;
        let left = |until: MonoNs| human::duration(until.saturating_sub(now));
        let name = |arm| if arm == Arm::Baseline { "baseline" } else { "changed" };
        let round = self.plan.repeat - self.rounds_left + 1;
        let text = match self.stage {
            Stage::Waiting => return Ok(()),
            Stage::Settling { arm, until } => format!("{} arm begins in {}", name(arm), left(until)),
            Stage::Running { arm, until } => {
                format!("{} arm {round} of {}: {} left", name(arm), self.plan.repeat, left(until))
            }
            Stage::Draining { until } => {
                format!("waiting for what began in an arm to end: {} left at most", left(until))
            }
        };
        let mut err = std::io::stderr().lock();
        write!(err, "\r\x1b[K{text}   (Ctrl-C ends, restores and reports)")?;
        err.flush()
    }
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        if self.show_progress {
            eprint!("\r\x1b[K");
        }
    }
}

impl Handler for Course<'_> {
    fn outcome(&mut self, outcome: &Outcome) {
        self.arms.outcome(outcome);
    }

    fn turn(&mut self, engine: &mut Engine) -> anyhow::Result<ControlFlow<()>> {
        let now = clock::monotonic_ns();
        let flow = self.advance(engine, now)?;
        self.progress(now)?;
        Ok(flow)
    }
}

/// Writes down what is about to be changed.
fn enter(plan: &Plan, netns: u32) -> anyhow::Result<Entry> {
    let pid = std::process::id();
    let changed = plan.settings.iter().map(|setting| Changed {
        name: setting.name.clone(),
        original: setting.original.clone(),
        given: vec![setting.baseline.clone(), setting.changed.clone()],
    });
    let journal =
        Journal { pid, started: journal::started(pid).unwrap_or(0), netns, changed: changed.collect() };
    Entry::create(journal)
        .context("cannot write the journal in /run/tcptrace, without which nothing is changed")
        .advise("an experiment on the host needs root; --sandbox needs no journal")
}

fn names(journal: &Journal) -> String {
    let one = |changed: &Changed| format!("{} (was {})", changed.name, changed.original);
    let names: Vec<String> = journal.changed.iter().map(one).collect();
    format!("{} in network namespace {}", names.join(", "), journal.netns)
}

/// `--restore`.
fn restore() -> anyhow::Result<Exit> {
    let left = journal::left_behind().context("cannot look for earlier experiments in /run/tcptrace")?;
    let mut out = LineSink::stdout();
    if left.is_empty() {
        writeln!(out, "no experiment has left anything changed")?;
    }
    for entry in left {
        match namespaces::resolve(&entry.journal.netns.to_string()) {
            Ok(namespace) => put_back(&entry.journal, &Setter::start(&namespace)?, &mut out)?,
            Err(_) => {
                writeln!(out, "network namespace {} has gone, and its sysctls with it", entry.journal.netns)?;
            }
        }
        entry.remove().context("cannot remove the journal of an earlier experiment")?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn put_back(journal: &Journal, setter: &Setter, out: &mut impl std::io::Write) -> anyhow::Result<()> {
    for changed in &journal.changed {
        let Changed { name, original, given } = changed;
        let now = setter.read(name)?;
        if now == *original {
            writeln!(out, "{name} is {original}, as it was before the experiment")?;
        } else if given.contains(&now) {
            setter.write(name, original)?;
            writeln!(out, "restored {name} = {original} (the experiment had left {now})")?;
        } else {
            writeln!(out, "{name} is {now}: somebody else has set it since; left alone (it was {original})")?;
        }
    }
    Ok(())
}
