//! An experiment on its way: through its arms, with the sysctls changed and put back.

use std::io::{IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use anyhow::Context as _;

use super::{Place, Plan, nanoseconds};
use crate::commands::Advice as _;
use crate::engine::Engine;
use crate::event::MonoNs;
use crate::experiment::Setting;
use crate::experiment::arms::{Arm, Arms};
use crate::experiment::journal::{self, Changed, Entry, Journal};
use crate::experiment::knobs::Acts;
use crate::experiment::setter::Setter;
use crate::inventory::clock;
use crate::live::Handler;
use crate::net::State;
use crate::outcome::Outcome;
use crate::views::human;

/// Sysctls that are changed, and are put back when this goes.
pub(super) struct Change<'a> {
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

    pub(super) fn restore(&mut self) -> anyhow::Result<()> {
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
            self.setter.forget(entry)?;
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
pub(super) struct Course<'a> {
    plan: &'a Plan,
    pub(super) change: Change<'a>,
    pub(super) arms: Arms,
    stage: Stage,
    rounds_left: u32,
    show_progress: bool,
    shown: MonoNs,
}

impl<'a> Course<'a> {
    pub(super) fn new(plan: &'a Plan, place: &'a Place) -> anyhow::Result<Self> {
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
