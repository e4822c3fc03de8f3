//! Judges the hosts of the database.

use std::time::Duration;

use super::Finding;
use crate::outbox::{HostSurvey, ServerDiagnostics};

/// Lists the hosts of a URL with several. None for a single host, because the finding `database` reports its state.
pub(crate) fn hosts(hosts: &[HostSurvey]) -> Option<Finding> {
    if hosts.len() < 2 {
        return None;
    }
    let states: Vec<String> = hosts
        .iter()
        .map(|host| {
            let state = match &host.takes_writes {
                Ok(true) => "takes writes",
                Ok(false) => "takes no writes",
                Err(why) => why,
            };
            format!("{} {state}", host.host)
        })
        .collect();
    let states = states.join("; ");
    Some(if hosts.iter().all(|host| host.takes_writes.is_ok()) {
        Finding::ok("hosts", states)
    } else {
        Finding::warn(
            "hosts",
            states,
            "repair the host before the next failover, or remove it from DATABASE_URL: workers skip it until then",
        )
    })
}

/// Reports that the server ends idle sessions. None if it does not, or if a pooler owns the sessions.
pub(crate) fn idle_sessions(facts: &ServerDiagnostics, pooler: bool) -> Option<Finding> {
    let timeout_ms = u64::try_from(facts.idle_session_timeout_ms).unwrap_or(0);
    if timeout_ms == 0 || pooler {
        return None;
    }
    let timeout = humantime::format_duration(Duration::from_millis(timeout_ms));
    Some(Finding::ok(
        "idle sessions",
        format!(
            "the server ends idle sessions after {timeout}; the worker disables that for its own sessions"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    fn host(name: &str, takes_writes: Result<bool, &str>) -> HostSurvey {
        HostSurvey {
            host: name.into(),
            takes_writes: takes_writes.map_err(str::to_owned),
        }
    }

    #[test]
    fn an_unusable_host_warns_although_another_host_serves() {
        assert_eq!(hosts(&[host("a:1", Err("refused"))]), None);
        let well = hosts(&[host("a:1", Ok(true)), host("b:2", Ok(false))]).expect("a finding");
        assert_eq!(well.level, Level::Ok);
        assert_eq!(well.found, "a:1 takes writes; b:2 takes no writes");
        let one = hosts(&[host("a:1", Ok(true)), host("b:2", Err("refused"))]).expect("a finding");
        assert_eq!(one.level, Level::Warn);
        assert!(one.found.ends_with("b:2 refused"), "{one:?}");
    }
}
