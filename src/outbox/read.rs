//! Queries for operators and monitors: status, search, one message, groups of failures. Each is bounded.

mod detail;
mod failures;
mod lane_status;
mod message_state;
mod search;
mod status;
mod workers;

pub(crate) use detail::{
    CallDetail, LaneDetail, MessageDetail, MessageError, MessageRow, NextStep,
};
pub(crate) use failures::{FailureGroup, FailureKey, Failures, MAX_CALLS_LOOKED_AT, MAX_RETRIED};
#[cfg(test)]
pub(crate) use lane_status::Obstacle;
pub(crate) use lane_status::{AppLane, LaneState, LaneStatus, ObstacleKind, Pending};
pub(crate) use message_state::MessageState;
pub(crate) use search::{MessageFilter, MessageLine, MessagePage, PAGE_ROWS, PENDING, STATES};
pub(crate) use status::AppStatus;
pub(crate) use workers::{ServedApp, WorkerStatus};
