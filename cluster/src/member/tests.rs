//! Several members, joined by an in-memory network and an in-memory facility.

mod appliance;
mod births;
mod frees;
mod hostile;
mod losses;
mod owners;
mod uses;
mod world;
