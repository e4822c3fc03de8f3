//! Delivers messages from a Postgres outbox to the Agora Signaling Messaging REST API.
//!
//! An application inserts a row into `signaling.outbox` in its own transaction. If that commits, the message is
//! called out to the API, never above the app's limit of calls a second however many workers run, and what became
//! of it is written back into the row.
//!
//! A message goes through these modules, each step a type of its own:
//!
//! [`outbox`] claims due rows, each with a send slot ([`outbox::Claimed`]) → [`pace`] waits for the slot and gives
//! a permit ([`pace::SendPermit`]) → [`signaling`] makes the call ([`signaling::Answer`]) → [`outcome`] decides what
//! it means ([`outcome::Outcome`]) and what becomes of the row ([`outcome::Next`]) → [`outbox`] records it
//! ([`outbox::Record`]). [`worker`] runs this for each app, in a lane of its own.
//!
//! An application in Rust needs none of that: [`enqueue()`] inserts messages in its transaction.

pub mod check;
pub mod cli;
pub mod config;
#[cfg(feature = "dev")]
mod dev;
mod error_text;
pub mod message;
pub mod ops;
pub mod outbox;
pub mod outcome;
pub mod pace;
pub mod retry;
pub mod sanitize;
pub mod secret;
pub mod signaling;
pub mod stats;
pub mod telemetry;
mod tls;
pub mod worker;

pub use message::NewMessage;
pub use outbox::{EnqueueError, enqueue};
