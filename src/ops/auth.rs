//! Access to the ops server: with a token, or from this host alone.

mod middleware;
mod policy;
mod session;
mod token;

pub(super) use middleware::{Authenticated, authenticate};
pub(super) use session::routes;
pub(crate) use token::{Access, OpsToken, TokenError};
