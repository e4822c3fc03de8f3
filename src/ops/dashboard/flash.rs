//! The notice of a finished action, on the page after it. The URL names the notice and does not contain its text,
//! because anyone can make up a link.

use maud::{Markup, html};
use serde::Deserialize;

use super::format;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Flash {
    done: String,
    n: u64,
}

impl Flash {
    pub(super) fn markup(&self) -> Markup {
        let messages = format::messages(self.n);
        let text = match self.done.as_str() {
            "paused" => {
                "Paused. Calls in flight are finished. No other call starts until an operator resumes the app."
            }
            "already-paused" => {
                "The app was paused already. Its sentence below names the operator."
            }
            "resumed" => "Resumed. The app's sentence below names any other obstacle.",
            "limited" => "The limit has changed, on all hosts.",
            "already-limited" => "The app had that limit already.",
            "cancelled" => "Cancelled.",
            "not-cancelled" => {
                "Not cancelled: a worker sends the message now, or the message is finished."
            }
            "retried" => &format!("{messages} will be sent again."),
            _ => return html! {},
        };
        html! { p.notice role="status" { (text) } }
    }
}
