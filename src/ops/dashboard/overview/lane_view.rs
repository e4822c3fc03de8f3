//! What an app's lane is doing, in words and with its reason.

use maud::{Markup, html};

use crate::advice;
use crate::ops::dashboard::format::{self, Tone};
use crate::outbox::{AppStatus, LaneState, LaneStatus, ObstacleKind};
use crate::pace::DbTime;

/// What a lane is doing.
pub(super) struct LaneView {
    pub(super) tone: Tone,
    pub(super) word: &'static str,
    pub(super) sentence: Markup,
    /// An operator can end a pause, or the wait that the API has asked for.
    pub(super) can_resume: bool,
    pub(super) can_pause: bool,
}

impl LaneView {
    pub(super) fn of(app: &AppStatus, now: DbTime) -> Self {
        let Some(lane) = &app.lane else {
            return Self::new(
                Tone::Bad,
                "no worker",
                html! { "No worker has served this app yet: its messages wait until one does." },
            );
        };
        let state = lane.state();
        let word = state.as_str();
        match state {
            LaneState::Paused => Self {
                can_resume: true,
                can_pause: false,
                ..Self::new(Tone::Warning, word, paused(lane, now))
            },
            LaneState::NoWorker => Self {
                can_resume: lane.is_held_by(ObstacleKind::RetryAfter),
                ..Self::new(Tone::Bad, "no worker", without_worker(lane))
            },
            LaneState::OtherEnvironment => Self::new(
                Tone::Bad,
                "other environment",
                of_other_environment(&app.app, lane),
            ),
            LaneState::Unauthorized | LaneState::Unavailable => Self {
                can_resume: lane.is_held_by(ObstacleKind::RetryAfter),
                ..Self::new(Tone::Bad, word, held(lane, state, now))
            },
            LaneState::Waiting => Self {
                can_resume: true,
                ..Self::new(Tone::Warning, word, waiting(lane, now))
            },
            LaneState::Slowed => Self::new(
                Tone::Warning,
                word,
                html! {
                    "A 429 " @if let Some(at) = lane.throttled_at { "at " (format::time_and_distance(at, now)) }
                    " slowed it to " (format::rate(lane.rate_per_s.round())) " calls/s. It climbs back by itself."
                },
            ),
            LaneState::Sending
                if app.pending.backlog() + app.pending.sending > 0 || app.rate_per_s > 0.0 =>
            {
                Self::new(
                    Tone::Good,
                    word,
                    html! { "Messages go out as they become due." },
                )
            }
            LaneState::Sending => Self::new(
                Tone::Good,
                "idle",
                html! { "Nothing waits to be sent now." },
            ),
        }
    }

    fn new(tone: Tone, word: &'static str, sentence: Markup) -> Self {
        Self {
            tone,
            word,
            sentence,
            can_resume: false,
            can_pause: true,
        }
    }
}

fn paused(lane: &LaneStatus, now: DbTime) -> Markup {
    html! {
        "Paused by " b { (lane.paused_by.as_deref().unwrap_or("somebody")) }
        @if let Some(since) = lane.paused_at { " since " (format::time_and_distance(since, now)) }
        @match &lane.pause_reason {
            Some(reason) => { ": “" (reason) "”." },
            None => ", without a reason.",
        }
        @if let Some(hold) = &lane.hold { " It is " (hold) ", too." }
    }
}

fn without_worker(lane: &LaneStatus) -> Markup {
    html! {
        "No worker that serves this app is alive: its messages wait. To do: " (advice::NO_WORKER) "."
        @if let Some(hold) = &lane.hold { " The app is " (hold) ", too." }
    }
}

fn of_other_environment(app: &str, lane: &LaneStatus) -> Markup {
    html! {
        "The app belongs to " (advice::environment_name(lane.environment.as_deref()))
        ", and the workers that are alive to another one (" (lane.workers.refusing.join(", "))
        "): they refuse it, and its messages wait. To do: " (advice::adopt(app)) "."
    }
}

fn waiting(lane: &LaneStatus, now: DbTime) -> Markup {
    html! {
        "The API has asked to wait" @if let Some(until) = lane.retry_after_until { " until " (format::time_and_distance(until, now)) }
        ": no call starts before."
    }
}

fn held(lane: &LaneStatus, state: LaneState, now: DbTime) -> Markup {
    html! {
        @if state == LaneState::Unauthorized { "The API refuses the credentials" } @else { "Calls fail one after the other" }
        @if let Some(since) = lane.hold_since { " since " (format::time_and_distance(since, now)) }
        @if let Some(reason) = &lane.hold_reason { ": “" (reason) "”" }
        ". "
        @match lane.hold_until {
            Some(until) if until > now => { "The next try is " (format::when(until, now)) "." },
            _ => "It is tried again with the next message that is due.",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outbox::{LaneWorkers, Pending};

    const NOW: DbTime = DbTime::from_micros(1_900_000_000_000_000);

    fn lane() -> LaneStatus {
        LaneStatus {
            next_slot_at: NOW,
            ..LaneStatus::sending()
        }
    }

    fn shown(lane: Option<LaneStatus>, queued: u64) -> (&'static str, String) {
        let app = AppStatus {
            lane,
            pending: Pending {
                queued,
                oldest_s: Some(90.0),
                ..Pending::default()
            },
            ..AppStatus::default()
        };
        let state = LaneView::of(&app, NOW);
        (state.word, state.sentence.into_string())
    }

    #[test]
    fn each_state_has_its_word_and_its_reason() {
        let paused = LaneStatus {
            paused_at: Some(NOW),
            paused_by: Some("operator".into()),
            pause_reason: Some("the vendor is down".into()),
            ..lane().held_by(&[ObstacleKind::Paused])
        };
        let unauthorized = LaneStatus {
            hold: Some("unauthorized".into()),
            hold_reason: Some("401".into()),
            hold_until: Some(NOW + Duration::from_secs(3)),
            ..lane().held_by(&[ObstacleKind::Unauthorized])
        };
        let waiting = LaneStatus {
            retry_after_until: Some(NOW + Duration::from_secs(30)),
            ..lane().held_by(&[ObstacleKind::RetryAfter])
        };
        let slowed = LaneStatus {
            rate_per_s: 100.0,
            throttled_at: Some(NOW),
            ..lane()
        };
        let left_alone = LaneStatus {
            workers: LaneWorkers::default(),
            ..lane().held_by(&[ObstacleKind::NoWorker])
        };
        let of_production = LaneStatus {
            environment: Some("production".into()),
            workers: LaneWorkers {
                refusing: vec!["staging".into()],
                ..LaneWorkers::default()
            },
            ..lane().held_by(&[ObstacleKind::OtherEnvironment])
        };
        for (lane, queued, word, reason) in [
            (Some(of_production), 1, "other environment", "(staging)"),
            (None, 1, "no worker", "No worker has served"),
            (Some(paused), 1, "paused", "operator"),
            (Some(unauthorized), 1, "unauthorized", "in 3.0 s"),
            (Some(waiting), 1, "waiting", "in 30 s"),
            (Some(slowed), 1, "slowed", "100 calls/s"),
            (Some(left_alone), 1, "no worker", "start a worker"),
            (Some(lane()), 1, "sending", "go out"),
            (Some(lane()), 0, "idle", "Nothing"),
        ] {
            let (shown_word, sentence) = shown(lane, queued);
            assert_eq!(shown_word, word, "{sentence}");
            assert!(
                sentence.contains(reason),
                "{reason} is missing in {sentence}"
            );
        }
    }
}
