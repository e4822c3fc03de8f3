//! Inserts messages for the Agora Signaling Messaging REST API into a Postgres outbox, in the application's own
//! transaction. If that transaction commits, a worker sends the message, never above the app's limit of calls a second,
//! and writes the result into the row.
//!
//! [`enqueue()`] inserts a [`NewMessage`]. The rest of this package is the binary `worker`, which the default features
//! build. An application depends on the package with `default-features = false`.

#![warn(missing_docs)]
// Both macros panic on a closed pipe, and block on a full one. Use `cli::print` and `telemetry::print_stderr` instead.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]
// Without the binary, parts of the module `message` have no caller.
#![cfg_attr(not(feature = "worker"), allow(dead_code))]

#[path = "outbox/enqueue.rs"]
mod enqueue;
mod message;

#[cfg(feature = "worker")]
mod advice;
#[cfg(feature = "worker")]
mod check;
#[cfg(feature = "worker")]
mod cli;
#[cfg(feature = "worker")]
mod config;
#[cfg(feature = "worker")]
mod connector;
#[cfg(feature = "dev")]
mod dev;
#[cfg(feature = "worker")]
mod error_text;
#[cfg(feature = "worker")]
mod message_text;
#[cfg(feature = "worker")]
mod ops;
#[cfg(feature = "worker")]
mod outbox;
#[cfg(feature = "worker")]
mod outcome;
#[cfg(feature = "worker")]
mod pace;
#[cfg(feature = "worker")]
mod proxy;
#[cfg(feature = "worker")]
mod retry;
#[cfg(feature = "worker")]
mod sanitize;
#[cfg(feature = "worker")]
mod secret;
#[cfg(feature = "worker")]
mod signaling;
#[cfg(feature = "worker")]
mod stats;
#[cfg(feature = "worker")]
mod telemetry;
#[cfg(feature = "worker")]
mod time_text;
#[cfg(feature = "worker")]
mod tls;
#[cfg(feature = "worker")]
mod worker;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[path = "../fuzz/claims/mod.rs"]
pub mod fuzzing;
#[cfg(test)]
#[path = "../tests/model/mod.rs"]
mod model;

#[cfg(feature = "worker")]
#[doc(hidden)]
pub use cli::main;
pub use enqueue::{EnqueueError, enqueue};
pub use message::NewMessage;
