//! The clock that people read, as the workers see it: it can be set while they run.

use std::path::PathBuf;

use tempfile::TempDir;

use testkit::Worker;

/// Where Debian and its relatives keep the library that stands between a program and the clock.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A clock for a fleet, as far as this machine has libfaketime.
pub(crate) struct SteppedClock {
    faketime: Option<PathBuf>,
    directory: TempDir,
}

impl SteppedClock {
    pub(crate) fn new() -> Self {
        let faketime = std::fs::read_dir("/usr/lib")
            .into_iter()
            .flatten()
            .flatten()
            .map(|directory| directory.path().join(LIBRARY))
            .find(|path| path.exists());
        let clock = Self {
            faketime,
            directory: TempDir::new().expect("a directory"),
        };
        clock.set("+0");
        clock
    }

    /// Whether it can be set.
    pub(crate) fn is_there(&self) -> bool {
        self.faketime.is_some()
    }

    /// Steps the clock: the difference to the true time, such as `+3600` seconds. Programs see it within a second.
    pub(crate) fn set(&self, difference: &str) {
        let path = self.directory.path().join("difference");
        // In one step, so that nobody reads half of it.
        let new = path.with_extension("new");
        std::fs::write(&new, difference).expect("written");
        std::fs::rename(&new, &path).expect("renamed");
    }

    /// Makes a worker look at this clock. Its measure of time stays true, as it does when a clock is set.
    pub(crate) fn govern(&self, worker: Worker) -> Worker {
        let Some(faketime) = &self.faketime else {
            return worker;
        };
        let file = self.directory.path().join("difference");
        worker
            .env("LD_PRELOAD", &faketime.to_string_lossy())
            .env("FAKETIME_TIMESTAMP_FILE", &file.to_string_lossy())
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
    }
}
