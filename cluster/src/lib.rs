//! What makes many appliances one: who owns an address, who holds shadows of its SAs, whose connection is whose.
//!
//! **Purpose.** The rules of the cluster as values and state machines: [`member`] is one appliance's part in it;
//! [`fabric`] is what the packet path sees; [`facility`] is what the cluster remembers for good.
//!
//! **Promises.** Sans-IO: time and randomness are arguments, inputs go in by `handle_*`, outputs come out by `poll_*`.
//! Everything that another member or the coupling facility can make grow is bounded. Safety never rests on a failure
//! being detected, nor on a clock.
//!
//! **What it never does.** It opens no socket, reads no clock, starts no thread, touches no packet's payload.

#![forbid(unsafe_code)]

pub mod dpt;
pub mod fabric;
pub mod facility;
pub mod frame;
pub mod id;
pub mod lifesize;
pub mod member;
pub mod message;
pub mod protection;
pub mod sequence;
pub mod shadow;
pub mod shadow_codec;
pub mod vcrt;
