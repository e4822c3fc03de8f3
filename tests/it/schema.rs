//! The contract with the application: what the table takes and refuses, and how it gets into a database.

mod cancelling;
mod constraints;
mod migrating;
mod names;
// mod plan;
pub(crate) mod roles;
