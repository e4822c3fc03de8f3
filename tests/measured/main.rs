//! Tests that measure: rates, gaps, and how long a lock is held. Each has the machine for itself, because its calls
//! would be late where the processes of other tests compete for a processor.

mod blame;
#[path = "../it/certificates.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod certificates;
mod isolation;
mod many_apps;
mod migration_locks;
mod pace;
mod peak_rate;
mod pgbouncer;
mod rolling_restart;
mod suspended;
mod throttle;
