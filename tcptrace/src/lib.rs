//! How long TCP's closing states really last, why each ended and who is responsible: measured.
//!
//! The binary is a thin shell around this library. Everything right of the ring buffer (`decode`,
//! [`tracker`], [`stats`], [`views`]) is pure: it takes its time from the events, runs the same from a live
//! kernel and from a recording, and needs no privileges.

pub mod census;
pub mod cli;
pub mod commands;
pub mod decode;
pub mod doctor;
pub mod effects;
pub mod engine;
pub mod event;
pub mod experiment;
pub mod facts;
pub mod filter;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod huge_pages;
pub mod inventory;
pub mod kernel;
pub mod leaks;
pub mod live;
pub mod loss;
pub mod merge;
pub mod net;
pub mod outcome;
pub mod ports;
mod prefetch;
pub mod recording;
pub mod replay;
pub mod sandbox;
pub mod serve;
pub mod settings;
pub mod snapshot;
pub mod stacks;
pub mod stats;
pub mod text;
pub mod tracker;
pub mod tui;
pub mod views;
pub mod wheel;
pub mod workload;
