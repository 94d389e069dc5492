//! The IP stack of our own addresses, sans-IO.
