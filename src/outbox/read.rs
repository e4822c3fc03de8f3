//! Queries for operators and monitoring systems: status, search, one message, groups of failures. Each query is bounded.

mod detail;
mod failures;
mod search;
mod status;
mod workers;

pub(crate) use detail::*;
pub(crate) use failures::*;
pub(crate) use search::*;
pub(crate) use status::*;
pub(crate) use workers::*;
