//! The texts and the version of the schema's functions.

/// Equal to `migrations/functions/protocol_version.sql`.
pub(super) const PROTOCOL_VERSION: i32 = 1;

macro_rules! functions {
    ($($name:ident)*) => {
        &[$((
            stringify!($name),
            include_str!(concat!("../../../migrations/functions/", stringify!($name), ".sql")),
        )),*]
    };
}

pub(super) const FUNCTIONS: &[(&str, &str)] = functions! {
    add_minute_stats adopt assert_duration assert_session calls can_notify cancel change_each check_message choose_due
    choose_probe claim count_pending delete_finished end_overdue expire hold is_duration is_refusal is_refused is_slow
    keep_claimable log_lost_attempts lost_text next_due notify_workers open_lane pause peak_rate present_rate
    protocol_version record refresh_queue_counts refuse refuse_unknown_app release release_hold report_worker
    resume retire_worker retry sequences_behind set_lane_back set_limit set_messages_back skip_while_restoring slot_rate
    take_free_id throttle wake_workers want_wakeup
};

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};
    use sha2::{Digest, Sha256};

    use super::*;

    /// Without a new version, an older `worker migrate` would replace the changed function by its own text.
    #[test]
    fn a_changed_function_has_a_new_version() {
        let mut digest = Sha256::new();
        for (name, text) in FUNCTIONS {
            digest.update(name);
            digest.update(text);
        }
        let digest = BASE64_STANDARD.encode(digest.finalize());
        let released = include_str!("../../../migrations/functions.sha256");
        let expected = format!("{PROTOCOL_VERSION} {digest}");
        assert_eq!(
            released.trim(),
            expected,
            "raise the version in protocol_version.sql and functions.rs, and write this line to migrations/functions.sha256"
        );
    }

    #[test]
    fn every_function_has_a_file_of_its_name_and_every_file_is_installed() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/functions");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| {
                let name = entry.expect("a file").file_name();
                name.to_string_lossy().trim_end_matches(".sql").to_owned()
            })
            .collect();
        files.sort();
        let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        assert_eq!(files, names);
        for (name, text) in FUNCTIONS {
            let create = format!("create or replace function signaling.{name}(");
            assert_eq!(text.matches("create or replace").count(), 1, "{name}");
            assert!(text.contains(&create), "{name}");
            assert!(text.starts_with("-- "), "{name} says what it does");
        }
        let version = include_str!("../../../migrations/functions/protocol_version.sql");
        assert!(version.contains(&format!("select {PROTOCOL_VERSION}")));
    }
}
