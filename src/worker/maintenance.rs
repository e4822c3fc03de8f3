//! Background work of a worker: deletes finished messages, saves stats, and reports to the other workers.

pub(super) mod janitor;
pub(super) mod reporter;
pub(super) mod stats_flusher;
