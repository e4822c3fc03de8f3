//! Test support: a [`World`] for each test, with its own database and simulated API, and the compiled worker as
//! processes in it. Tests wait for conditions, never for a fixed time.
#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "only tests and the benchmark call it, and a panic ends them"
)]

mod databases;
mod pgbouncer;
mod process;
mod rows;
mod scheduler_stalls;
mod stepped_clock;
mod world;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use testkit::postgres;

pub use databases::{ALTER_EVERY_FUNCTION, Postgres};
pub use pgbouncer::{PgBouncer, pooled_client};
pub use process::{Finished, Running, Worker, log_lines, worker_binary};
pub use rows::{Attempt, Row, channel, peer};
pub use scheduler_stalls::SchedulerStalls;
pub use stepped_clock::SteppedClock;
pub use world::{
    API_KEY, API_SECRET, APP_ID, World, api_with_limit, app_table, ask, basic, execute, fleet,
    set_faults, slow_api, whole_machine,
};

/// The timeout of anything that a test does not measure: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

const POLL_INTERVAL: Duration = Duration::from_millis(15);

/// Reports what a test skips because a program is missing. With `REQUIRE_ALL_TESTS`, that is a failure.
pub fn skip(what: &str) {
    let is_allowed = std::env::var_os("REQUIRE_ALL_TESTS").is_none();
    assert!(is_allowed, "REQUIRE_ALL_TESTS forbids to skip {what}");
    // The test harness hides the output of `eprintln!` where tests pass.
    writeln!(std::io::stderr(), "skipped {what}").expect("written");
}

/// Polls a condition. Returns false if it does not hold before `deadline`.
pub async fn comes_true(deadline: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !holds().await {
        if begun.elapsed() > deadline {
            return false;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    true
}

/// Waits until a condition holds. After `deadline`, it panics with `what`.
pub async fn until(what: &str, deadline: Duration, holds: impl AsyncFnMut() -> bool) {
    assert!(
        comes_true(deadline, holds).await,
        "{what}: not true within {deadline:?}"
    );
}

#[track_caller]
pub fn assert_contains(text: &str, phrases: &[&str]) {
    for phrase in phrases {
        assert!(text.contains(phrase), "{phrase:?} is missing: {text}");
    }
}

pub fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("written");
    path
}
