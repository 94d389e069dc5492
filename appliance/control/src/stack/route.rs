//! Routes: the data path's own table, so that what we originate and what passes through take the same way.

pub use datapath::routes::{NextHop, PortId, Prefix, PrefixError, RouteError, RouteTable, StaticRoute};
