//! Compares the worker's environment with the environment of each app. A worker refuses the messages of another environment.

use super::Finding;
use crate::advice;
use crate::outbox::AppLane;

const SUBJECT: &str = "environment";

pub(crate) fn setting(environment: Option<&str>) -> Finding {
    match environment {
        Some(name) => Finding::ok(
            SUBJECT,
            format!("{name}; on a copy of this database, workers of another environment refuse the messages"),
        ),
        None => Finding {
            advice: Some(
                "set WORKER_ENVIRONMENT, such as production, on all workers: otherwise a worker on a copy of this database sends the pending messages again".into(),
            ),
            ..Finding::ok(SUBJECT, "none is set")
        },
    }
}

/// Fails if the app belongs to another environment than the worker. None if the worker may serve the app.
pub(crate) fn lane(app: &str, environment: Option<&str>, lanes: &[AppLane]) -> Option<Finding> {
    let found = lanes.iter().find(|lane| lane.app == app)?;
    let of_lane = found.lane.as_ref()?.environment.as_deref()?;
    if environment == Some(of_lane) {
        return None;
    }
    let pending = &found.pending;
    let text = format!(
        "it belongs to {}, and this worker to {}: the worker refuses its messages, of which {} were pending at the last count",
        advice::environment_name(Some(of_lane)),
        advice::environment_name(environment),
        pending.backlog() + pending.scheduled + pending.sending,
    );
    Some(Finding::fail("lane", text, advice::adopt(app)).of_app(app))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;
    use crate::outbox::{LaneStatus, Pending};

    fn lanes(environment: Option<&str>) -> Vec<AppLane> {
        vec![AppLane {
            app: "default".into(),
            lane: Some(LaneStatus {
                environment: environment.map(str::to_owned),
                ..LaneStatus::sending()
            }),
            pending: Pending {
                queued: 40,
                scheduled: 2,
                ..Pending::default()
            },
        }]
    }

    #[test]
    fn a_lane_of_another_environment_fails_with_its_messages_and_what_to_do() {
        for own in [Some("staging"), None] {
            let finding = lane("default", own, &lanes(Some("production"))).expect("a finding");
            assert_eq!(finding.level, Level::Fail);
            assert!(finding.found.contains("production") && finding.found.contains("42"));
            let advice = finding.advice.expect("advice");
            assert!(advice.contains("worker adopt default --cancel-pending"));
        }
    }

    #[test]
    fn a_lane_of_the_same_environment_or_of_none_is_served() {
        assert_eq!(lane("default", Some("a"), &lanes(Some("a"))), None);
        assert_eq!(lane("default", Some("a"), &lanes(None)), None);
        assert_eq!(lane("default", None, &lanes(None)), None);
        assert_eq!(lane("other", Some("a"), &lanes(Some("b"))), None);
    }

    #[test]
    fn a_worker_without_an_environment_is_advised_to_have_one() {
        assert_eq!(setting(Some("production")).advice, None);
        let finding = setting(None);
        assert_eq!(finding.level, Level::Ok);
        assert!(
            finding
                .advice
                .expect("advice")
                .contains("WORKER_ENVIRONMENT")
        );
    }
}
