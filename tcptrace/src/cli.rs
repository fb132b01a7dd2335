//! The command line: raw options only. [`crate::settings`] validates them once.
//!
//! A further command is one file here with its argument struct, one variant of [`Command`], and one file in
//! `commands/`. Options that several commands share are flattened: [`FilterArgs`], [`OutputArgs`],
//! [`TracingArgs`].

pub mod compare;
pub mod completions;
pub mod demo;
pub mod doctor;
pub mod experiment;
pub mod filters;
pub mod hidden;
pub mod leaks;
pub mod man;
pub mod output;
pub mod record;
pub mod report;
pub mod run;
pub mod serve;
pub mod states;
pub mod tracing;
pub mod values;
pub mod watch;

use std::ffi::OsString;

use clap::builder::styling::{AnsiColor, Style, Styles};
use clap::{Parser, Subcommand};

pub use compare::CompareArgs;
pub use completions::CompletionsArgs;
pub use demo::DemoArgs;
pub use doctor::DoctorArgs;
pub use experiment::ExperimentArgs;
pub use filters::FilterArgs;
pub use leaks::LeaksArgs;
pub use man::ManArgs;
pub use output::{ColorChoice, OutputArgs};
pub use record::RecordArgs;
pub use report::ReportArgs;
pub use run::RunArgs;
pub use serve::ServeArgs;
pub use states::StatesArgs;
pub use tracing::{SourceArgs, SourcesArgs, TracingArgs};
pub use watch::WatchArgs;

const STYLES: Styles = Styles::styled()
    .header(Style::new().bold())
    .usage(Style::new().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Green.on_default())
    .error(AnsiColor::Red.on_default().bold())
    .valid(AnsiColor::Green.on_default())
    .invalid(AnsiColor::Yellow.on_default());

const EXIT_STATUS: &str = "\
Exit status:
  0  done; also after Ctrl-C and SIGTERM, with the summary printed; `run` gives the command's own
  1  failed; the reason stands on standard error. `doctor`: something does not work
  2  the command line was wrong
  3  --fail-on-leak, and there was a leak
  4  --fail-on-loss, and events were lost";

/// How long TCP's closing states really last, why each ended and who is responsible: measured with eBPF.
///
/// tcptrace follows every TCP socket of the host through the kernel's own tracepoints and timers. It measures
/// TIME_WAIT and orphaned FIN_WAIT2, which no tracepoint reports, names the process behind each connection
/// together with the evidence, and says what it could not see.
#[derive(Debug, Parser)]
#[command(
    name = "tcptrace",
    version,
    styles = STYLES,
    max_term_width = 100,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    subcommand_value_name = "COMMAND",
    after_help = EXIT_STATUS,
)]
pub struct Cli {
    /// Print the JSON Schema of every kind of line that --json prints
    #[arg(long)]
    pub schema: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print every transition of every TCP connection as it happens
    Watch(WatchArgs),
    /// Say which processes leak sockets in CLOSE_WAIT, and the line of code
    Leaks(LeaksArgs),
    /// Measure how long each closing state lasts, why it ends and who is responsible
    Report(ReportArgs),
    /// Count sockets by state, and by whose they are, at this moment
    States(StatesArgs),
    /// Answer Prometheus: how long states last, who holds sockets in CLOSE_WAIT, who makes TIME_WAITs
    Serve(ServeArgs),
    /// Record everything that comes in to a file, for report and watch --from
    Record(RecordArgs),
    /// Say what differs between two recordings: how long each state lasted, with confidence intervals
    Compare(CompareArgs),
    /// Change a sysctl for a while, measure what it did, and put it back
    Experiment(ExperimentArgs),
    /// Say whether it can run here, how much room is left, and what each sysctl really does
    Doctor(DoctorArgs),
    /// Trace one command and what it starts: its leaks, and how its sockets spent their time
    Run(RunArgs),
    /// Watch traffic made for the purpose: a leak, TIME_WAITs, orphans, in a private network namespace
    Demo(DemoArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one page per command
    Man(ManArgs),
}

/// What the program was started for.
#[derive(Debug)]
pub enum Invocation {
    /// A user's command.
    User(Box<Command>),
    /// `--schema`.
    Schema,
    /// A role that another run of this program gave to it.
    Own(hidden::Command),
}

impl Invocation {
    /// Parses a command line, the program's name included.
    ///
    /// Roles of our own have a parser of their own, so that nothing made from [`Cli`], such as completion
    /// scripts, knows of them.
    pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let line: Vec<OsString> = line.into_iter().collect();
        if line.get(1).is_some_and(|word| word.as_encoded_bytes().starts_with(b"__")) {
            return hidden::Cli::try_parse_from(line).map(|own| Self::Own(own.command));
        }
        // Without --schema and without a command clap has shown the help instead.
        Cli::try_parse_from(line)
            .map(|cli| cli.command.map_or(Self::Schema, |command| Self::User(Box::new(command))))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        super::Cli::command().debug_assert();
        super::hidden::Cli::command().debug_assert();
    }
}
