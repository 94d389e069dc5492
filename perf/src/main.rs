//! Benchmarks of the appliance.

fn main() {}
