//! The binary `worker`: see ARCHITECTURE.md. Producers in Rust use the package `signaling-producer`.

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
mod message;
mod message_text;
mod ops;
mod outbox;
mod outcome;
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

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
#[path = "../fuzz/claims/mod.rs"]
pub mod fuzzing;
#[cfg(test)]
#[path = "../tests/model/mod.rs"]
mod model;

#[doc(hidden)]
pub use cli::main;
