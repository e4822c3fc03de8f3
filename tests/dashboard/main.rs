//! The dashboard: its pages as they are served, and as a real browser shows them, beside a real Postgres, the simulated
//! API and the compiled worker. The names of the tests are the claims that they hold.

mod actions;
mod browser;
mod failures;
mod messages;
mod pages;
mod plan;
mod screenshots;
mod server;
mod shown;
mod signed_in;
mod slow_way;
mod watched;
mod webdriver;
