//! What an event costs in user space: records as the ring holds them, through decode, tracker and statistics, on
//! one core, with more and more TIME_WAITs open.

use tcptrace::workload::records::{ReplayArgs, Shape, replay};

fn main() {
    // `cargo test --benches` asks for nothing but that it runs.
    let is_test = std::env::args().any(|arg| arg == "--test");
    let sizes: &[u64] = if is_test { &[1_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    println!("{:>12}  {:>14}  {:>16}  {:>18}", "open minis", "ns per event", "range", "events/s on a core");
    for &open in sizes {
        let shape = Shape { open, ..Shape::default() };
        let mut nanoseconds = replay(&ReplayArgs { shape, slices: 21, connections: 12_800 }).ns_per_event;
        nanoseconds.sort_by(f64::total_cmp);
        let median = nanoseconds[nanoseconds.len() / 2];
        let range = format!("{:.1}–{:.1}", nanoseconds[0], nanoseconds[nanoseconds.len() - 1]);
        println!("{open:>12}  {median:>14.1}  {range:>16}  {:>18.0}", 1e9 / median);
    }
}
