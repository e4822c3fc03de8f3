//! The schema `signaling`: its migrations, and the privileges of roles on it.

mod grant;
mod migrate;
mod privileges;

pub use grant::{GrantError, InvalidRoleName, RoleKind, RoleName};
pub use migrate::{Applied, LockHolder, SchemaError, SchemaVersion};
