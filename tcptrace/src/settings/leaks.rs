//! `leaks`, validated.

use std::time::Duration;

use super::{Environment, Output, Tracing, UsageError};
use crate::cli::LeaksArgs;
use crate::filter::{Filter, Resolver};
use crate::leaks::Terms;
use crate::net::State;

/// How long `--stacks` traces where nothing else says: long enough for a busy leak to show its code.
const STACKS_FOR: Duration = Duration::from_secs(30);

/// `leaks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaks {
    /// What counts as a leak.
    pub terms: Terms,
    /// Output.
    pub output: Output,
    /// Tracing; `None`: answer at once.
    pub watching: Option<Watching>,
    /// A leak is a failure.
    pub fail_on_leak: bool,
}

/// How to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watching {
    /// Tracing.
    pub tracing: Tracing,
    /// Time between two reports; `None`: one at the end.
    pub interval: Option<Duration>,
    /// Take stacks.
    pub stacks: bool,
}

impl Leaks {
    /// Validates.
    pub fn from_args(
        args: &LeaksArgs,
        environment: &Environment,
        resolver: &dyn Resolver,
    ) -> Result<Self, UsageError> {
        let filter = Filter::from_args(&args.filter, resolver)?;
        if !filter.states.contains(State::CloseWait) {
            return Err(UsageError::new(format!(
                "--state {}: leaks are sockets in CLOSE_WAIT, so none would be found",
                filter.states
            ))
            .hint("leave out --state; `tcptrace states` counts sockets in every state"));
        }
        let mut tracing = Tracing::from(&args.tracing);
        let is_wanted = tracing.duration.is_some() || args.follow || args.stacks;
        if tracing.duration.is_none() && !args.follow {
            tracing.duration = Some(STACKS_FOR);
        }
        let watching =
            Watching { tracing, interval: args.follow.then_some(args.interval), stacks: args.stacks };
        Ok(Self {
            terms: Terms { filter, min_age_ns: u64::try_from(args.min_age.as_nanos()).unwrap_or(u64::MAX) },
            output: Output::from_args(&args.output, environment),
            watching: is_wanted.then_some(watching),
            fail_on_leak: args.fail_on_leak,
        })
    }
}
