//! The simulator: whole clusters in one thread, driven through DESIGN §8's rules by a seeded clock, network and faults.
//!
//! **What is real.** Members, control cores, IKE, XCF (TLS over smoltcp) and data cores, as the binary joins them; clients
//! that speak real IKE and real ESP. **What is simulated.** Time, cables, the coupling facility's failures, attackers,
//! application hosts, users.
//!
//! **Promises.** One seed gives one course of events, in every run: what happens is hashed, what is only ciphertext is not.
//! After each instant the model is asked whether every rule still holds.
//!
//! **What it never does.** It reads no clock and no randomness but its seed's; TLS draws its own, on which nothing rests.

#![forbid(unsafe_code)]

pub mod appliance;
pub mod client;
pub mod dice;
pub mod facility;
pub mod model;
pub mod packet;
pub mod pki;
pub mod place;
pub mod plant;
pub mod run;
pub mod scenario;
pub mod tail;
pub mod topology;
pub mod weather;
pub mod world;
