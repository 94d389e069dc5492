//! Packet headers as views and representations.
