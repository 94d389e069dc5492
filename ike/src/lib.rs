//! IKEv2 (RFC 7296), sans-IO: responder and rekeying initiator.
//!
//! **Purpose.** Negotiates the security associations of one appliance with any number of peers. [`Endpoint`] holds all
//! its IKE SAs; datagrams, time and commands go in, datagrams and [events](event::Event) come out.
//!
//! **Promises.**
//! - Nothing that comes from a network makes it panic, loop or grow without bound, not even from a peer that has proven
//!   who it is: every table has a limit in [`config::Limits`], and what is refused or dropped is counted under a
//!   reason. Events are the owner's to take after each call, and one datagram makes a few for each SA that it concerns.
//! - Whatever an unauthenticated peer sends changes nothing of what stands: a half-open IKE SA is another type than an
//!   authenticated one, and an authenticated one cannot be made without a proof that only the verification gives out.
//! - No message ID is used for two different messages; a repeated request gets the very octets that answered it first.
//! - A given seed and a given sequence of calls give the same octets and events, always.
//! - Keys are wiped when dropped and never printed.
//!
//! **What it never does.** It reads no clock, opens no socket, starts no thread and logs nothing.
//!
//! # The order of calls
//!
//! ```
//! use ike::config::{EndpointConfig, Psk, Secrets};
//! use ike::{Datagram, Endpoint};
//! use ipsec::time::Instant;
//!
//! # fn socket() -> Option<Datagram> { None }
//! # fn random() -> [u8; 32] { [7; 32] }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut endpoint = Endpoint::new(EndpointConfig::default(), random());
//! let mut secrets = Secrets::default();
//! secrets.add(vec!["client.example.com".parse()?], Psk::new(b"swordfish".to_vec())?);
//! endpoint.set_connections(Vec::new(), secrets);
//!
//! let now = Instant::from_secs(1);
//! // In a loop: whatever arrived, and whatever is due ...
//! while let Some(datagram) = socket() {
//!     endpoint.handle_datagram(now, &datagram);
//! }
//! if endpoint.poll_timeout().is_some_and(|due| due <= now) {
//!     endpoint.handle_timeout(now);
//! }
//! // ... then first what happened, so that an SA stands before the peer hears that it may use it ...
//! while let Some(event) = endpoint.poll_event() {
//!     println!("{event:?}");
//! }
//! // ... and then what is to be sent.
//! while let Some(datagram) = endpoint.poll_transmit() {
//!     println!("to {}, marker {}", datagram.remote, datagram.needs_marker());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One file for each exchange stands in `exchange/`; our own side of IKE_SA_INIT and IKE_AUTH in `initiator/`.
#![forbid(unsafe_code)]

mod channel;
mod child;
mod collision;
pub mod config;
mod context;
mod cookie;
mod counters;
mod crypto;
mod endpoint;
pub mod error;
pub mod event;
mod exchange;
mod fragment;
mod half_open;
#[cfg(test)]
mod hostile;
mod initiator;
mod kept;
pub mod message;
mod nat;
mod overlap;
pub mod proposal;
mod rate;
mod sa;
mod table;
mod window;

pub use channel::Role;
pub use counters::{Counters, DropReason};
pub use crypto::kex::Kex;
pub use crypto::prf::Prf;
pub use endpoint::{ChildInfo, ChildName, Endpoint, IkeSaInfo, Occupancy};
pub use event::{Datagram, Event};
