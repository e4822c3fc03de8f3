//! What all pages have around them.

use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::assets::{ICON, SCRIPT, STYLE};

/// Seconds between two looks of a page at what is new.
const REFRESH_S: u32 = 3;

/// Where in the dashboard a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Messages,
    Failures,
    None,
}

/// What a page says of itself.
pub(super) struct Layout<'a> {
    pub(super) title: &'a str,
    pub(super) section: Section,
    /// Whether what it shows is fetched again every few seconds.
    pub(super) refreshes: bool,
}

impl Layout<'_> {
    /// The page. What is `fixed` stays as it is while a person looks at it: forms, and what they have done.
    pub(super) fn page(&self, fixed: &Markup, live: &Markup) -> Response {
        let markup = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="same-origin";
                    title { (self.title) " · worker" }
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
                                (self.link("/", "Overview", Section::Overview))
                                (self.link("/messages", "Messages", Section::Messages))
                                (self.link("/failures", "Failures", Section::Failures))
                            }
                        }
                        p #contact role="status" {}
                    }
                    main #main tabindex="-1" {
                        (fixed)
                        div #live data-every-s=[self.refreshes.then_some(REFRESH_S)] { (live) }
                    }
                    @if self.refreshes {
                        noscript { p.foot { "Without script this page stays as it is: " a href="" { "load it again" } "." } }
                    }
                }
            }
        };
        // What it shows is of this moment, and may be content.
        ([(CACHE_CONTROL, "no-store")], markup).into_response()
    }

    fn link(&self, href: &str, text: &str, section: Section) -> Markup {
        let is_here = self.section == section;
        html! { li { a href=(href) aria-current=[is_here.then_some("page")] { (text) } } }
    }
}
