//! Judges the settings and the limits of this host.

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

/// A value that is probably a mistake.
pub(crate) fn odd_value(variable: &str) -> Finding {
    Finding::warn(
        "settings",
        format!(
            "{variable} has quotation marks around it, white space inside, or characters other than ASCII"
        ),
        "compare the value with the vendor's console: an env file may keep quotation marks in the value, and a copied value may contain invisible characters",
    )
}

/// Warns if the hard limit of open files is too low for all calls in flight. A worker raises only its soft limit itself.
pub(crate) fn files(needed: u64, hard_limit: u64) -> Finding {
    if hard_limit < needed {
        return Finding::warn(
            "files",
            format!("a process may open {hard_limit}, and a worker may need {needed}"),
            "raise the hard limit of open files (`ulimit -Hn`, LimitNOFILE), or lower WORKER_MAX_IN_FLIGHT",
        );
    }
    Finding::ok(
        "files",
        format!("a worker may need {needed} open files, and the limit allows them"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn a_limit_of_open_files_below_the_calls_in_flight_warns() {
        assert_eq!(files(1_124, 1_124).level, Level::Ok);
        let finding = files(1_124, 1_123);
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.found.contains("1123") && finding.found.contains("1124"));
    }
}
