//! `tcptrace experiment`: changes a sysctl for a while, measures what it did, and puts it back.

mod course;
mod findings;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::promise::Promise;
use super::{Advice as _, Exit, LineSink, block_on, trace};
use crate::cli::ExperimentArgs;
use crate::experiment::Setting;
use crate::experiment::journal::{self, Changed, Journal};
use crate::experiment::knobs::{Acts, acts, knob};
use crate::experiment::setter::Setter;
use crate::filter::{Detail, Filter, Netns, StateSet};
use crate::inventory::namespaces::{self, Namespace};
use crate::live;
use crate::net::State;
use crate::sandbox::Sandbox;
use crate::settings::{Environment, Output, System, Tracing, UsageError};
use crate::views::human;
use crate::workload::{Kind, Running, Settings as Traffic};

use course::Course;
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
    let mut options = trace::options(filter, filter.states, Detail::Dwells, &tracing);
    // Its traffic.
    options.has_children = place.sandbox.is_some();
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
