//! Texts about failures and advice to the operator, shared by commands, the dashboard and the log.

use crate::outcome::Fault;

pub(crate) const ASIDE: &str = "check the worker's credentials and its network: its own calls fail while the API accepts messages of other workers. The worker probes the API by itself, and other workers serve the app meanwhile";

/// The state of a worker whose calls fail, before it steps aside or holds the lane.
pub(crate) const DOUBTING: &str =
    "its calls fail, and the worker checks whether the API or the worker itself is at fault";

pub(crate) const NO_WORKER: &str = "start a worker that serves this app. If a worker should be running, its log shows why it ended";

pub(crate) fn refused(app: &str) -> String {
    format!(
        "correct the trigger or the constraint (`\\d signaling.outbox` in psql lists them), then run `worker resume {app}`, which makes the messages due at once. signaling.refused lists them with the code of the error"
    )
}

pub(crate) const FORCED_ROW_SECURITY: &str = "as the tables' owner, run `alter table signaling.… no force row level security`; tables and functions need the same owner, or one with BYPASSRLS";

pub(crate) const ROW_SECURITY: &str = "as a superuser, run `alter role … bypassrls`, or as the tables' owner `alter table signaling.… disable row level security`";

pub(crate) const LOGIN_REFUSED: &str = "put the right password into DATABASE_URL_FILE or a password file (`chmod 600`), which the worker reads for each new connection, or start the worker again with the right DATABASE_URL or PGPASSWORD";

pub(crate) fn fault_texts(fault: Fault) -> (&'static str, &'static str) {
    match fault {
        Fault::Message => (
            "the message or its destination",
            "check the message and its destination: the API rejects this message, or accepts messages to other destinations. The error may name what to correct",
        ),
        Fault::Destination => (
            "the destination",
            "send less to this destination: the API limits this destination, and accepts messages to other ones",
        ),
        Fault::Worker => (
            "the worker",
            "check this worker's credentials and its network: the API accepts messages of other workers. `worker workers` shows whether it has stepped aside. If it died instead, read its log and its host's log",
        ),
        Fault::Api => (
            "the API, or the app's credentials",
            "wait: the worker sends one message at a time until the API accepts it. The vendor's status page may name an outage. After a 401 or 403, correct the app's credentials",
        ),
        Fault::Budget => (
            "the app's budget of calls",
            "find out which other programs call the API with this app ID, or lower WORKER_RATE to what the API allows",
        ),
        Fault::Unclear => (
            "not clear",
            "wait: the worker has too little evidence. If the error names a connection, a redirect or a 404, check AGORA_BASE_URL and the network. A message that still fails WORKER_GIVE_UP_AFTER after its first failure ends as failed",
        ),
    }
}

pub(crate) fn environment_name(environment: Option<&str>) -> String {
    environment.map_or("no environment".into(), |name| {
        format!("the environment {name}")
    })
}

pub(crate) fn adopt(app: &str) -> String {
    format!(
        "if this database is a copy, run `worker adopt {app} --cancel-pending`, or `--send-pending` to send what is pending, with the WORKER_ENVIRONMENT of these workers. Otherwise correct their WORKER_ENVIRONMENT or DATABASE_URL"
    )
}
