//! What is shown: each view is a function of the snapshot, or of one outcome, and a writer.

pub mod doctor;
pub mod effects;
pub mod histogram;
pub mod hlog;
pub mod html;
pub mod human;
pub mod json;
pub mod leaks;
pub(crate) mod page;
pub mod paint;
pub mod report;
pub mod states;
pub mod transitions;
