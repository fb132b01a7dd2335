//! Live tests.

fn main() {}
