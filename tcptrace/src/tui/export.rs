//! What is shown, as JSON: the lines that `--json` of the commands prints (`tcptrace --schema`).

use std::io::{self, Write};

use crate::doctor::{self, patient::Hash};
use crate::inventory::sysctl::Reading;
use crate::snapshot::Snapshot;
use crate::views::json::{self, Connection, Line, Outcomes};

use super::list::List;
use super::panes;
use super::query::Pane;
use super::view::View;

/// The pane's name in the name of the file.
#[must_use]
pub const fn name(pane: Pane) -> &'static str {
    match pane {
        Pane::Overview => "overview",
        Pane::Leaks => "leaks",
        Pane::TimeWait => "time-wait",
        Pane::Connections => "connections",
        Pane::Events => "events",
        Pane::Tuning => "tuning",
    }
}

/// Writes a pane: the rows that its search finds, in their order.
///
/// # Errors
/// What the writer returns.
pub fn write(view: &View, pane: Pane, list: &List, out: &mut impl Write) -> io::Result<()> {
    let wall = view.snapshot.meta.wall;
    match pane {
        Pane::Overview => return json::write_report(&view.snapshot, out),
        Pane::TimeWait => return json::write_report(&only_time_wait(&view.snapshot), out),
        Pane::Leaks => json::write_leaks(&view.leaks, wall, out)?,
        Pane::Connections => {
            for open in panes::connections::rows(view, list).iter() {
                json::write_line(out, &Line::Connection(Connection::new(open, view.now(), wall)))?;
            }
        }
        Pane::Events => {
            let mut lines = Outcomes::new(wall);
            for seen in panes::events::rows(view, list).iter() {
                lines.write(&seen.outcome, out)?;
            }
        }
        Pane::Tuning => {
            for fact in panes::tuning::rows(view, list) {
                let reading = panes::tuning::value(view, fact.name).map_or(Reading::Absent, Reading::Value);
                let netns = view.snapshot.meta.sysctls.first().and_then(|sysctls| sysctls.netns);
                let netns = netns.filter(|_| !fact.is_host_wide());
                let check = doctor::sysctl(fact, &reading, netns, Hash::default(), Some(&view.snapshot));
                json::write_line(out, &Line::Check(check))?;
            }
        }
    }
    json::write_summary(&view.snapshot, out)
}

fn only_time_wait(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    snapshot.states.retain(|report| report.state == crate::net::State::TimeWait);
    snapshot
}
