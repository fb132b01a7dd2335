//! `tcptrace states`: counts sockets by state at one moment. No BPF.

use std::io::Write as _;

use anyhow::Context as _;

use super::{Exit, LineSink};
use crate::census::{Census, Tally};
use crate::cli::StatesArgs;
use crate::inventory::cgroup::Cgroups;
use crate::inventory::diag::Query;
use crate::inventory::owners::Ownership;
use crate::inventory::{self, clock, namespaces};
use crate::settings::{Environment, Format, States, System};
use crate::snapshot::KeyKind;
use crate::views::paint::Paint;
use crate::views::{json, states};

const CANNOT: &str = "cannot list the sockets";

/// Runs the command.
pub fn run(args: &StatesArgs) -> anyhow::Result<Exit> {
    let settings = States::from_args(args, &Environment::detect(), &System)?;
    let (census, notes) = count(&settings)?;
    write(&settings, &census).context("cannot write to standard output")?;
    let mut err = anstream::stderr().lock();
    // Nobody is left to tell if standard error is closed.
    let _ = notes.iter().try_for_each(|note| writeln!(err, "note: {note}"));
    Ok(Exit::Done)
}

/// Asks the kernel, and /proc only where owners are wanted.
fn count(settings: &States) -> anyhow::Result<(Census, Vec<String>)> {
    let States { filter, by, .. } = settings;
    let wanted: Vec<u32> = filter.namespaces.iter().map(|netns| netns.inode).collect();
    let found = namespaces::all()?.only(&wanted);
    // No count tells subflows of MPTCP apart.
    let query = Query::to_count(filter.states);
    let needs_owners = filter.needs_owner() || matches!(by, Some(KeyKind::Process | KeyKind::Container));
    if by.is_none() && !needs_owners {
        let mut tally = Tally::new(filter);
        let dump = inventory::list_these(&found.list, query, &mut tally).context(CANNOT)?;
        let notes = [found.notes, dump.notes].concat();
        return Ok((tally.census(dump.namespaces), notes));
    }
    let mut dump = inventory::dump_these(&found.list, query).context(CANNOT)?;
    let mut notes = found.notes;
    notes.append(&mut dump.notes);
    let mut ownership = Ownership::default();
    if needs_owners {
        ownership = Ownership::find(dump.sockets.iter().filter(|socket| filter.matches_diag(socket)));
        notes.extend(ownership.holders.notes());
    }
    let cgroups = std::cell::RefCell::new(Cgroups::new());
    let container = |id| {
        let workload = cgroups.borrow_mut().workload(id, clock::monotonic_ns())?;
        workload.container.as_ref().map(|container| container.id.clone())
    };
    Ok((Census::take(&dump, filter, *by, &ownership, &container), notes))
}

fn write(settings: &States, census: &Census) -> std::io::Result<()> {
    let mut out = LineSink::stdout();
    if settings.output.format == Format::Json {
        let netns = match settings.filter.namespaces[..] {
            [ref only] => Some(only.inode),
            _ => None,
        };
        json::write_line(&mut out, &states::line(census, netns))?;
    } else {
        let options = states::Options {
            width: usize::from(settings.output.width),
            ascii: false,
            paint: Paint { color: settings.output.color },
            top: settings.top,
        };
        states::write(census, settings.by, &options, &mut out)?;
    }
    out.flush()
}
