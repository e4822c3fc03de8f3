//! What the settings and the host say.

use super::Finding;
use crate::config::WorkerConfig;

pub(crate) fn settings(config: &WorkerConfig) -> Finding {
    let apps: Vec<_> = config
        .apps
        .iter()
        .map(|app| format!("{} ({} calls/s)", app.alias, app.limit_per_s))
        .collect();
    Finding::ok(
        "settings",
        format!(
            "apps: {}; lease {}, request timeout {}",
            apps.join(", "),
            humantime::format_duration(config.timing.lease),
            humantime::format_duration(config.timing.request_timeout)
        ),
    )
}

/// A setting of an app whose value is probably a mistake.
pub(crate) fn odd_value(variable: &str, why: &str) -> Finding {
    Finding::warn(
        "settings",
        format!("{variable} {why}"),
        "compare it with the vendor's console: a file of variables may keep quotation marks as a part of the value, and a copy may bring characters that nobody sees",
    )
}

/// Whether this host lets a process have as many files open as there may be calls in flight. A worker raises its soft
/// limit by itself, up to the hard one.
pub(crate) fn files(needed: u64, hard_limit: u64) -> Finding {
    if hard_limit < needed {
        return Finding::warn(
            "files",
            format!("a process may have {hard_limit} open, and a worker may need {needed}"),
            "raise the hard limit of open files (`ulimit -Hn`, LimitNOFILE), or lower WORKER_MAX_IN_FLIGHT",
        );
    }
    Finding::ok(
        "files",
        format!("a worker may need {needed} open, and may have them"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn a_host_that_does_not_allow_the_calls_in_flight_is_warned_of() {
        assert_eq!(files(1_124, 1_124).level, Level::Ok);
        let finding = files(1_124, 1_123);
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.found.contains("1123") && finding.found.contains("1124"));
    }
}
