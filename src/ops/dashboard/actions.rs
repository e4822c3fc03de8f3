//! What a person can change. Each action is a page that says what will happen, with a form; its POST does it, and leads
//! back with a notice.

mod app;
mod message;

use axum::Router;
use axum::response::{Redirect, Response};
use axum::routing::get;
use maud::{Markup, html};

use super::OpsState;
use super::format;
use super::layout::{Layout, Section};

/// Who does what is done here, for those who ask later.
const BY: &str = "dashboard";

pub(super) fn routes() -> Router<OpsState> {
    Router::new()
        .route("/actions/pause", get(app::ask_pause).post(app::pause))
        .route("/actions/resume", get(app::ask_resume).post(app::resume))
        .route("/actions/limit", get(app::ask_limit).post(app::limit))
        .route(
            "/actions/retry",
            get(message::ask_retry).post(message::retry),
        )
        .route(
            "/actions/cancel",
            get(message::ask_cancel).post(message::cancel),
        )
        .route(
            "/actions/retry-group",
            get(message::ask_retry_group).post(message::retry_group),
        )
}

/// A question before something is done.
struct Question<'a> {
    /// What it is about, as in "Pause default".
    title: &'a str,
    consequence: Markup,
    action: &'a str,
    /// Fields that a person fills in.
    fields: Markup,
    /// What goes along with them.
    hidden: &'a [(&'a str, &'a str)],
    button: &'a str,
    back: &'a str,
}

impl Question<'_> {
    fn page(&self) -> Response {
        let layout = Layout {
            title: self.title,
            section: Section::None,
            refreshes: false,
        };
        let content = html! {
            section.panel.question aria-labelledby="question" {
                h1 #question { (self.title) }
                (self.consequence)
                form method="post" action=(self.action) {
                    (self.fields)
                    @for (name, value) in self.hidden { input type="hidden" name=(name) value=(value); }
                    div.buttons {
                        button.primary type="submit" { (self.button) }
                        a.button href=(self.back) { "Leave it as it is" }
                    }
                }
            }
        };
        layout.page(&content, &html! {})
    }
}

/// Back to a page, which then says what was done.
fn back(path: &str, done: &str, more: &[(&str, &str)]) -> Redirect {
    let mut query = vec![("done", done)];
    query.extend(more);
    Redirect::to(&format::link(path, &query))
}
