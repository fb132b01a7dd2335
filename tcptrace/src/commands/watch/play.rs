//! A recording on the full screen.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::Notify;

use super::{conclude, look, wanted};
use crate::commands::source::{Opened, Source};
use crate::commands::{Exit, block_on};
use crate::live;
use crate::settings::Watch;
use crate::tui::files;
use crate::tui::player::Player;
use crate::tui::screen::Handle;
use crate::tui::tape::Tape;

/// Plays until somebody ends it.
pub fn run(source: &Source, recording: &Opened, settings: &Watch) -> anyhow::Result<Exit> {
    let wanted = wanted(settings, live::LAZY_TICK);
    let from_start = || Ok((recording.reopen()?, source.engine(&wanted)));
    let tape = Tape::new(Box::new(from_start), settings.filter.clone())?;
    let host = recording.host().clone();
    let mut player = Player::new(tape, recording.reopen()?, host, settings.speed)
        .context("cannot read the recording beside playing it")?;
    let wake = Arc::new(Notify::new());
    let screen = Handle::start(look(settings), Arc::clone(&wake), files::maker()?);
    let mut screen = screen.context("cannot use the terminal")?;
    let played = block_on(player.run(&screen, &wake));
    // Before anything is said: on the usual screen.
    let ended = screen.end().context("cannot use the terminal");
    played.and(ended)?;
    conclude(player.tape().engine(), settings)
}
