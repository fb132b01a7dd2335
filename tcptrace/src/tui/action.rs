//! What can be done on the screen, and what has to be done about it elsewhere.

use super::query::{Pane, Query};

/// What a key or the mouse asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave.
    Quit,
    /// Show or hide the help.
    Help,
    /// Bring a pane to the front.
    Go(Pane),
    /// The next or the one before.
    Turn(isize),
    /// Move the cursor, or scroll, by rows.
    Move(isize),
    /// By screens.
    Page(isize),
    /// To the first row.
    First,
    /// To the last row.
    Last,
    /// Details of the row under the cursor.
    Open,
    /// Out of whatever is in front.
    Back,
    /// Type a text to look for.
    Search,
    /// Type a filter.
    Filter,
    /// Sort by the next column.
    Sort,
    /// Sort the other way round.
    Reverse,
    /// Stand still, or go on.
    Pause,
    /// Write what is shown to a file.
    Export,
    /// Begin or end a recording.
    Record,
    /// Use the mouse, or leave it to the terminal.
    Mouse,
    /// Draw everything anew.
    Redraw,
    /// Stop the program as job control does.
    Suspend,
    /// Only while a recording is played.
    Play(Play),
}

/// What can be done with a recording that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Play {
    /// Go on or stand still.
    Toggle,
    /// By seconds of the recording, back where negative.
    Seek(i64),
    /// Faster, or slower where false.
    Speed(bool),
    /// To the beginning.
    Start,
    /// To so many thousandths of its length.
    Part(u16),
}

/// What the state cannot do itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Another view is wanted.
    Ask(Query),
    /// Set this filter; empty for none.
    Filter(String),
    /// Begin or end a recording.
    Record,
    /// Write the view to a file.
    Export,
    /// Draw everything anew.
    Redraw,
    /// Stop the program.
    Suspend,
    /// Listen to the mouse or not.
    Mouse(bool),
    /// To the one who plays the recording.
    Play(Play),
    /// End.
    Quit,
}
