//! Background work of a worker: deletes finished messages, saves stats, and reports to the other workers.

mod janitor;
mod reporter;
mod stats_flusher;

pub(super) use janitor::run as delete_finished;
pub(super) use reporter::Reporter;
pub(super) use stats_flusher::StatsFlusher;
