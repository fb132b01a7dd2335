//! The Prometheus exporter.
//!
//! ```text
//!     tracer thread: outcomes ─► aggregate ──┐        HTTP thread: connections ─► routes ─► office
//!                    desk ◄── questions ─────┼──────────────────────────────────────────────┘
//!     inventory thread: holders, names ──────┘        view ─► families ─► text · OpenMetrics · protobuf
//! ```
//!
//! Three threads, because their duties exclude each other: the tracer must not wait, the inventory needs
//! privileges and takes its time, and HTTP talks to strangers and therefore has no privileges at all. What they
//! exchange is small and bounded: a view of one moment, at most ten times a second.

mod aggregate;
mod closers;
mod desk;
mod family;
mod findings;
mod guard;
mod histogram;
mod holders;
pub(crate) mod http;
mod labels;
mod negotiate;
mod office;
mod own;
mod protobuf;
mod pulse;
mod routes;
mod supervisor;
mod text;
mod view;
mod web_config;

pub use desk::{Ask, Desk, MAX_ASKS, Terms};
pub use guard::{Guard, GuardFiles};
pub use http::Server;
pub use office::Office;
pub use pulse::Pulse;
pub use web_config::ConfigError;
