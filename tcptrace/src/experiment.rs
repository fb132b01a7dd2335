//! What did the sysctl do? Two arms of one trace, one with the old value, one with the new.
//!
//! A dwell belongs to the arm in which it began. Where a sysctl is looked at when a state begins (the length of
//! FIN_WAIT2 is fixed when its timer is started), the dwell counts in full, even if it ends in the other arm.
//! Where the kernel looks at it while the state lasts (whether connect() may take a TIME_WAIT over), the dwell
//! is censored at the end of its arm: it has lasted that long, and what came then came under another value.

pub mod arms;
pub mod journal;
pub mod knobs;
pub mod setter;

/// One sysctl and its values in the two arms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted name, under `net.`.
    pub name: String,
    /// What it was before the experiment, and is again afterwards.
    pub original: String,
    /// In the baseline arm.
    pub baseline: String,
    /// In the changed arm.
    pub changed: String,
}
