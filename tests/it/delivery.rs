//! What becomes of a message, and how its calls are made.

mod apps;
mod failures;
mod holds;
mod outcomes;
mod refused;
mod signing;
mod slow_triggers;
mod timing;
mod values;
