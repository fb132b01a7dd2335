//! `tcptrace completions`.

use clap::Args;
use clap_complete::Shell;

/// Options of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tcptrace completions bash | sudo tee /usr/share/bash-completion/completions/tcptrace
  tcptrace completions zsh  > ~/.zfunc/_tcptrace
  tcptrace completions fish > ~/.config/fish/completions/tcptrace.fish")]
pub struct CompletionsArgs {
    /// Shell to write for.
    pub shell: Shell,
}
