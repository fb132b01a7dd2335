//! `tcptrace experiment`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{FilterArgs, OutputArgs, values};
use crate::workload::Kind;

/// Options of `experiment`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = "\
Examples:
  tcptrace experiment --sandbox --set net.ipv4.tcp_fin_timeout=10 --baseline 20
                                         with traffic of its own; nothing of the host is touched
  tcptrace experiment --set net.ipv4.tcp_fin_timeout=30 -d 2m --repeat 3
                                         on this host's traffic; the old value is restored afterwards
  tcptrace experiment --set net.ipv4.tcp_fin_timeout=30 --dry-run
  tcptrace experiment --restore          puts back what an experiment that was killed had changed

A dwell belongs to the arm in which it began. The value is restored on success, error, Ctrl-C and SIGTERM.")]
pub struct ExperimentArgs {
    /// The sysctl and its value in the changed arm. A name without dots is one of net.ipv4.
    #[arg(long = "set", value_name = "KEY=VALUE", required_unless_present = "restore", value_parser = values::assignment)]
    pub set: Vec<(String, String)>,

    /// Its value in the baseline arm [default: the present one].
    #[arg(long, value_name = "VALUE")]
    pub baseline: Option<String>,

    /// How long each arm lasts [default: 20s where the sysctl acts when a state begins, else 75s].
    #[arg(long, short = 'd', value_name = "TIME", value_parser = values::tracing_duration)]
    pub duration: Option<Duration>,

    /// How long to wait after each change before an arm begins.
    #[arg(long, value_name = "TIME", value_parser = values::min_age, default_value = "1s")]
    pub settle: Duration,

    /// How long to wait after the last arm for what began in one to end, at most [default: 66s, or longer for
    /// a longer tcp_fin_timeout, where the sysctl acts when a state begins; else 0s].
    #[arg(long, value_name = "TIME", value_parser = values::min_age)]
    pub drain: Option<Duration>,

    /// Alternate between the two arms this often.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,

    /// In a private network namespace with generated traffic: nothing of the host is touched.
    #[arg(long, help_heading = "Sandbox")]
    pub sandbox: bool,

    /// The traffic [default: what shows the sysctl].
    #[arg(long, value_name = "KIND", value_enum, requires = "sandbox", help_heading = "Sandbox")]
    pub workload: Option<Kind>,

    /// Short connections per second; other kinds come at a tenth and a twentieth of it.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20, requires = "sandbox", help_heading = "Sandbox",
          value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub rate: u16,

    /// Say what would be done, and do nothing.
    #[arg(long, conflicts_with = "restore")]
    pub dry_run: bool,

    /// Put back what an experiment that was killed had changed.
    #[arg(long, conflicts_with_all = ["set", "sandbox"])]
    pub restore: bool,

    /// Write a page too, with histograms and curves: one file, for a browser or for paper.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,

    /// Seed of the random numbers behind intervals and permutations.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Output")]
    pub seed: u64,

    /// Exit with status 4 when events were lost.
    #[arg(long, help_heading = "Tracing")]
    pub fail_on_loss: bool,

    /// Filters.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// Output.
    #[command(flatten)]
    pub output: OutputArgs,
}
