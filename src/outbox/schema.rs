//! The schema `signaling`: its migrations, and the privileges of roles on it.

mod grant;
mod migrate;
mod privileges;

pub(crate) use grant::{RoleKind, RoleName};
pub(crate) use migrate::{SchemaError, SchemaVersion};
