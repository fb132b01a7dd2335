//! Options about the output, the same on every command that prints results.

use clap::{Args, ValueEnum};

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR, CLICOLOR=0 or TERM=dumb say otherwise.
    #[default]
    Auto,
    /// Even into a pipe or a file.
    Always,
    /// Not at all.
    Never,
}

/// What is printed, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// One JSON object a line; `tcptrace --schema` describes them.
    #[arg(long)]
    pub json: bool,

    /// When to colour. `auto` follows the terminal, NO_COLOR, CLICOLOR and CLICOLOR_FORCE.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub color: ColorChoice,

    /// Columns to draw for, 40 to 1000 [default: the terminal's, else COLUMNS, else 80].
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=1000))]
    pub width: Option<u16>,
}
