//! Random variables that resampling takes.

use fastrand::Rng;

/// Deals `count` dwells to the two sides, each of which still wants `left`: hypergeometric. Large counts by
/// their normal approximation.
pub(super) fn deal(count: u64, left: &mut [u64; 2], rng: &mut Rng) -> [u64; 2] {
    let total = left[0] + left[1];
    if count == 0 || total == 0 {
        return [0, 0];
    }
    let to_a = if count <= 64 {
        let (mut a, mut b) = (left[0], left[1]);
        for _ in 0..count {
            if rng.u64(0..a + b) < a { a -= 1 } else { b -= 1 }
        }
        left[0] - a
    } else {
        let share = left[0] as f64 / total as f64;
        let correction = (total - count) as f64 / (total as f64 - 1.0).max(1.0);
        let deviation = (count as f64 * share * (1.0 - share) * correction).sqrt();
        let drawn = (count as f64 * share + deviation * normal(rng)).round().max(0.0) as u64;
        drawn.clamp(count.saturating_sub(left[1]), count.min(left[0]))
    };
    left[0] -= to_a;
    left[1] -= count - to_a;
    [to_a, count - to_a]
}

/// A Poisson variable of this mean; by its normal approximation where the mean is large.
pub(super) fn poisson(mean: u64, rng: &mut Rng) -> u64 {
    if mean == 0 {
        return 0;
    }
    if mean > 64 {
        let mean = mean as f64;
        return (mean + mean.sqrt() * normal(rng)).round().max(0.0) as u64;
    }
    // Knuth: count arrivals until the product of uniforms falls below e^-mean.
    let limit = (-(mean as f64)).exp();
    let mut product = rng.f64();
    let mut count = 0;
    while product > limit {
        product *= rng.f64();
        count += 1;
    }
    count
}

/// A standard normal variable (Box and Muller).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}
