//! Writes down what the lanes have counted, and has what waits counted, for the whole fleet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error_text::database_error_text;
use crate::outbox::{MinuteStats, Outbox, may_have_taken_effect};
use crate::worker::lane::Lane;
use crate::worker::panic_point::panic_point;

/// How often stats are written, where there are any.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How often the fleet counts what waits; less often where counting takes longer than a tenth of a second.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The stats of all lanes of a process.
pub(in crate::worker) struct StatsFlusher {
    pub(in crate::worker) outbox: Arc<Outbox>,
    pub(in crate::worker) lanes: Vec<Arc<Lane>>,
}

impl StatsFlusher {
    /// Keeps books until the shutdown.
    pub(in crate::worker) async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        tokio::join!(
            self.write_until(&shutdown),
            shutdown.run_until_cancelled(self.count_forever())
        );
    }

    /// What is being written when the shutdown comes, gets written: it is counted nowhere else any more.
    async fn write_until(&self, shutdown: &CancellationToken) {
        let mut trouble = FailureLog::default();
        let pause = || shutdown.run_until_cancelled(tokio::time::sleep(WRITE_EVERY));
        while pause().await.is_some() {
            panic_point("stats_flusher", 0);
            trouble.note(self.write().await, |error| {
                tracing::warn!(
                    event = "stats_failed",
                    error,
                    "what was done can't be added up: messages go on, stats are missing"
                );
            });
        }
    }

    async fn count_forever(&self) {
        let mut trouble = FailureLog::default();
        loop {
            let began = Instant::now();
            let counted = self.outbox.refresh_queue_counts(COUNT_EVERY / 2).await;
            trouble.note(counted.map(drop), |error| {
                tracing::warn!(
                    event = "queue_counts_failed",
                    error,
                    "what waits can't be counted: messages go on, stats are missing"
                );
            });
            tokio::time::sleep_until((began + COUNT_EVERY).into()).await;
        }
    }

    /// Writes what was counted. What may have been written, though the database did not say so, is not written again:
    /// stats rather miss something than tell of it twice.
    ///
    /// # Errors
    /// Where the database fails.
    pub(in crate::worker) async fn write(&self) -> Result<(), sqlx::Error> {
        let taken: Vec<_> = self
            .lanes
            .iter()
            .flat_map(|lane| {
                let minutes = lane.stats.minutes.take();
                minutes
                    .into_iter()
                    .map(move |(minute, stats)| (lane, minute, stats))
            })
            .collect();
        if taken.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = taken
            .iter()
            .map(|(lane, minute, stats)| MinuteStats {
                minute: *minute,
                app: lane.app.clone(),
                stats: *stats,
                backlog: None,
            })
            .collect();
        let written = self.outbox.add_minute_stats(&rows).await;
        if let Err(error) = &written
            && !may_have_taken_effect(error)
        {
            for (lane, minute, stats) in taken {
                lane.stats.minutes.put_back(minute, &stats);
            }
        }
        written
    }
}

/// Says once that something fails, and again after it went well.
#[derive(Default)]
struct FailureLog {
    is_logged: bool,
}

impl FailureLog {
    fn note(&mut self, result: Result<(), sqlx::Error>, log: impl FnOnce(String)) {
        match result {
            Ok(()) => self.is_logged = false,
            Err(error) => {
                if !self.is_logged {
                    log(database_error_text(&error));
                }
                self.is_logged = true;
            }
        }
    }
}
