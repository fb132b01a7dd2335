//! The running kernel on the full screen.

use std::io::Write as _;
use std::sync::Arc;

use super::{conclude, look, wanted};
use crate::commands::source::Source;
use crate::commands::{Exit, block_on, trace};
use crate::live;
use crate::settings::Watch;
use crate::tui::collector::Collector;

/// Shows the screen until the end.
pub fn run(source: &Source, settings: &Watch) -> anyhow::Result<Exit> {
    let wanted = wanted(settings, live::LAZY_TICK);
    let mut engine = source.engine(&wanted);
    let options = wanted.options();
    let mut collector = Collector::new(look(settings), Arc::clone(&options.wake), settings.filter.clone());
    let ended = block_on(async { live::run(&options, &mut engine, &mut collector).await.map(|_| ()) });
    // Before anything is said: on the usual screen. However the trace ended, what was recorded is kept, and named.
    let closed = collector.close();
    let recorded = collector.end_recording(&engine);
    let ended = ended.and(closed).and_then(|()| {
        trace::note_gone(&mut engine, &settings.filter);
        conclude(&engine, settings)
    });
    if let Some(recorded) = recorded? {
        writeln!(anstream::stderr().lock(), "{recorded}")?;
    }
    ended
}
