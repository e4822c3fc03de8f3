//! How the fleet is doing, as the database has it: looked up for whoever asks, but not more often than once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::outbox::{AppStatus, LaneStatus, Outbox};

/// How old an answer may be.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// How long the database may take for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Tries of one look. A connection that has died meanwhile shows in the statement, and those who look on have two.
pub(super) const TRIES: usize = 3;

/// The last answer. Who comes while one is looked up waits for it.
#[derive(Debug, Default)]
pub(super) struct Fleet(Mutex<Option<Looked>>);

#[derive(Debug)]
struct Looked {
    at: Instant,
    status: Option<Arc<[AppStatus]>>,
}

impl Fleet {
    /// All apps; none where the database does not say.
    pub(super) async fn status(&self, outbox: &Outbox) -> Option<Arc<[AppStatus]>> {
        let mut last = self.0.lock().await;
        if let Some(looked) = &*last
            && looked.at.elapsed() < FRESH_FOR
        {
            return looked.status.clone();
        }
        let status = match tokio::time::timeout(ANSWER_WITHIN, look(outbox)).await {
            Ok(Ok(status)) => Some(status.into()),
            Ok(Err(_)) | Err(_) => None,
        };
        *last = Some(Looked {
            at: Instant::now(),
            status: status.clone(),
        });
        status
    }
}

async fn look(outbox: &Outbox) -> Result<Vec<AppStatus>, sqlx::Error> {
    let mut tries = 1;
    loop {
        match outbox.last_status().await {
            Err(_) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

/// What a lane is doing, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// It sends what is due, at its rate.
    Sending,
    /// A 429 has slowed it.
    Slowed,
    /// The API has asked for a pause.
    Waiting,
    /// A person has paused it.
    Paused,
    /// The API refuses the app's credentials.
    Parked,
    /// The API can't be reached, or answers with errors.
    Broken,
}

impl LaneState {
    pub(super) const ALL: [Self; 6] = [
        Self::Sending,
        Self::Slowed,
        Self::Waiting,
        Self::Paused,
        Self::Parked,
        Self::Broken,
    ];

    /// A lane whose rate is less than this part of its limit is slowed: else it is `1 / 1.02` of it.
    const SLOWED_BELOW: f64 = 0.97;

    pub(super) fn of(lane: &LaneStatus) -> Self {
        match lane.hold.as_deref() {
            _ if lane.paused_at.is_some() => Self::Paused,
            Some("broken") => Self::Broken,
            Some(_) => Self::Parked,
            None if lane.told_to_wait => Self::Waiting,
            None if lane.rate_per_s < Self::SLOWED_BELOW * lane.limit_per_s => Self::Slowed,
            None => Self::Sending,
        }
    }

    /// The value of the label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Slowed => "slowed",
            Self::Waiting => "waiting",
            Self::Paused => "paused",
            Self::Parked => "parked",
            Self::Broken => "broken",
        }
    }
}
