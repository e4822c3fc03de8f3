//! Background work of a worker: deletes finished messages, and saves stats.

mod janitor;
mod stats_flusher;

pub(super) use janitor::run as delete_finished;
pub(super) use stats_flusher::StatsFlusher;
