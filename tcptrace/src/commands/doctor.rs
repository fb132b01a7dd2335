//! `tcptrace doctor`: can it run here, what do the sysctls do, how much room is left.

use std::io::Write as _;

use anyhow::Context as _;

use super::progress::Progress;
use super::source::{Source, Wanted};
use super::{Advice as _, Exit, LineSink, trace};
use crate::cli::DoctorArgs;
use crate::doctor::{self, Check, Patient, Verdict};
use crate::filter::{Detail, Netns};
use crate::inventory::namespaces::{self, Namespace};
use crate::kernel::StartError;
use crate::live;
use crate::settings::{Doctor, Environment, Format, System};
use crate::snapshot::Snapshot;
use crate::views::doctor as view;
use crate::views::json::{self, Line};
use crate::views::paint::Paint;

/// Runs the command.
pub fn run(args: &DoctorArgs) -> anyhow::Result<Exit> {
    let source = Source::open(&args.source, !args.filter.container.is_empty())?;
    let mut settings = Doctor::from_args(args, &Environment::detect(), &System, source.resolver())?;
    let namespace = match &settings.filter.namespaces[..] {
        [one] => namespaces::resolve(&one.inode.to_string()),
        _ => Namespace::own(),
    }?;
    // Before a trace, which gives up the privileges that this takes.
    let mut patient = Patient::look(&namespace, &settings.filter, settings.tracing.ring_bytes)
        .advise("other network namespaces need root")?;
    let label = namespace.label();
    if matches!(source, Source::Live) {
        let inode = namespace.inode;
        settings.measured.namespaces = vec![Netns { wanted: label.clone(), inode }];
    }
    let mut exit = Exit::Done;
    if settings.tracing.duration.is_some() || args.source.from.is_some() {
        match measure(&mut settings, &source) {
            Ok((snapshot, notes)) => {
                if settings.tracing.fail_on_loss && snapshot.loss.any() {
                    exit = Exit::Loss;
                }
                patient = patient.with(snapshot);
                patient.note(&notes);
            }
            // What is missing stands among the findings, as a failure.
            Err(error) if error.is::<StartError>() => {
                patient.note(&[format!("nothing was measured, because tracing could not start: {error:#}")]);
            }
            Err(error) => return Err(error),
        }
    }
    let checks = doctor::examine(&patient);
    write(&settings, &patient, &label, &checks).context("cannot write to standard output")?;
    Ok(if doctor::worst(&checks) == Verdict::Fail { Exit::Unwell } else { exit })
}

/// Traces for a while, or replays.
fn measure(settings: &mut Doctor, source: &Source) -> anyhow::Result<(Snapshot, Vec<String>)> {
    settings.measured.states = trace::CLOSING_STATES.into_iter().collect();
    let wanted = Wanted {
        filter: &settings.measured,
        by: None,
        states: settings.measured.states,
        detail: Detail::Dwells,
        tracing: &settings.tracing,
        tick: live::LAZY_TICK,
    };
    let mut engine = source.engine(&wanted);
    let mut progress = Progress::new(settings.tracing.duration);
    source.run(&mut engine, &wanted, &mut progress)?;
    progress.clear();
    Ok((engine.snapshot(&*source.containers()), engine.notes().to_vec()))
}

fn write(settings: &Doctor, patient: &Patient, label: &str, checks: &[Check]) -> std::io::Result<()> {
    let mut out = LineSink::stdout();
    if settings.output.format == Format::Json {
        for check in checks {
            json::write_line(&mut out, &Line::Check(check.clone()))?;
        }
        if let Some(snapshot) = &patient.measured {
            json::write_summary(snapshot, &mut out)?;
        }
    } else {
        let options = view::Options {
            width: settings.output.width.into(),
            ascii: settings.output.ascii,
            paint: Paint { color: settings.output.color },
        };
        view::write((&patient.host.release, label), checks, &options, &mut out)?;
    }
    out.flush()
}
