//! The protocol between the database, the workers and the API as a model that is explored to its end: every order of
//! claims, calls, records, crashes, delays, lost responses, expiries and cancellations, for a few workers and messages.
//!
//! `action.rs` names each step after its statement or function. `statements.rs` and `worker.rs` implement the steps.
//! `explorer.rs` is the model checker, which visits every state. `promise.rs` has the properties of every state.
//! `rules.rs` lists the rules of the protocol, and `broken.rs` shows that the promise fails without any one of them.
//! `limits.rs` has the known counterexamples.
//!
//! The model omits slots, lanes, the order of rows, longer delays and a slow recorder, because these only prevent steps.
//! The model also omits `signaling.retry`, which starts a message anew.
//!
//! The number of states of each exploration is printed: `cargo test --lib model -- --nocapture`.

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
