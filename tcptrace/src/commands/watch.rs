//! `tcptrace watch`: a full screen, or a line per transition.

mod lines;
mod play;
mod screen;

use super::Exit;
use super::source::Source;
use crate::cli::WatchArgs;
use crate::settings::{Environment, Format, Watch};

/// Runs the command.
pub fn run(args: &WatchArgs) -> anyhow::Result<Exit> {
    let environment = Environment::detect();
    // Lines for people name containers; the screen and JSON do not.
    let is_lines = !args.output.json && (args.plain || environment.obstacle_to_screen().is_some());
    let source = Source::open(&args.source, is_lines || !args.filter.container.is_empty())?;
    let settings = Watch::from_args(args, &environment, source.resolver())?;
    if settings.output.format == Format::Text {
        return match (environment.obstacle_to_screen(), &source) {
            (Some(why), _) => lines::run(&source, &settings, Some(why)),
            (None, Source::Live) => screen::run(&source, &settings),
            (None, Source::Recording(recording)) => play::run(&source, recording, &settings),
        };
    }
    lines::run(&source, &settings, None)
}
