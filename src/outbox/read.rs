//! Queries for operators and monitors: status, search, one message, groups of failures. Each is bounded.

mod detail;
mod failures;
mod lane_status;
mod message_state;
mod search;
mod status;
mod workers;

pub(crate) use detail::*;
pub(crate) use failures::*;
pub(crate) use lane_status::*;
pub(crate) use message_state::*;
pub(crate) use search::*;
pub(crate) use status::AppStatus;
pub(crate) use workers::*;
