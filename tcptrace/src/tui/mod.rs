//! `watch` on a terminal: the full screen.
//!
//! ```text
//! engine ─► model (pure) ─► view ─► panes (pure) ─► terminal
//!             ▲   query ◄── state ◄── actions ◄── keys, mouse
//! ```
//!
//! Two threads. The collector's (for a recording: the player's) receives the events and, once a second and whenever another question is asked,
//! makes a [`view::View`]; the screen's owns the terminal and draws what it was given. A terminal that does not
//! take its output (a stalled ssh line) therefore holds up the screen and never the events.

pub mod action;
pub mod ansi;
pub mod collector;
pub mod diagnosis;
pub mod draw;
pub mod export;
pub mod files;
pub mod history;
pub mod keymap;
pub mod lanes;
pub mod leaks;
pub mod list;
pub mod look;
pub mod model;
pub mod panes;
pub mod player;
pub mod ports;
pub mod progress;
pub mod prompt;
pub mod query;
pub mod rates;
pub mod recorder;
pub mod screen;
pub mod state;
pub mod sysctls;
pub mod table;
pub mod tape;
pub mod terminal;
pub mod text;
pub mod theme;
pub mod trends;
pub mod view;
