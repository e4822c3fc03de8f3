//! Inserts messages for the Agora Signaling Messaging REST API into a Postgres outbox, in the application's own
//! transaction. If that transaction commits, a worker sends the message, never above the app's limit of calls a second,
//! and writes the result into the row.
//!
//! [`enqueue()`] inserts a [`NewMessage`]. The worker is another program: the package `signaling-worker`.

#![warn(missing_docs)]

mod enqueue;
mod message;

pub use enqueue::{EnqueueError, enqueue};
pub use message::NewMessage;
