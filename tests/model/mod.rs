//! The protocol between the database, the workers and the API as a model that is explored to its end: every order of
//! claims, calls, records, crashes, delays, lost answers, expiries and cancellations, for a few workers and messages.
//!
//! `action.rs` names each step after the statement or the function that it stands for; `statements.rs` and `worker.rs`
//! say what it does. `explorer.rs` is the model checker, which visits every state. `promise.rs` says what has to hold in
//! each of them. `rules.rs` lists the rules of the protocol, and `broken.rs` shows for each that the promise fails
//! without it. `limits.rs` has what the rules do not cover.
//!
//! Left out is what only keeps steps from being taken: slots and lanes, the order of rows, longer delays, a recorder
//! that is behind. Left out is also `signaling.retry`, which begins a new life of a row.
//!
//! The number of states of each exploration is printed: `cargo test --test model -- --nocapture`.

mod action;
mod broken;
pub(crate) mod explorer;
mod holds;
mod limits;
mod promise;
mod protocol;
mod recovery;
mod rules;
mod state;
mod statements;
mod worker;
