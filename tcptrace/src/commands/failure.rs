//! Errors, told to a person on standard error: what was tried, why it failed, what to do.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::kernel::StartError;
use crate::settings::UsageError;
use crate::text;

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
    // Nobody is left to tell if standard error is closed.
    let _ = write_failure(&mut anstream::stderr().lock(), error);
    ExitCode::from(if error.is::<UsageError>() { USAGE } else { FAILED })
}

/// One line with the causes, one for each piece of advice.
fn write_failure(out: &mut impl io::Write, error: &anyhow::Error) -> io::Result<()> {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let bold = anstyle::Style::new().bold();
    let mut text = error.to_string();
    let mut causes = Vec::new();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors name their source in their own text.
        if !text.contains(&cause) && !causes.contains(&cause) {
            causes.push(cause);
        }
    }
    if !causes.is_empty() {
        text.push_str(&format!(" ({})", causes.join(": ")));
    }
    writeln!(out, "tcptrace: {red}error:{red:#} {}", harmless(&text))?;
    for line in advice(error).iter().flat_map(|advice| advice.lines()) {
        writeln!(out, "{bold}hint:{bold:#} {}", harmless(line))?;
    }
    Ok(())
}

/// What the user can do about it.
fn advice(error: &anyhow::Error) -> Option<String> {
    if let Some(advised) = error.downcast_ref::<Advised>() {
        return Some(advised.advice.clone());
    }
    if let Some(usage) = error.downcast_ref::<UsageError>() {
        let general = "tcptrace --help, or --help after the command, lists what there is";
        return Some(usage.advice().unwrap_or(general).to_owned());
    }
    error.downcast_ref::<StartError>()?.advice()
}

/// Names of files and other people's words may stand in errors: nothing in them drives the terminal.
fn harmless(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| !c.is_control() || c == '\n') {
        return Cow::Borrowed(text);
    }
    let lines: Vec<_> = text.split('\n').map(|line| text::escape(line.as_bytes())).collect();
    Cow::Owned(lines.join("\n"))
}

/// Prints what clap says about a command line, or the help that was asked for, and says with which status to
/// exit.
#[must_use]
pub fn report_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        let is_help = error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
        let prefix = if is_help { "" } else { "tcptrace: " };
        // Nobody is left to tell if standard error is closed.
        let _ = write!(anstream::stderr().lock(), "{prefix}{}", words_of(error));
        return ExitCode::from(USAGE);
    }
    match write!(anstream::stdout().lock(), "{}", error.render().ansi()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report_failure(&anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// What clap says, coloured unless the arguments that it cites could be taken for colours.
fn words_of(error: &clap::Error) -> String {
    use clap::error::ContextValue;

    let hostile = error.context().any(|(_, value)| match value {
        ContextValue::String(word) => word.contains(char::is_control),
        ContextValue::Strings(words) => words.iter().any(|word| word.contains(char::is_control)),
        _ => false,
    });
    if hostile {
        return harmless(&error.render().to_string()).into_owned();
    }
    error.render().ansi().to_string()
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

    fn told(error: &anyhow::Error) -> String {
        let mut out = anstream::StripStream::new(Vec::new());
        write_failure(&mut out, error).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn one_line_with_its_causes_and_one_with_advice() {
        let error = Err::<(), _>(io::Error::other("no such file"))
            .context("cannot read /sys/kernel/btf/vmlinux")
            .advise("use a kernel built with CONFIG_DEBUG_INFO_BTF=y")
            .context("cannot load the BPF programs")
            .unwrap_err();
        assert_eq!(
            told(&error),
            "tcptrace: error: cannot load the BPF programs (cannot read /sys/kernel/btf/vmlinux: no such file)\n\
             hint: use a kernel built with CONFIG_DEBUG_INFO_BTF=y\n"
        );
    }

    #[test]
    fn a_cause_that_the_error_names_itself_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("/x cannot be read: {source}")]
        struct Unreadable {
            source: io::Error,
        }
        let error = anyhow::Error::new(Unreadable { source: io::Error::other("denied") });
        assert_eq!(told(&error), "tcptrace: error: /x cannot be read: denied\n");
    }

    #[test]
    fn usage_errors_point_to_the_help_unless_they_know_better() {
        let told = |error: UsageError| told(&error.into());
        assert!(
            told(UsageError::new("--x: no"))
                .ends_with("\nhint: tcptrace --help, or --help after the command, lists what there is\n")
        );
        assert!(
            told(UsageError::new("--x: no").hint("yes\nor no")).ends_with(": no\nhint: yes\nhint: or no\n")
        );
    }

    #[test]
    fn nothing_in_an_error_drives_the_terminal() {
        let error = anyhow::anyhow!("cannot open \u{1b}[2Jfile\nits log ends:\n  x");
        assert_eq!(told(&error), "tcptrace: error: cannot open \\x1b[2Jfile\nits log ends:\n  x\n");
        for word in ["\u{1b}[2J", "--\u{1b}[2J", "completions"] {
            let line = ["tcptrace", word, "\u{1b}[2J"].map(Into::into);
            let words = words_of(&crate::cli::Invocation::parse(line).unwrap_err());
            assert!(!words.contains("\u{1b}[2J"), "{words:?}");
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure_however_deep() {
        let closed = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write");
        assert!(is_broken_pipe(&closed));
        assert!(!is_broken_pipe(&anyhow::anyhow!("something else")));
    }
}
