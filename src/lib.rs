//! Inserts messages for the Agora Signaling Messaging REST API into a Postgres outbox, in the application's own
//! transaction. If that transaction commits, a worker sends the message, never above the app's limit of calls a second,
//! and writes the result into the row.
//!
//! [`enqueue()`] inserts a [`NewMessage`]. The rest of this package is the binary `worker`.

#![warn(missing_docs)]
// Both macros panic on a closed pipe, and block on a full one. Use `cli::print` and `telemetry::print_stderr` instead.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod advice;
mod check;
mod cli;
mod config;
mod connector;
#[cfg(feature = "dev")]
mod dev;
mod error_text;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[path = "../fuzz/claims/mod.rs"]
pub mod fuzzing;
mod message;
mod message_text;
#[cfg(test)]
#[path = "../tests/model/mod.rs"]
mod model;
mod ops;
mod outbox;
mod outcome;
mod output;
mod pace;
mod proxy;
mod retry;
mod sanitize;
mod secret;
mod signaling;
mod stats;
mod telemetry;
mod time_text;
mod tls;
mod worker;

#[doc(hidden)]
pub use cli::main;
pub use message::NewMessage;
pub use outbox::{EnqueueError, enqueue};
