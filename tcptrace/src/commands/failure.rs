//! Errors, told to a person on standard error: what was tried, why it failed, what to do.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::settings::UsageError;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// An error with advice. Reads like the error itself.
struct Advised {
    error: anyhow::Error,
    advice: String,
}

impl fmt::Display for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl fmt::Debug for Advised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl std::error::Error for Advised {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Adds to a failure what the user can do about it.
pub trait Advice<T> {
    /// Adds the text of the hint line.
    fn advise(self, advice: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advice<T> for Result<T, E> {
    fn advise(self, advice: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| Advised { error: error.into(), advice: advice.into() }.into())
    }
}

/// Prints an error of a command and says with which status to exit. A reader that closed its end of the pipe
/// has seen enough: that is the end, not an error.
#[must_use]
pub fn report_failure(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let usage = error.downcast_ref::<UsageError>();
    let advice = error
        .downcast_ref::<Advised>()
        .map(|advised| advised.advice.as_str())
        .or_else(|| usage.and_then(UsageError::advice))
        .or_else(|| usage.map(|_| "tcptrace --help, or --help after the command, lists what there is"));
    // Nobody is left to tell if standard error is closed.
    let _ = write_failure(&mut anstream::stderr().lock(), error, advice);
    ExitCode::from(if usage.is_some() { USAGE } else { FAILED })
}

/// One line with the causes, one with the advice.
fn write_failure(out: &mut impl io::Write, error: &anyhow::Error, advice: Option<&str>) -> io::Result<()> {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let bold = anstyle::Style::new().bold();
    write!(out, "tcptrace: {red}error:{red:#} {error}")?;
    let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    if !causes.is_empty() {
        write!(out, " ({})", causes.join(": "))?;
    }
    writeln!(out)?;
    if let Some(advice) = advice {
        writeln!(out, "{bold}hint:{bold:#} {advice}")?;
    }
    Ok(())
}

/// Prints what clap says about a command line, or the help that was asked for, and says with which status to
/// exit.
#[must_use]
pub fn report_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let is_help = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let prefix = if is_help { "" } else { "tcptrace: " };
        // Nobody is left to tell if standard error is closed.
        let _ = write!(anstream::stderr().lock(), "{prefix}{}", error.render().ansi());
        return ExitCode::from(USAGE);
    }
    match write!(anstream::stdout().lock(), "{}", error.render().ansi()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report_failure(&anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => ExitCode::SUCCESS,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn text(error: &anyhow::Error, advice: Option<&str>) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        write_failure(&mut out, error, advice).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn one_line_with_its_causes_and_one_with_advice() {
        let error = Err::<(), _>(io::Error::other("no such file"))
            .context("cannot read /sys/kernel/btf/vmlinux")
            .advise("use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
            .context("cannot load the BPF programs")
            .unwrap_err();
        let advice = error.downcast_ref::<Advised>().map(|advised| advised.advice.as_str());
        assert_eq!(
            text(&error, advice),
            "tcptrace: error: cannot load the BPF programs (cannot read /sys/kernel/btf/vmlinux: no such file)\n\
             hint: use a kernel built with CONFIG_DEBUG_INFO_BTF=y\n"
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure_however_deep() {
        let closed = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write");
        assert!(is_broken_pipe(&closed));
        assert!(!is_broken_pipe(&anyhow::anyhow!("something else")));
    }
}
