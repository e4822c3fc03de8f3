//! The frame around each page.

use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON, SCRIPT, STYLE};

const REFRESH_EVERY_S: u32 = 3;
const TABS: [(&str, &str); 3] = [
    ("/", "Overview"),
    ("/messages", "Messages"),
    ("/failures", "Failures"),
];

/// The page, under one of the tabs or none. With `refreshes`, the script fetches `live` again every few seconds. The script
/// never replaces `fixed`, because a refresh must not take a form from under an operator.
pub(super) fn page(
    title: &str,
    tab: &str,
    refreshes: bool,
    fixed: &Markup,
    live: &Markup,
) -> Response {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="same-origin";
                title { (title) " · worker" }
                link rel="stylesheet" href=(STYLE.url());
                link rel="icon" type="image/svg+xml" href=(ICON.url());
                script src=(SCRIPT.url()) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "worker" }
                    nav aria-label="Pages" {
                        ul {
                            @for (path, name) in TABS {
                                li { a href=(path) aria-current=[(tab == path).then_some("page")] { (name) } }
                            }
                        }
                    }
                    p #contact role="status" {}
                }
                main #main tabindex="-1" {
                    (fixed)
                    div #live data-every-s=[refreshes.then_some(REFRESH_EVERY_S)] { (live) }
                }
                @if refreshes {
                    noscript { p.foot { "Without script this page does not refresh: " a href="" { "load it again" } "." } }
                }
            }
        }
    }
    .into_response()
}
