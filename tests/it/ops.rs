//! The ops server of a running worker, over HTTP.

mod addresses;
mod auth;
mod health;
mod metrics;
pub(crate) mod ops_client;
mod panics;
mod prometheus_text;
mod stalled_log;
