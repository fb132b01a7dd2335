//! `serve`, validated.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Tracing, UsageError, traced_states_only};
use crate::cli::ServeArgs;
use crate::filter::{Filter, Resolver};
use crate::leaks;
use crate::serve::{self, GuardFiles};

/// `serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Which connections.
    pub filter: Filter,
    /// Where to listen, each once.
    pub listen: Vec<SocketAddr>,
    /// Who may ask.
    pub guard: GuardFiles,
    /// Label sets kept apart at most.
    pub max_series: usize,
    /// Holders are looked up at most so often.
    pub inventory_every: Duration,
    /// What counts as a leak at `/leaks`, nanoseconds.
    pub min_age_ns: u64,
    /// Tracing.
    pub tracing: Tracing,
}

impl Serve {
    /// Validates.
    pub fn from_args(args: &ServeArgs, resolver: &dyn Resolver) -> Result<Self, UsageError> {
        let filter = Filter::from_args(&args.filter, resolver)?;
        traced_states_only(&filter)?;
        if filter.min_dwell_ns.is_some() {
            return Err(UsageError::new("--min-dwell: a histogram without its short dwells misleads")
                .hint("leave it out; histogram_fraction() and the buckets answer what share lasts longer"));
        }
        let mut listen = Vec::new();
        for &addr in &args.listen {
            if !listen.contains(&addr) {
                listen.push(addr);
            }
        }
        Ok(Self {
            filter,
            listen,
            guard: GuardFiles {
                web_config: args.web_config.clone(),
                bearer_token: args.bearer_token_file.clone(),
            },
            max_series: args.max_series.into(),
            inventory_every: args.inventory_interval,
            min_age_ns: u64::try_from(args.min_age.as_nanos()).unwrap_or(u64::MAX),
            tracing: Tracing::from(&args.tracing),
        })
    }

    /// What the tracer's side needs to know.
    #[must_use]
    pub fn terms(&self) -> serve::Terms {
        serve::Terms {
            leaks: leaks::Terms { filter: self.filter.clone(), min_age_ns: self.min_age_ns },
            max_series: self.max_series,
            inventory_every: self.inventory_every,
        }
    }

    /// Where others than this host can reach it.
    pub fn exposed(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.iter().copied().filter(|addr| !addr.ip().to_canonical().is_loopback())
    }
}
