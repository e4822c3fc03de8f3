//! What was done, for the page that comes after it. Only what stands here can be said: a link that somebody has made up
//! puts no words into the worker's mouth.

use maud::{Markup, html};
use serde::Deserialize;

use crate::ops::dashboard::format;

/// What a URL says was done.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::ops::dashboard) struct Flash {
    done: String,
    n: String,
    /// 1 if something keeps the app from sending.
    held: String,
}

impl Flash {
    /// The notice, if there is one.
    pub(in crate::ops::dashboard) fn markup(&self) -> Markup {
        let messages = format::messages(self.n.parse().unwrap_or(0));
        let text = match self.done.as_str() {
            "paused" => "Paused. Calls in flight are finished; no other one starts until somebody resumes the app.".into(),
            "already-paused" => "It was paused already: who did it and why stands below.".into(),
            "resumed" => {
                "Resumed. If something else keeps the app from sending, it stands below.".into()
            }
            "limited" => "The limit has changed, on all hosts. If something keeps the app from sending, it stands below.".into(),
            "already-limited" => "That was the limit already.".into(),
            "cancelled" => "Cancelled.".into(),
            "not-cancelled" => "Not cancelled: it is being sent, or has ended meanwhile. Where it stands is shown below.".into(),
            "retried" if self.held == "1" => format!(
                "{messages} will be sent again, but something keeps the app from sending: the overview shows it."
            ),
            "retried" => format!("{messages} will be sent again."),
            _ => return html! {},
        };
        html! { p.notice role="status" { (text) } }
    }
}
