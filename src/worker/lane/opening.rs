//! Opens the lane of an app: when the worker starts, when somebody has deleted the lane's row, and when the row says that
//! the app belongs to another environment.

use super::Lane;
use crate::outbox::LaneOpening;

/// Why a lane is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum LaneSearch {
    Starting,
    /// A claim has found no lane.
    Missed,
    /// A claim has found that the lane belongs to another environment.
    OtherEnvironment,
}

impl Lane {
    /// Makes sure that the lane is there and belongs to this worker's environment. If it belongs to another one, this
    /// worker sends no message of the app until an operator adopts it; its other apps go on.
    pub(in crate::worker) async fn open(&self, why: LaneSearch) -> Result<(), sqlx::Error> {
        let (app, environment) = (&self.app, self.shared.environment.as_deref());
        let is_missed = why == LaneSearch::Missed;
        let outbox = &self.shared.outbox;
        let opening = outbox.open_lane(app, self.limit_per_s, environment, is_missed);
        match opening.await? {
            LaneOpening::Refused {
                environment,
                pending,
            } => {
                self.log()
                    .refused(app, self.now(), environment.as_deref(), pending);
                return Ok(());
            }
            LaneOpening::Named => tracing::info!(
                event = "lane_environment_set",
                app,
                environment,
                "the app belongs to this environment from now on: workers of another one refuse it"
            ),
            LaneOpening::Open | LaneOpening::Made => {}
        }
        match why {
            LaneSearch::Missed => tracing::warn!(
                event = "lane_missed",
                app,
                limit_per_s = self.limit_per_s,
                "the row of this app in signaling.lane was deleted, and is made again with the configured limit. A pause, a hold and a limit that an operator had set are gone: repeat `worker pause` or `worker limit` if you need them"
            ),
            // The environment is this worker's by now.
            LaneSearch::OtherEnvironment => self.wake(),
            LaneSearch::Starting => {}
        }
        Ok(())
    }

    /// True if the app belongs to another environment, so that this worker must change nothing of it.
    pub(in crate::worker) fn is_refused(&self) -> bool {
        self.log().is_refused()
    }
}
