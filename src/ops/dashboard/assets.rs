//! The files of the pages, which are in the binary. A URL changes with what it has, so a browser keeps that for good.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::OpsState;

/// A file in the binary.
pub(super) struct Asset {
    path: &'static str,
    content_type: &'static str,
    content: &'static str,
    version: LazyLock<String>,
}

macro_rules! asset {
    ($file:literal, $content_type:literal) => {
        Asset {
            path: concat!("/assets/", $file),
            content_type: $content_type,
            content: include_str!(concat!("assets/", $file)),
            version: LazyLock::new(|| version(include_str!(concat!("assets/", $file)))),
        }
    };
}

pub(super) static STYLE: Asset = asset!("dashboard.css", "text/css; charset=utf-8");
pub(super) static SCRIPT: Asset = asset!("dashboard.js", "text/javascript; charset=utf-8");
pub(super) static ICON: Asset = asset!("icon.svg", "image/svg+xml");

pub(super) fn routes() -> Router<OpsState> {
    [&STYLE, &SCRIPT, &ICON]
        .into_iter()
        .fold(Router::new(), |router, asset| {
            router.route(
                asset.path,
                get(async move |headers: HeaderMap, RawQuery(query): RawQuery| {
                    asset.answer(&headers, query.as_deref())
                }),
            )
        })
}

impl Asset {
    pub(super) fn url(&self) -> String {
        format!("{}?v={}", self.path, *self.version)
    }

    fn answer(&self, headers: &HeaderMap, query: Option<&str>) -> Response {
        let etag = format!("\"{}\"", *self.version);
        let is_known = headers
            .get_all(IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|values| values.split(','))
            .any(|value| value.trim().trim_start_matches("W/") == etag);
        let is_this_version =
            query.and_then(|query| query.strip_prefix("v=")) == Some(&*self.version);
        let caching = if is_this_version {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let about = [
            (ETAG, HeaderValue::from_str(&etag).ok()),
            (CACHE_CONTROL, Some(HeaderValue::from_static(caching))),
            (
                CONTENT_TYPE,
                Some(HeaderValue::from_static(self.content_type)),
            ),
            (
                X_CONTENT_TYPE_OPTIONS,
                Some(HeaderValue::from_static("nosniff")),
            ),
        ];
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            self.content.into_response()
        };
        for (name, value) in about {
            if let Some(value) = value {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// What tells a content from another one.
fn version(content: &str) -> String {
    let mut version = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(content));
    version.truncate(16);
    version
}
