//! What attackers and broken peers send, said under the keys that only a peer has.
//!
//! Tests are named after the numbers of the project's list of hostile inputs. Those that need no keys, or two honest
//! endpoints, stand beside the code they try and in `tests/`.

mod addresses;
mod auth;
mod bounds;
mod children;
mod established;
mod flood;
mod framing;
mod initiating;
mod nonces;
mod peer;
mod random;
mod siblings;
