//! What `run` says at its end.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use anyhow::Context as _;
use jiff::tz::TimeZone;

use super::Leaked;
use crate::cli::{OutputArgs, RunArgs};
use crate::commands::{LineSink, trace};
use crate::engine::Engine;
use crate::settings::{Environment, Output};
use crate::text;
use crate::views::json::{self, Line, ProcessRef, Run, RunLeak, write_line};
use crate::views::paint::Paint;
use crate::views::{human, report};

/// Writes the report to the file, else to standard error.
pub fn write(
    args: &RunArgs,
    file: Option<File>,
    engine: &Engine,
    leaks: &[Leaked],
    status: ExitStatus,
) -> anyhow::Result<()> {
    let mut out = LineSink::new(match file {
        Some(file) => Box::new(file) as Box<dyn Write>,
        None => Box::new(io::stderr().lock()),
    });
    let written = if args.json {
        write_json(args, engine, leaks, status, &mut out)
    } else {
        write_text(args, engine, leaks, status, &mut out)
    };
    written.and_then(|()| out.flush()).context("cannot write the report")
}

fn write_json(
    args: &RunArgs,
    engine: &Engine,
    leaks: &[Leaked],
    status: ExitStatus,
    out: &mut impl Write,
) -> io::Result<()> {
    let one = |leaked: &Leaked| RunLeak {
        conn: leaked.conn,
        netns: leaked.flow.netns,
        local: leaked.flow.local_addr(),
        remote: leaked.flow.remote_addr(),
        process: leaked.owner.map(|owner| ProcessRef { pid: owner.pid, comm: owner.comm }),
        age_ns: leaked.age_ns,
        still_open: leaked.still_open,
    };
    let words = args.command.iter().map(|word| text::escape(word.as_encoded_bytes()).into_owned());
    let run = Run {
        command: words.collect(),
        status: status.code(),
        signal: status.signal(),
        leaks: leaks.iter().map(one).collect(),
        notes: engine.notes().to_vec(),
    };
    write_line(out, &Line::Run(run))?;
    json::write_report(&engine.snapshot(&trace::live_containers()), out)
}

fn write_text(
    args: &RunArgs,
    engine: &Engine,
    leaks: &[Leaked],
    status: ExitStatus,
    out: &mut impl Write,
) -> io::Result<()> {
    let name = args.command.first().map(|word| text::escape(word.as_encoded_bytes())).unwrap_or_default();
    let count = human::counted(leaks.len() as u64, "socket");
    writeln!(out, "tcptrace: {name} ended ({status}); {count} leaked in CLOSE_WAIT")?;
    for leaked in leaks {
        let owner =
            leaked.owner.map_or_else(|| "?".to_owned(), |owner| format!("{}[{}]", owner.comm, owner.pid));
        let (local, remote) = (leaked.flow.local_addr(), leaked.flow.remote_addr());
        let age = human::duration_or_unknown(leaked.age_ns);
        let end = if leaked.still_open { "still open" } else { "closed only as the process ended" };
        writeln!(out, "  {owner}  {local} → {remote}  {age} in CLOSE_WAIT, {end}")?;
    }
    writeln!(out)?;
    let output = Output::from_args(&OutputArgs::default(), &Environment::detect());
    let options = report::Options {
        width: output.width.into(),
        paint: Paint { color: false },
        zone: TimeZone::system(),
        ..report::Options::default()
    };
    report::write(&engine.snapshot(&trace::live_containers()), &options, out)
}
