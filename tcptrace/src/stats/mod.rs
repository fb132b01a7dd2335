//! Dwells → histograms, open ones, survival. Pure: reads no clock, does no I/O.

pub mod survival;
