//! Judges the lane of an app: its environment, its obstacles and its limit.

use super::Finding;
use crate::advice;
use crate::outbox::{AppStatus, LaneState};

const SUBJECT: &str = "lane";

pub(crate) fn environment(environment: Option<&str>) -> Finding {
    match environment {
        Some(name) => Finding::ok(
            "environment",
            format!("{name}; on a copy of this database, workers of another environment refuse the messages"),
        ),
        None => Finding {
            advice: Some(
                "set WORKER_ENVIRONMENT, such as production, on all workers: otherwise a worker on a copy of this database sends the pending messages again".into(),
            ),
            ..Finding::ok("environment", "none is set")
        },
    }
}

/// Fails if the app belongs to another environment than the worker. Warns about an obstacle that a new worker does not end.
pub(crate) fn lane(
    app: &str,
    limit_per_s: f64,
    environment: Option<&str>,
    lanes: &[AppStatus],
) -> Finding {
    let found = lanes.iter().find(|lane| lane.app == app);
    let Some((lane, pending)) = found.and_then(|app| Some((app.lane.as_ref()?, &app.pending)))
    else {
        return Finding::ok(SUBJECT, "no worker has served this app yet").of_app(app);
    };
    let of_lane = lane.environment.as_deref();
    let obstacle = lane.obstacles.iter().find(|obstacle| {
        use LaneState::{NoWorker, OtherEnvironment};
        !matches!(obstacle.kind, NoWorker | OtherEnvironment)
    });
    let finding = if of_lane.is_some() && of_lane != environment {
        let messages = pending.backlog() + pending.scheduled + pending.sending;
        Finding::fail(
            SUBJECT,
            format!(
                "it belongs to {}, and this worker to {}: the worker refuses its messages, of which {messages} were pending at the last count",
                advice::environment_name(of_lane),
                advice::environment_name(environment),
            ),
            advice::adopt(app),
        )
    } else if let Some(obstacle) = obstacle {
        use LaneState::{NoWorker, OtherEnvironment, Paused, Sending, Throttled, Waiting};
        let advice = match obstacle.kind {
            LaneState::Unauthorized => {
                "correct the app's credentials, such as AGORA_API_KEY: sending resumes when the API accepts, rejects or throttles a probe"
            }
            LaneState::Unavailable => {
                "wait: sending resumes when the API accepts, rejects or throttles a probe"
            }
            Paused => "run `worker resume` with the app's name",
            Waiting | NoWorker | OtherEnvironment | Sending | Throttled => {
                "wait, or run `worker resume` with the app's name"
            }
        };
        Finding::warn(SUBJECT, &obstacle.sentence, advice)
    } else if (lane.configured_per_s - limit_per_s).abs() > f64::EPSILON {
        let others = lane.configured_per_s;
        Finding::warn(
            SUBJECT,
            format!(
                "other workers are configured with {others} calls/s, and this one with {limit_per_s}"
            ),
            "set the same WORKER_RATE on all workers of the app: the worker that starts last sets the limit",
        )
    } else if lane.is_throttled() {
        Finding::warn(
            SUBJECT,
            format!("throttled to {:.0} calls/s by a 429", lane.rate_per_s),
            "wait: the workers raise the rate again. If the rate stays low, look for other programs that call the API with this app ID, or lower WORKER_RATE",
        )
    } else {
        let found = format!("sends at most {} calls/s", lane.limit_per_s);
        Finding::ok(SUBJECT, found)
    };
    finding.of_app(app)
}
