//! One file per subcommand: glue between settings, the engine and the views. Each is
//! `pub fn run(args: XArgs) -> anyhow::Result<Exit>`.

pub mod compare;
pub mod completions;
pub mod demo;
pub mod doctor;
pub mod experiment;
mod failure;
pub mod leaks;
pub mod man;
mod progress;
mod promise;
pub mod record;
pub mod report;
pub mod run;
pub mod schema;
pub mod serve;
pub mod source;
pub mod states;
mod stdout;
mod trace;
pub mod watch;

use std::process::ExitCode;

pub use failure::{Advice, report_failure, report_usage};
pub use stdout::LineSink;

use crate::cli::{Command, Invocation, hidden};

/// How a command that did what it was asked ended. Failures are errors instead: [`report_failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// `doctor` found something that does not work.
    Unwell,
    /// There was a leak, and `--fail-on-leak` was given.
    Leak,
    /// Events were lost, and `--fail-on-loss` was given.
    Loss,
    /// The command that was run ended so.
    Status(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Unwell => 1,
            Exit::Leak => 3,
            Exit::Loss => 4,
            Exit::Status(status) => status,
        })
    }
}

/// Runs what the command line asks for.
pub fn run(invocation: Invocation) -> anyhow::Result<Exit> {
    match invocation {
        Invocation::User(command) => match *command {
            Command::Watch(args) => watch::run(&args),
            Command::Leaks(args) => leaks::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Serve(args) => serve::run(&args),
            Command::Record(args) => record::run(&args),
            Command::Compare(args) => compare::run(&args),
            Command::States(args) => states::run(&args),
            Command::Experiment(args) => experiment::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Run(args) => run::run(&args),
            Command::Demo(args) => demo::run(&args),
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        },
        Invocation::Schema => schema::run(),
        Invocation::Own(command) => match command {
            hidden::Command::Replay(args) => demo::run_replay(&args),
            hidden::Command::Sandbox(args) => demo::run_sandbox(&args),
            hidden::Command::Workload(args) => demo::run_workload(&args),
            hidden::Command::Exec(args) => demo::run_exec(&args),
            hidden::Command::Gate(args) => run::pass(&args),
        },
    }
}

/// Runs a future to its end on one thread: two cores' worth of events fit through one reader, and a second
/// thread would only compete with the traffic that is measured.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    use anyhow::Context as _;

    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot set up the event loop")?
        .block_on(future)
}
