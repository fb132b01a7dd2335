//! How fast leaks become more, from two looks and what was traced between them.

/// The growth of one process's leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Sockets more after a minute; below 0 when they become fewer.
    pub per_min: f64,
    /// The same of those that take up a descriptor.
    pub held_per_min: f64,
}
