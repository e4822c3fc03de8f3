//! A wall clock for programs under test. A test can set it while they run.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

/// The library of Debian and its derivatives that replaces a program's clock.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

pub struct SteppedClock {
    library: PathBuf,
    directory: TempDir,
}

impl SteppedClock {
    /// A clock that shows the true time, or `None` if this machine has no libfaketime.
    pub fn new() -> Option<Self> {
        let library = std::fs::read_dir("/usr/lib")
            .ok()?
            .flatten()
            .map(|directory| directory.path().join(LIBRARY))
            .find(|path| path.exists())?;
        let directory = TempDir::new().expect("a directory");
        // The database server runs as another user.
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
            .expect("readable");
        let clock = Self { library, directory };
        clock.set(0.0);
        Some(clock)
    }

    /// Sets the clock ahead of the true time.
    pub fn set(&self, ahead_s: f64) {
        let path = self.file();
        // The rename is atomic, so no program reads half of the file.
        let new = path.with_extension("new");
        std::fs::write(&new, format!("{ahead_s:+.3}")).expect("written");
        std::fs::rename(&new, &path).expect("renamed");
    }

    /// The environment of a program with this clock. Its monotonic clock stays true, as when a real clock is set.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            // With a cache, the processes of a server would see a step up to a second apart.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("difference")
    }
}
