//! What the tests stand on: a [`World`] for each test, with a database and a simulated API of its own, and the
//! compiled binary as processes in it. Tests wait for conditions, never for time to pass.
#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "only tests call it, and a panic is how a test fails"
)]

mod machine;
mod pgbouncer;
pub mod postgres;
mod process;
mod rows;
mod scheduler_stalls;
mod stepped_clock;
mod world;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use machine::{Postgres, WholeMachine};
pub use pgbouncer::{PgBouncer, pooled_client};
pub use process::{Finished, Running, Worker, log_lines, worker_binary};
pub use rows::{Attempt, Row, channel, peer};
pub use scheduler_stalls::SchedulerStalls;
pub use stepped_clock::SteppedClock;
pub use world::{
    API_KEY, API_SECRET, APP_ID, World, api_with_limit, basic, fleet, slow_api, warm_up,
};

/// How long anything may take that is not measured: far more than it needs, also where the machine is busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// Says what is not tested for lack of a program. Where all tests are required, that is a failure.
pub fn leave_out(what: &str) {
    let is_allowed = std::env::var_os("REQUIRE_ALL_TESTS").is_none();
    assert!(is_allowed, "{what}, but REQUIRE_ALL_TESTS is set");
    // Not captured: who sees that all is well is to know that it is not all.
    writeln!(std::io::stderr(), "NOTICE: {what}").expect("said");
}

/// Waits until `holds`, and says whether that came before `deadline` was over.
pub async fn comes_true(deadline: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if holds().await {
            return true;
        }
        if begun.elapsed() > deadline {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until `holds`.
///
/// # Panics
/// With `what` was awaited, when that does not come before `deadline` is over.
pub async fn until(what: &str, deadline: Duration, holds: impl AsyncFnMut() -> bool) {
    assert!(
        comes_true(deadline, holds).await,
        "{what}: not so within {deadline:?}"
    );
}

/// Writes a file, and returns its path.
///
/// # Panics
/// Where the file can't be written.
pub fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("written");
    path
}
