//! `tcptrace serve`: the Prometheus exporter.

use std::io::Write as _;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Advice as _, Exit, block_on, trace};
use crate::cli::ServeArgs;
use crate::filter::Detail;
use crate::live;
use crate::serve::{Desk, Guard, MAX_ASKS, Office, Pulse, Server};
use crate::settings::{Serve, System};

/// Runs the command.
pub fn run(args: &ServeArgs) -> anyhow::Result<Exit> {
    let settings = Serve::from_args(args, &System)?;
    let mut options =
        trace::options(&settings.filter, settings.filter.states, Detail::Transitions, &settings.tracing);
    options.tick = live::LAZY_TICK;
    let guard = Guard::new(settings.guard.clone())?;
    let (asks, asked) = mpsc::channel(MAX_ASKS);
    let office = Office::new(asks, Arc::clone(&options.wake), Arc::<Pulse>::default());
    let asks_for_credentials = guard.asks_for_credentials();
    let server = Server::bind(&settings.listen, office, guard)
        .map_err(|(addr, error)| anyhow::Error::new(error).context(format!("cannot listen on {addr}")))
        .advise("--listen takes another address; `ss -ltnp` shows who has this one")?;
    tell(&settings, &server, asks_for_credentials)?;
    let mut engine = trace::engine(&settings.filter, None);
    let mut desk = Desk::new(settings.terms(), Arc::clone(&options.wake), server, asked);
    let traced = block_on(live::run(&options, &mut engine, &mut desk));
    desk.finish();
    traced?;
    trace::note_gone(&mut engine, &settings.filter);
    trace::write_summary(&engine.snapshot(&|_| None), engine.notes())?;
    Ok(trace::exit(&engine, &settings.tracing))
}

fn tell(settings: &Serve, server: &Server, asks_for_credentials: bool) -> std::io::Result<()> {
    let mut err = anstream::stderr().lock();
    let scheme = if server.has_tls() { "https" } else { "http" };
    for addr in server.addrs() {
        writeln!(err, "serving {scheme}://{addr}/metrics")?;
    }
    for addr in settings.exposed().filter(|_| !asks_for_credentials) {
        writeln!(
            err,
            "warning: whoever reaches {addr} reads names of processes and containers: --web-config or \
             --bearer-token-file asks for credentials"
        )?;
    }
    Ok(())
}
