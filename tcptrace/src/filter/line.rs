//! A filter as one line in option syntax: `--port 80 --state TIME_WAIT`.

use std::fmt;

use clap::Parser;

use super::{Filter, Resolver};
use crate::cli::FilterArgs;
use crate::net::Family;
use crate::settings::UsageError;
use crate::settings::duration;

/// The filter options and nothing else.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, color = clap::ColorChoice::Never)]
struct Line {
    #[command(flatten)]
    filter: FilterArgs,
}

/// Parses a line in option syntax, quoted as in a shell. The empty line wants everything. The error's text is
/// one line.
pub fn parse_line(line: &str, resolver: &dyn Resolver) -> Result<Filter, UsageError> {
    // Nobody can give one on a command line, so that it could not be printed as one either.
    if line.contains('\0') {
        return Err(UsageError::new("a filter cannot hold a NUL"));
    }
    let words =
        shlex::split(line).ok_or_else(|| UsageError::new("a quote is not closed, or a line ends in \\"))?;
    let parsed = Line::try_parse_from(words).map_err(|error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        UsageError::new(first.strip_prefix("error: ").unwrap_or(first))
    })?;
    Filter::from_args(&parsed.filter, resolver)
}

/// As [`parse_line`] takes it, with names as the user gave them; empty when everything is wanted.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Words { f, first: true };
        words.list("--port", &self.ports)?;
        words.list("--lport", &self.local_ports)?;
        words.list("--rport", &self.remote_ports)?;
        words.list("--addr", &self.networks)?;
        words.list("--pid", &self.pids)?;
        words.list("--comm", &self.comms)?;
        words.list("--netns", self.namespaces.iter().map(|netns| &netns.wanted))?;
        words.list("--container", self.containers.iter().map(|container| &container.wanted))?;
        match self.family {
            None => {}
            Some(Family::Ipv4) => words.word("-4")?,
            Some(Family::Ipv6) => words.word("-6")?,
        }
        if self.states != super::StateSet::ALL {
            words.list("--state", self.states.iter())?;
        }
        if let Some(ns) = self.min_dwell_ns {
            words.list("--min-dwell", [duration::exact(std::time::Duration::from_nanos(ns))])?;
        }
        Ok(())
    }
}

struct Words<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    first: bool,
}

impl Words<'_, '_> {
    fn word(&mut self, word: &str) -> fmt::Result {
        if !self.first {
            self.f.write_str(" ")?;
        }
        self.first = false;
        self.f.write_str(word)
    }

    fn list<T: fmt::Display>(&mut self, option: &str, values: impl IntoIterator<Item = T>) -> fmt::Result {
        let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        if values.is_empty() {
            return Ok(());
        }
        let joined = values.join(",");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:,".contains(&byte);
        let quoted = if joined.bytes().all(is_plain) {
            joined.as_str().into()
        } else {
            // Only a NUL cannot be quoted, and no value has one: arguments end at it.
            shlex::try_quote(&joined).unwrap_or_default()
        };
        if joined.starts_with('-') {
            // By itself it would be taken for an option.
            return self.word(&format!("{option}={quoted}"));
        }
        self.word(option)?;
        self.word(&quoted)
    }
}
