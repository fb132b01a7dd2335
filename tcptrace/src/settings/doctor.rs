//! `doctor`, validated.

use super::{Environment, Output, Tracing, UsageError};
use crate::cli::DoctorArgs;
use crate::filter::{Filter, Resolver, StateSet};

/// `doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    /// Which destinations and processes.
    pub filter: Filter,
    /// Which connections of the trace or the recording.
    pub measured: Filter,
    /// Output.
    pub output: Output,
    /// Tracing; without a duration there is none.
    pub tracing: Tracing,
}

impl Doctor {
    /// Validates. Names are resolved on the running system, and for a recording there as well.
    pub fn from_args(
        args: &DoctorArgs,
        environment: &Environment,
        here: &dyn Resolver,
        there: &dyn Resolver,
    ) -> Result<Self, UsageError> {
        let filter = Filter::from_args(&args.filter, here)?;
        if filter.states != StateSet::ALL {
            return Err(UsageError::new("--state: doctor looks at limits, which count every state")
                .hint("tcptrace states --state counts sockets; tcptrace report --state measures them"));
        }
        if filter.min_dwell_ns.is_some() {
            return Err(UsageError::new("--min-dwell: doctor looks at limits, which count every socket")
                .hint("tcptrace report --min-dwell leaves out what was short"));
        }
        if filter.namespaces.len() > 1 {
            return Err(UsageError::new("--netns: doctor looks at one network namespace")
                .hint("run it once for each: every namespace has ports and sysctls of its own"));
        }
        Ok(Self {
            filter,
            measured: Filter::from_args(&args.filter, there)?,
            output: Output::from_args(&args.output, environment),
            tracing: Tracing::from(&args.tracing),
        })
    }
}
