//! Access to the ops server: who may send which request, by a token or by being on this host.

mod middleware;
mod policy;
mod session;
mod token;

pub(super) use middleware::{Auth, Authenticated, authenticate};
pub(super) use session::routes;
pub(crate) use token::{Access, OpsToken, TokenError};
