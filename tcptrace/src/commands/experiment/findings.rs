//! What came out of an experiment, told.

use std::io::{self, Write};

use anyhow::Context as _;
use jiff::tz::TimeZone;

use super::{Place, Plan};
use crate::cli::ExperimentArgs;
use crate::commands::promise::Promise;
use crate::commands::{LineSink, trace};
use crate::effects::{StateEffect, effects};
use crate::engine::Engine;
use crate::experiment::arms::{Arm, Arms};
use crate::experiment::knobs::knob;
use crate::net::State;
use crate::settings::{Format, Output};
use crate::snapshot::Snapshot;
use crate::stats::compare::Verdict;
use crate::views::effects::{self as view, Change as Shown};
use crate::views::html::{self, Compared, Side};
use crate::views::paint::Paint;
use crate::views::{human, json};

/// Everything that came out.
pub(super) struct Findings<'a> {
    pub(super) plan: &'a Plan,
    pub(super) place: &'a Place,
    pub(super) arms: &'a Arms,
    pub(super) baseline: Snapshot,
    pub(super) changed: Snapshot,
    pub(super) engine: &'a Engine,
}

impl Findings<'_> {
    /// To standard output, and the page where one was promised.
    pub(super) fn write(
        &self,
        args: &ExperimentArgs,
        output: Output,
        html: Option<&Promise>,
    ) -> anyhow::Result<()> {
        let found = effects(&self.baseline, &self.changed, args.seed);
        // The file first: whoever reads standard output may leave.
        let filed = html.map_or(Ok(()), |promise| promise.write(self.page(&found).into_bytes()));
        self.print(&found, output).context("cannot write to standard output")?;
        filed
    }

    fn print(&self, found: &[StateEffect], output: Output) -> io::Result<()> {
        let shown = self.plan.settings.first().map(|setting| Shown {
            sysctl: setting.name.clone(),
            before: setting.baseline.clone(),
            after: setting.changed.clone(),
        });
        let mut out = LineSink::stdout();
        match output.format {
            Format::Json => {
                view::write_json(found, shown.as_ref(), &mut out)?;
                view::write_connect_failures_json(self.failures(), shown.as_ref(), &mut out)?;
                json::write_summary(&self.engine.snapshot(&|_| None), &mut out)?;
                trace::write_notes(self.engine.notes())?;
            }
            Format::Text | Format::Plain => {
                let paint = Paint { color: output.color };
                for title in self.titles() {
                    writeln!(out, "{}", paint.heading(&title))?;
                }
                let loss = self.engine.loss();
                let lost = match loss.any() {
                    true => paint.alarm(&format!("{} LOST", human::counted(loss.total(), "event"))),
                    false => "nothing was lost".to_owned(),
                };
                writeln!(out, "{}; {lost}.\n", self.course())?;
                view::write_text(found, paint, output.width, &mut out)?;
                for truth in self.truths(found) {
                    writeln!(out, "\n{truth}")?;
                }
            }
        }
        out.flush()
    }

    fn page(&self, found: &[StateEffect]) -> String {
        let titles = self.titles().join("; ");
        let whole = self.engine.snapshot(&|_| None);
        let value = |of: fn(&crate::experiment::Setting) -> &str| {
            let values: Vec<_> = self.plan.settings.iter().map(of).collect();
            values.join(", ")
        };
        let (before, after) = (value(|setting| &setting.baseline), value(|setting| &setting.changed));
        let (before, after) = (format!("before: {before}"), format!("after: {after}"));
        let compared = Compared {
            title: &titles,
            lead: &[format!("{}.", self.course())],
            truths: &self.truths(found),
            sides: [
                Side { label: &before, snapshot: &self.baseline },
                Side { label: &after, snapshot: &self.changed },
            ],
            traces: &[Side { label: "", snapshot: &whole }],
            effects: found,
        };
        html::write_effects(&compared, &TimeZone::system())
    }

    /// `net.ipv4.tcp_fin_timeout: 60 → 10`.
    fn titles(&self) -> Vec<String> {
        let one = |setting: &crate::experiment::Setting| {
            format!("{}: {} → {}", setting.name, setting.baseline, setting.changed)
        };
        self.plan.settings.iter().map(one).collect()
    }

    fn course(&self) -> String {
        let now = self.engine.now();
        let length = |arm| human::duration(self.arms.length_ns(arm, now));
        let place = match self.place.sandbox {
            Some(_) => {
                "a private network namespace with traffic of its own, nothing of this host touched".to_owned()
            }
            None => format!("network namespace {}, restored", self.place.netns),
        };
        format!("baseline arm {}, changed arm {}, in {place}", length(Arm::Baseline), length(Arm::Changed))
    }

    /// connect() calls that found no local port, before and after.
    fn failures(&self) -> [u64; 2] {
        [&self.baseline, &self.changed].map(|arm| arm.connect_failures.count)
    }

    /// What is known about the sysctl, beside what was measured, and whether the two agree.
    fn truths(&self, found: &[StateEffect]) -> Vec<String> {
        let mut truths = Vec::new();
        let failures = self.failures();
        if failures != [0, 0] {
            truths.push(format!(
                "connect() found no free local port {} times before and {} times after.",
                human::count(failures[0]),
                human::count(failures[1])
            ));
        }
        let knobs = self.plan.settings.iter().filter_map(|setting| knob(&setting.name));
        truths.extend(knobs.map(|knob| knob.truth.to_owned()));
        let time_wait = found.iter().find(|effect| effect.state == State::TimeWait && effect.key.is_none());
        if self.plan.sets("net.ipv4.tcp_fin_timeout")
            && let Some(effect) = time_wait
            && effect.comparison.verdict == Verdict::Unchanged
        {
            truths.push("Measured here: TIME_WAIT stayed the same.".to_owned());
        }
        truths
    }
}
