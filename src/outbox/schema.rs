//! The schema: migrations, functions, and privileges of roles.

mod functions;
mod install;
mod migrate;
mod migrations;
mod objects;
mod privileges;
mod version;

pub(crate) use install::Migrated;
pub(crate) use objects::{
    Damage, ObjectKind, SchemaObject, list_names, object_count, own_constraints,
};
pub(crate) use privileges::RoleKind;
pub(crate) use version::SchemaError;
