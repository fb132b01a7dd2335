//! One moment of the exporter as metrics. The names and labels are a contract: dashboards and alerts are written
//! against them.

use std::borrow::Cow;
use std::sync::Arc;

use super::aggregate::Totals;
use super::family::{Family, Value};
use super::findings::Findings;
use super::labels::Who;
use super::own::Own;
use crate::event::MonoNs;
use crate::loss::Loss;
use crate::net::State;
use crate::outcome::Phase;
use crate::snapshot::{Ends, WallClock};

/// Everything that a scrape shows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// When.
    pub now: MonoNs,
    /// Turns moments into wall-clock times.
    pub wall: WallClock,
    /// Totals since the start.
    pub totals: Totals,
    /// TIME_WAITs begun, by label set.
    pub closers: Vec<(Arc<Who>, u64)>,
    /// Those without an owner.
    pub closers_unknown: u64,
    /// Those beyond the limit of series.
    pub closers_other: u64,
    /// Connections by state.
    pub sockets: Vec<(State, u64)>,
    /// What was not seen.
    pub loss: Loss,
    /// Events received.
    pub events: u64,
    /// The last look at holders; `None` before the first.
    pub findings: Option<Arc<Findings>>,
    /// Kernel release.
    pub kernel: Option<String>,
}

impl View {
    /// The metrics.
    #[must_use]
    pub fn families<'a>(&'a self, own: &Own) -> Vec<Family<'a>> {
        let mut families = vec![
            self.transitions(),
            self.dwells(),
            self.sockets(),
            self.time_wait_started(),
            self.time_wait_ends(),
            Family::counter(
                "tcptrace_connect_failures",
                "Calls of connect() that found no free local port, or no route.",
            )
            .single(self.totals.connect_failures as f64),
        ];
        families.extend(self.findings.iter().flat_map(|findings| self.looked_up(findings)));
        families.extend([
            self.lost_events(),
            Family::counter(
                "tcptrace_resyncs",
                "Times that all sockets were listed anew because events had been lost.",
            )
            .single(self.loss.resyncs as f64),
            Family::counter("tcptrace_events", "Events received from the kernel.").single(self.events as f64),
            self.build_info(),
        ]);
        families.extend(own.families());
        families
    }

    fn transitions(&self) -> Family<'_> {
        let mut family =
            Family::counter("tcptrace_transitions", "Transitions of TCP connections from state to state.");
        for &(from, to, count) in &self.totals.transitions {
            family.number(&[("from", from.name()), ("to", to.name())], count as f64);
        }
        family
    }

    fn dwells(&self) -> Family<'_> {
        let mut family = Family::histogram(
            "tcptrace_dwell_seconds",
            "Time from entering a state to leaving it, of connections seen to do both. \
             FIN_WAIT2 by phase: half_closed, orphaned, or none where it was only passed through.",
        );
        for (state, phase, histogram) in &self.totals.dwells {
            let labels =
                vec![("state", Cow::Borrowed(state.name())), ("phase", Cow::Borrowed(name_of(*phase)))];
            family.push(labels, Value::Histogram(histogram));
        }
        family
    }

    fn sockets(&self) -> Family<'_> {
        let mut family = Family::gauge("tcptrace_sockets", "TCP connections by present state.");
        for &(state, count) in &self.sockets {
            family.number(&[("state", state.name())], count as f64);
        }
        family
    }

    fn time_wait_started(&self) -> Family<'_> {
        let mut family = Family::counter(
            "tcptrace_time_wait_started",
            "TIME_WAITs begun, by who closed the connection first.",
        );
        for (who, count) in &self.closers {
            family.push(labels(who), Value::Number(*count as f64));
        }
        for (who, count) in [(Who::unknown(), self.closers_unknown), (Who::other(), self.closers_other)] {
            if count > 0 {
                family.push(owned(who), Value::Number(count as f64));
            }
        }
        family
    }

    fn time_wait_ends(&self) -> Family<'_> {
        let mut family = Family::counter(
            "tcptrace_time_wait_ends",
            "Why TIME_WAITs ended. overflow: none was made, because tcp_max_tw_buckets was reached.",
        );
        // All from the first scrape on, so that the first one of a kind is an increase. TIME_WAIT does not end by
        // a timer giving up.
        let reasons = Ends::NAMES.into_iter().filter(|name| !["timed_out", "moved_on"].contains(name));
        let counted = |wanted| self.totals.time_wait_ends.iter().find(|&(name, _)| name == wanted);
        for reason in reasons {
            family.number(&[("reason", reason)], counted(reason).map_or(0, |(_, count)| count) as f64);
        }
        let rest: u64 =
            ["timed_out", "moved_on"].into_iter().filter_map(counted).map(|(_, count)| count).sum();
        family.number(&[("reason", "unknown")], rest as f64);
        family
    }

    fn looked_up<'a>(&self, findings: &'a Findings) -> Vec<Family<'a>> {
        let mut sockets =
            Family::gauge("tcptrace_close_wait_sockets", "Sockets in CLOSE_WAIT, by who holds them.");
        let mut oldest = Family::gauge(
            "tcptrace_close_wait_oldest_seconds",
            "Age of the oldest of these sockets, or a lower bound where it is older than the exporter.",
        )
        .unit("seconds");
        let mut open = Family::gauge(
            "tcptrace_close_wait_open_fds",
            "Open descriptors of the holder of such sockets that is closest to its limit.",
        );
        let mut limit =
            Family::gauge("tcptrace_close_wait_max_fds", "Limit of open descriptors of the same process.");
        for (who, holder) in &findings.holders {
            sockets.push(labels(who), Value::Number(holder.sockets as f64));
            if let Some(ns) = holder.oldest_ns {
                oldest.push(labels(who), Value::Number(ns as f64 / 1e9));
            }
            if let Some((open_fds, max_fds)) = holder.fds {
                open.push(labels(who), Value::Number(open_fds as f64));
                limit.push(labels(who), Value::Number(max_fds as f64));
            }
        }
        let mut families = vec![sockets, oldest, open, limit];
        if let Some(ports) = findings.ports {
            families.push(
                Family::gauge(
                    "tcptrace_local_ports_used_ratio",
                    "Share of the local port range in use towards the busiest destination.",
                )
                .unit("ratio")
                .single(ports.share()),
            );
        }
        let looked_s = self.wall.time(findings.at).as_nanosecond() as f64 / 1e9;
        families.push(
            Family::gauge(
                "tcptrace_inventory_timestamp_seconds",
                "When holders of sockets were last looked up, since the Unix epoch.",
            )
            .unit("seconds")
            .single(looked_s),
        );
        families
    }

    fn lost_events(&self) -> Family<'_> {
        let mut family =
            Family::counter("tcptrace_lost_events", "Events that were not seen. Anything but 0 is a gap.");
        let Loss { ring_full, skipped_runs, table_full, vanished, resyncs: _ } = self.loss;
        for (cause, count) in [
            ("ring_full", ring_full),
            ("skipped_runs", skipped_runs),
            ("table_full", table_full),
            ("vanished", vanished),
        ] {
            family.number(&[("cause", cause)], count as f64);
        }
        family
    }

    fn build_info(&self) -> Family<'_> {
        let mut family =
            Family::gauge("tcptrace_build_info", "Version of tcptrace, and of the kernel it traces.");
        let kernel = self.kernel.as_deref().unwrap_or("?");
        family.number(&[("version", env!("CARGO_PKG_VERSION")), ("kernel", kernel)], 1.0);
        family
    }
}

fn name_of(phase: Option<Phase>) -> &'static str {
    match phase {
        None => "",
        Some(Phase::HalfClosed) => "half_closed",
        Some(Phase::Orphaned) => "orphaned",
    }
}

fn labels(who: &Who) -> Vec<(&'static str, Cow<'_, str>)> {
    let Who { comm, unit, container } = who;
    vec![("comm", comm.into()), ("unit", unit.into()), ("container", container.into())]
}

fn owned<'a>(who: Who) -> Vec<(&'static str, Cow<'a, str>)> {
    let Who { comm, unit, container } = who;
    vec![("comm", comm.into()), ("unit", unit.into()), ("container", container.into())]
}
