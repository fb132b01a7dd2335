//! How long a state lasts when some of its dwells have not ended: the product-limit estimator.

/// What is known of the distribution of dwells, the open ones included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survival {
    /// Median; `None` where fewer than half of the dwells are known to end.
    pub p50_ns: Option<u64>,
    /// 90th percentile; `None` where not reached.
    pub p90_ns: Option<u64>,
    /// 99th percentile; `None` where not reached.
    pub p99_ns: Option<u64>,
    /// Dwells that ended: what makes the curve fall.
    pub events: u64,
    /// Open dwells, censored at their age.
    pub censored: u64,
    /// Dwells left out because their beginning was not seen (left truncation), ended and open ones together.
    pub left_out: u64,
    /// The curve: from each step's `ns` on, the share of dwells that last longer is `longer`. Before the first
    /// step it is 1. Empty when nothing ended.
    pub curve: Vec<Step>,
}

/// A step of the survival curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Where the curve falls, nanoseconds.
    pub ns: u64,
    /// Share of dwells that last longer than `ns`, in [0, 1].
    pub longer: f64,
    /// Dwells that had lasted until `ns` and were still observed: at risk.
    pub at_risk: u64,
    /// Dwells that ended here.
    pub ended: u64,
}
