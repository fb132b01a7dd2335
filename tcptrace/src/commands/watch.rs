//! `tcptrace watch`: a full screen, or a line per transition.

mod lines;
mod screen;

use super::Exit;
use super::source::Source;
use crate::cli::WatchArgs;
use crate::settings::{Environment, Format, Watch};

/// Runs the command.
pub fn run(args: &WatchArgs) -> anyhow::Result<Exit> {
    let environment = Environment::detect();
    let source = Source::open(&args.source, !args.filter.container.is_empty())?;
    let settings = Watch::from_args(args, &environment, source.resolver())?;
    if settings.output.format == Format::Text {
        let recorded = matches!(source, Source::Recording(_)).then_some("this is a recording");
        match recorded.or_else(|| environment.obstacle_to_screen()) {
            None => return screen::run(&source, &settings),
            Some(why) => return lines::run(&source, &settings, Some(why)),
        }
    }
    lines::run(&source, &settings, None)
}
