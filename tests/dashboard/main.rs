//! The dashboard of the compiled worker: its pages over HTTP and in a real browser, with a real Postgres and the
//! simulated API. The names of the tests are the claims that they hold.

mod actions;
mod browser;
mod database_proxy;
mod failures;
mod fixtures;
mod in_browser;
mod messages;
mod pages;
mod plan;
mod screenshots;
mod server;
mod session;
mod webdriver;
