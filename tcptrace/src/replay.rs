//! Feeds a recording to the engine, where `live` would feed the kernel.

use std::ops::ControlFlow;

use crate::engine::{Engine, Input};
use crate::live::Handler;
use crate::recording::{Ending, Reader};

/// Events between two calls of [`Handler::turn`], which is also called after each dump: often enough for a handler that writes to notice a closed
/// pipe, seldom enough not to count.
const TURN_EVENTS: u32 = 4096;

/// Replays to the end, or until the handler has enough, and says how the recording ended.
///
/// # Errors
/// Whatever error the handler returns. Damage to the recording is no error: what comes before it is used, and a
/// note says so.
pub fn run(reader: &mut Reader, engine: &mut Engine, handler: &mut impl Handler) -> anyhow::Result<()> {
    engine.begin(reader.header().started);
    handler.started(engine)?;
    let mut events = 0;
    while let Some(input) = reader.next_input() {
        match &input {
            Input::Event(event) => {
                handler.event(event);
                events += 1;
            }
            other => {
                handler.input(other)?;
                // Whoever compares with the beginning wants to look once the first dump is in.
                if matches!(other, Input::Inventory(_)) {
                    events = TURN_EVENTS;
                }
            }
        }
        engine.feed(&input, |outcome| handler.outcome(outcome));
        if events >= TURN_EVENTS {
            events = 0;
            if handler.turn(engine)?.is_break() {
                return Ok(());
            }
        }
    }
    engine.finish(|outcome| handler.outcome(outcome));
    conclude(reader, engine);
    let (ControlFlow::Continue(()) | ControlFlow::Break(())) = handler.turn(engine)?;
    Ok(())
}

/// Takes over what the footer knows, or says that there is none.
pub fn conclude(reader: &Reader, engine: &mut Engine) {
    let shown = crate::text::escape(reader.path().as_os_str().as_encoded_bytes());
    match reader.ending() {
        Some(Ending::Complete(footer)) => {
            engine.set_programs(footer.programs.clone(), footer.skipped.clone());
            engine.set_lost_transitions(footer.lost_transitions.clone());
        }
        Some(Ending::CutOff { lines }) => engine.note(format!(
            "the recording {shown} has no end (its recorder was killed or is still at work): \
             all of its {lines} whole lines were used"
        )),
        Some(Ending::Damaged { line, why }) => engine.note(format!(
            "the recording {shown} is damaged in line {line} ({why}): only what comes before was used"
        )),
        None => {}
    }
}
