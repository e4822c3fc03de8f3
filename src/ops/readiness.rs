//! Readiness: whether this process delivers what it is given, and if not, why. Pure.
//!
//! It says so of the process. That an app is paused, or that the API refuses it, is no fault of the process and would
//! not be mended by another one: it is told as a note.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::sanitize;
use crate::worker::Stuck;

/// For how long the recorder may be behind.
const BEHIND_FOR: Duration = Duration::from_secs(5);
/// The most characters that are told of an error.
const MAX_ERROR_CHARS: usize = 300;

/// How the database is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Database {
    /// It has not been reached since the worker was started; why, where that is known.
    NotYet(Option<String>),
    /// It can't be reached, or does not answer.
    Away(String),
    /// It answers the worker, but has no connection for those who look on.
    AnswersWorker,
    There,
    /// It answers, and has not the schema that is needed.
    Unmigrated(String),
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) is_ending: bool,
    pub(super) database: Database,
    /// The lanes; none until they are open.
    pub(super) lanes: Option<Vec<(String, Option<Stuck>)>>,
    pub(super) behind_for: Option<Duration>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Report {
    pub(super) ready: bool,
    checks: Vec<Check>,
    /// What is worth knowing and no fault of this process.
    notes: Vec<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// What is the matter, in a sentence.
    says: String,
}

impl Report {
    /// Leaves only which checks there are and which of them fail: errors name hosts, users and apps.
    pub(super) fn leave_out_details(&mut self) {
        for check in &mut self.checks {
            check.says = if check.ok {
                "well"
            } else {
                "not well: ask with the token"
            }
            .into();
        }
        self.notes.clear();
    }
}

pub(super) fn report(seen: Seen, notes: Vec<String>) -> Report {
    let checks = vec![
        process(seen.is_ending),
        database(&seen.database),
        schema(&seen.database),
        recorder(seen.behind_for),
        // While the recorder is behind, the lanes wait for it.
        lanes_get_on(seen.lanes, seen.behind_for.is_some()),
    ];
    Report {
        ready: checks.iter().all(|check| check.ok),
        checks,
        notes,
    }
}

fn process(is_ending: bool) -> Check {
    let says = if is_ending {
        "it is shutting down: it claims nothing more, and finishes what is in flight"
    } else {
        "running"
    };
    check("process", !is_ending, says)
}

fn database(database: &Database) -> Check {
    const NAME: &str = "database";
    match database {
        Database::There | Database::Unmigrated(_) => check(NAME, true, "it answers"),
        Database::AnswersWorker => check(
            NAME,
            true,
            "it answers the worker, and has no connection left for this look",
        ),
        Database::NotYet(None) => check(NAME, false, "it has not been reached yet"),
        Database::NotYet(Some(why)) => check(NAME, false, &format!("waiting for it: {why}")),
        Database::Away(why) => check(NAME, false, &format!("it can't be reached: {why}")),
    }
}

fn schema(database: &Database) -> Check {
    const NAME: &str = "schema";
    match database {
        Database::There => check(NAME, true, "all migrations have been run"),
        Database::Unmigrated(why) => check(NAME, false, why),
        // It was there at the start, and is not at fault.
        Database::Away(_) | Database::AnswersWorker => {
            check(NAME, true, "it was there when it was last looked for")
        }
        Database::NotYet(_) => check(NAME, false, "it has not been looked for yet"),
    }
}

fn recorder(behind_for: Option<Duration>) -> Check {
    const NAME: &str = "recorder";
    match behind_for {
        Some(behind_for) if behind_for > BEHIND_FOR => check(
            NAME,
            false,
            &format!(
                "what is known of calls can't be written for {}: nothing new is claimed",
                seconds(behind_for)
            ),
        ),
        _ => check(NAME, true, "what is known of calls is written"),
    }
}

fn lanes_get_on(lanes: Option<Vec<(String, Option<Stuck>)>>, wait_for_recorder: bool) -> Check {
    const NAME: &str = "lanes";
    let Some(lanes) = lanes else {
        return check(NAME, false, "they are not open yet");
    };
    let mut stuck = lanes
        .iter()
        .filter_map(|(app, stuck)| Some((app, stuck.as_ref()?)))
        .filter(|_| !wait_for_recorder);
    let Some((app, first)) = stuck.next() else {
        return check(NAME, true, &format!("all {} get on", lanes.len()));
    };
    let mut says = format!(
        "the app {app} has not got on for {}",
        seconds(first.silent_for)
    );
    if let Some(error) = &first.error {
        // Writing into a string does not fail.
        write!(says, ": {error}").ok();
    }
    let others = stuck.count();
    if others > 0 {
        write!(says, "; nor have {others} others").ok();
    }
    check(NAME, false, &says)
}

fn check(name: &'static str, ok: bool, says: &str) -> Check {
    Check {
        name,
        ok,
        says: sanitize::text(says, MAX_ERROR_CHARS),
    }
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for Check { name, ok, says } in &report.checks {
        let verdict = if *ok { "ok  " } else { "FAIL" };
        writeln!(text, "{verdict} {name}: {says}").ok();
    }
    for note in &report.notes {
        writeln!(text, "note {note}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Seen {
        Seen {
            is_ending: false,
            database: Database::There,
            lanes: Some(vec![("default".into(), None), ("other".into(), None)]),
            behind_for: None,
        }
    }

    fn stuck() -> Stuck {
        Stuck {
            silent_for: Duration::from_secs(70),
            error: Some("no".into()),
        }
    }

    /// The sentence of the only check that fails.
    fn fault(seen: Seen) -> String {
        let report = report(seen, Vec::new());
        let mut faults = report.checks.into_iter().filter(|check| !check.ok);
        let fault = faults.next().expect("a fault");
        assert_eq!(faults.next(), None);
        assert!(!report.ready);
        format!("{}: {}", fault.name, fault.says)
    }

    #[test]
    fn a_worker_that_is_well_is_ready_whatever_its_notes() {
        let report = report(well(), vec!["the app default is paused by a person".into()]);
        assert!(report.ready);
        let text = text(&report);
        assert!(text.contains("ok   lanes: all 2 get on\nnote the app default is paused"));
        assert_eq!(text.lines().count(), 6);
    }

    #[test]
    fn each_fault_is_told_in_a_sentence() {
        let ending = Seen {
            is_ending: true,
            ..well()
        };
        assert!(fault(ending).starts_with("process: it is shutting down"));
        let away = Seen {
            database: Database::Away("refused".into()),
            ..well()
        };
        assert_eq!(fault(away), "database: it can't be reached: refused");
        let unmigrated = Seen {
            database: Database::Unmigrated("run `worker migrate` first".into()),
            ..well()
        };
        assert_eq!(fault(unmigrated), "schema: run `worker migrate` first");
        let behind = Seen {
            behind_for: Some(Duration::from_secs(6)),
            ..well()
        };
        assert!(
            fault(behind).starts_with("recorder: what is known of calls can't be written for 6 s")
        );
        let one_stuck = Seen {
            lanes: Some(vec![
                ("default".into(), None),
                ("other".into(), Some(stuck())),
            ]),
            ..well()
        };
        assert_eq!(
            fault(one_stuck),
            "lanes: the app other has not got on for 70 s: no"
        );
    }

    #[test]
    fn a_worker_that_waits_for_its_database_is_not_ready() {
        let waiting = Seen {
            database: Database::NotYet(Some("refused".into())),
            lanes: None,
            ..well()
        };
        let text = text(&report(waiting, Vec::new()));
        assert!(text.contains("FAIL database: waiting for it: refused"));
        assert!(text.contains("FAIL lanes: they are not open yet"));
    }

    #[test]
    fn lanes_that_wait_for_the_recorder_are_not_stuck() {
        let seen = Seen {
            lanes: Some(vec![("default".into(), Some(stuck()))]),
            behind_for: Some(Duration::from_secs(1)),
            ..well()
        };
        assert!(report(seen, Vec::new()).ready);
    }
}
