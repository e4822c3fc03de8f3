//! Texts for people about whose fault a failed attempt is, and what to do. Commands and the dashboard share them.

use crate::outcome::Fault;

/// Advice to an operator about a worker that has stepped aside.
pub(crate) const ASIDE: &str = "its own calls fail while messages of other workers are accepted: check its credentials and its network. It tries again by itself, and other workers serve the app meanwhile";

/// A worker whose calls fail, and that does not know yet whether the API is at fault.
pub(crate) const DOUBTING: &str =
    "its calls fail, and it is finding out whether the API or the worker itself is at fault";

/// Advice to an operator of an app without a worker that is alive.
pub(crate) const NO_WORKER: &str =
    "start a worker that serves this app; if one should be running, its log says why it ended";

/// Advice to an operator about messages that the database refuses to change.
pub(crate) fn refused(app: &str) -> String {
    format!(
        "correct the trigger or the constraint that `worker check` names, then run `worker resume {app}`, which has them tried at once. signaling.refused lists them with the code of the error"
    )
}

/// Whose fault it is, as people say it.
pub(crate) fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Message => "the message or its destination",
        Fault::Destination => "the destination",
        Fault::Worker => "the worker",
        Fault::Api => "the API, or the app's credentials",
        Fault::Budget => "the app's budget of calls",
        Fault::Unclear => "not clear",
    }
}

/// Advice about a failed attempt.
pub(crate) fn fault_advice(fault: Fault, is_lost: bool) -> &'static str {
    match fault {
        Fault::Message => {
            "look at the message and at its destination: the API rejects this message, or accepts others. The error may name what to correct"
        }
        Fault::Destination => {
            "send less to this destination: the API limits it, and accepts messages to others"
        }
        Fault::Worker if is_lost => {
            "find out why this worker ended without recording its calls: its log and its host's log say more"
        }
        Fault::Worker => {
            "check this worker's credentials and its network: messages of other workers are accepted. `worker workers` shows whether it has stepped aside"
        }
        Fault::Api => {
            "wait: one message at a time is tried until the API accepts it. The vendor's status page may name an outage. After a 401 or 403, correct the app's credentials"
        }
        Fault::Budget => {
            "find out which other programs call the API with this app ID, or lower WORKER_RATE to what the API allows"
        }
        Fault::Unclear => {
            "wait: the worker has too little evidence. If the error names a connection, a redirect or a 404, check AGORA_BASE_URL and the network. A message that still fails WORKER_GIVE_UP_AFTER after its first failure ends as failed"
        }
    }
}

/// The environment of an app or of a worker, in words.
pub(crate) fn environment_name(environment: Option<&str>) -> String {
    environment.map_or_else(
        || "no environment".to_owned(),
        |name| format!("the environment {name}"),
    )
}

/// Advice to an operator of an app whose environment is not that of its workers.
pub(crate) fn adopt(app: &str) -> String {
    format!(
        "if this database is a copy, run `worker adopt {app} --cancel-pending`, or `--send-pending` to send what is pending, with the WORKER_ENVIRONMENT of these workers. Otherwise correct their WORKER_ENVIRONMENT or DATABASE_URL"
    )
}

/// The fault in a column of that name. None if there is none, or a newer version has written another one.
pub(crate) fn parse_fault(text: &str) -> Option<Fault> {
    const ALL: [Fault; 6] = [
        Fault::Message,
        Fault::Destination,
        Fault::Worker,
        Fault::Api,
        Fault::Budget,
        Fault::Unclear,
    ];
    ALL.into_iter().find(|fault| fault.as_str() == text)
}
