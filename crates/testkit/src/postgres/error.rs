use std::{io, path::PathBuf, time::Duration};

/// Why there is no throwaway cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// This machine has no server programs that work.
    #[error(
        "found no PostgreSQL server: looked for `initdb` and `postgres` {looked_in}{}. Install it (Debian, Ubuntu: \
         `apt-get install postgresql`; Fedora: `dnf install postgresql-server`; macOS: `brew install postgresql`) or \
         name the directory of its programs in WORKER_PG_BINDIR",
        unusable.as_deref().map(|why| format!(" ({why})")).unwrap_or_default()
    )]
    NotFound {
        looked_in: String,
        /// What was found but could not be run, and why.
        unusable: Option<String>,
    },
    /// PostgreSQL refuses to run as root, and there is no other user to run it as.
    #[error(
        "PostgreSQL refuses to run as root, and /etc/passwd names neither `postgres` nor `nobody`: start this as \
         another user"
    )]
    NoAccount,
    /// No directory for temporary files can be used.
    #[error(
        "no directory for PostgreSQL's files: {} must be short enough for a socket's path, and open to the user that \
         runs PostgreSQL; set TMPDIR to one that is",
        tried.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NoDirectory {
        /// The directories that were tried.
        tried: Vec<PathBuf>,
    },
    /// No free port was found.
    #[error("found no free TCP port for PostgreSQL on 127.0.0.1")]
    NoPort,
    /// `initdb` or the server ended by itself.
    #[error("PostgreSQL ended while {doing}; the end of its log:\n{log}")]
    Failed {
        doing: &'static str,
        /// The last lines that it wrote.
        log: String,
    },
    /// PostgreSQL took longer than is reasonable.
    #[error("PostgreSQL was not done with {doing} after {after:?}; the end of its log:\n{log}")]
    TimedOut {
        doing: &'static str,
        after: Duration,
        /// The last lines that it wrote.
        log: String,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        doing: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The cluster runs, but refused a statement.
    #[error("the throwaway PostgreSQL refused a statement: {0}")]
    Statement(#[from] sqlx::Error),
}

impl PostgresError {
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}
