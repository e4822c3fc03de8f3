//! Queries for operators and monitors: status, search, one message, groups of failures. Each is bounded.

mod detail;
mod failures;
mod lane_status;
mod search;
mod status;

pub use detail::{
    CallDetail, LaneDetail, MessageDetail, MessageError, MessageRow, NextStep, PayloadDetail,
};
pub use failures::{FailureGroup, FailureKey, Failures, MAX_CALLS_LOOKED_AT, MAX_RETRIED};
pub use lane_status::{AppLane, LaneState, LaneStatus, Pending};
pub use search::{MessageFilter, MessageLine, MessagePage, PAGE_ROWS, PENDING, STATES};
pub use status::{AppStatus, Percentiles, SampleRow};
