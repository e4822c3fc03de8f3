//! The dashboard of the compiled worker: its pages over HTTP and in a real browser, with a real Postgres and the
//! simulated API. The names of the tests are the claims that they hold.

mod actions;
mod browser;
#[path = "../it/database_proxy.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod database_proxy;
mod failures;
mod fixtures;
mod in_browser;
mod messages;
#[path = "../it/ops/ops_client.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod ops_client;
mod pages;
mod plan;
mod screenshots;
mod server;
mod session;
