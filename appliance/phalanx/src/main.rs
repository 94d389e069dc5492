//! The appliance: DPDK ports joined to the poll loops and the control core.

fn main() {}
