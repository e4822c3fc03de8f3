//! Opens the lane of an app: when the worker starts, when the lane's row was deleted, and when the row names another
//! environment.

use super::Lane;
use crate::outbox::LaneOpening;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker) enum OpenReason {
    Startup,
    /// A claim found no row.
    RowMissing,
    /// A claim found that the lane belongs to another environment.
    OtherEnvironment,
}

impl Lane {
    /// Makes sure that the lane exists and belongs to this worker's environment. If the lane belongs to another environment,
    /// this worker sends no message of the app until an operator adopts the app. The worker's other apps go on.
    pub(in crate::worker) async fn open(&self, reason: OpenReason) -> Result<(), sqlx::Error> {
        let (app, environment) = (&self.app, self.shared.environment.as_deref());
        let is_missing = reason == OpenReason::RowMissing;
        let outbox = &self.shared.outbox;
        let opening = outbox.open_lane(app, self.limit_per_s, environment, is_missing);
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
        match reason {
            OpenReason::RowMissing => tracing::warn!(
                event = "lane_missing",
                app,
                limit_per_s = self.limit_per_s,
                "the row of this app in signaling.lane was deleted, and is made again with the configured limit. A pause, a hold and a limit that an operator had set are gone: repeat `worker pause` or `worker limit` if you need them"
            ),
            // An operator has adopted the app by now.
            OpenReason::OtherEnvironment => self.wake(),
            OpenReason::Startup => {}
        }
        Ok(())
    }

    /// True if the app belongs to another environment: this worker must change none of its rows.
    pub(in crate::worker) fn is_refused(&self) -> bool {
        self.log().is_refused()
    }
}
