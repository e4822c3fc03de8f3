//! The style sheet, the script and the icon, which are part of the binary.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::Router;
use axum::extract::RawQuery;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;

use super::OpsState;

#[derive(Clone, Copy)]
pub(super) struct Asset {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

pub(super) const STYLE: Asset = Asset {
    path: "/assets/dashboard.css",
    content_type: "text/css; charset=utf-8",
    content: include_str!("assets/dashboard.css"),
};
pub(super) const SCRIPT: Asset = Asset {
    path: "/assets/dashboard.js",
    content_type: "text/javascript; charset=utf-8",
    content: include_str!("assets/dashboard.js"),
};
pub(super) const ICON: Asset = Asset {
    path: "/assets/icon.svg",
    content_type: "image/svg+xml",
    content: include_str!("assets/icon.svg"),
};

pub(super) fn routes() -> Router<OpsState> {
    let mut router = Router::new();
    for asset in [STYLE, SCRIPT, ICON] {
        let serve = async move |RawQuery(query): RawQuery| {
            let headers = [
                (CONTENT_TYPE, asset.content_type),
                (CACHE_CONTROL, asset.caching(&query.unwrap_or_default())),
            ];
            (headers, asset.content)
        };
        router = router.route(asset.path, get(serve));
    }
    router
}

impl Asset {
    /// The URL changes with the content, so that browsers can keep the content for good.
    pub(super) fn url(&self) -> String {
        format!("{}?{}", self.path, self.version())
    }

    fn version(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.content.hash(&mut hasher);
        format!("v={:x}", hasher.finish())
    }

    /// During an upgrade, a page of a new worker may load its assets from an old one. Browsers must not keep those.
    fn caching(&self, query: &str) -> &'static str {
        if query == self.version() {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        }
    }
}
