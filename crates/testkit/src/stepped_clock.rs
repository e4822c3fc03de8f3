//! The clock that people read, as programs under test see it: it can be set while they run.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::process::Worker;

/// Where Debian and its relatives keep the library that stands between a program and the clock.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// A clock of some programs.
pub struct SteppedClock {
    library: PathBuf,
    directory: TempDir,
}

impl SteppedClock {
    /// A clock that shows the true time, or none if this machine has no libfaketime.
    pub fn new() -> Option<Self> {
        let library = std::fs::read_dir("/usr/lib")
            .ok()?
            .flatten()
            .map(|directory| directory.path().join(LIBRARY))
            .find(|path| path.exists())?;
        let directory = TempDir::new().expect("a directory");
        // The server of a database runs as another user.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .expect("readable");
        let clock = Self { library, directory };
        clock.set(0.0);
        Some(clock)
    }

    /// Sets the clock to so many seconds ahead of the true time.
    pub fn set(&self, ahead_s: f64) {
        let path = self.file();
        // In one step, so that no program reads half of it.
        let new = path.with_extension("new");
        std::fs::write(&new, format!("{ahead_s:+.3}")).expect("written");
        std::fs::rename(&new, &path).expect("renamed");
    }

    /// The environment of a program that goes by this clock. Its measure of time stays true, as it does when a clock is
    /// set.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", text(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", text(self.file())),
            // Else each process of a server would see the step at another time, up to a second later.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Makes a worker go by this clock.
    pub fn govern(&self, worker: Worker) -> Worker {
        let environment = self.environment().into_iter();
        environment.fold(worker, |worker, (name, value)| worker.env(&name, &value))
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("difference")
    }
}
