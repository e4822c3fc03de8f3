//! The ops server of a running worker, asked over HTTP.

mod addresses;
mod door;
mod gate;
mod guard;
mod health;
mod login;
mod metrics;
mod panics;
mod stalled_log;
mod text;
