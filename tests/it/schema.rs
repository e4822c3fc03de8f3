//! The contract with the application: what the table takes and refuses, and how it gets into a database.

mod cancelling;
mod constraints;
mod functions;
mod last_release;
mod migrating;
mod names;
mod obstacles;
mod plan;
mod prepared;
pub(crate) mod protocol;
pub(crate) mod roles;
