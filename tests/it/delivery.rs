//! The attempts of a message and its final status.

mod apps;
mod failures;
mod holds;
mod outcomes;
mod refused;
mod signing;
mod slow_triggers;
mod timing;
mod values;
