//! Which processes keep sockets in CLOSE_WAIT, and what they have done wrong.
//!
//! ```text
//! survey (sock_diag + /proc) ─► evidence ─► rules ─► leaks by process ─► growth, sites
//! recording, engine ──────────────┘
//! ```
//!
//! Everything but [`survey`] is pure: no clock, no /proc. A socket in CLOSE_WAIT is not a leak yet: the peer
//! has closed and the application will follow. One that stays is: nothing in the kernel ends it.

pub mod code;
mod evidence;
mod growth;
pub mod replayed;
mod report;
mod rules;
pub mod survey;

pub use evidence::{Candidate, Culprit, Custody, Evidence, Keeper, Listening, Looked};
pub use growth::{History, Rate};
pub use report::{Leak, LeakReport, LeakedSocket, Terms, Totals};
pub use rules::{Kind, RULES, Rule, Tally};

#[cfg(test)]
mod tests;
