//! Delivers messages from a Postgres outbox to the Agora Signaling Messaging REST API.

pub mod dev;
pub mod simulator;
