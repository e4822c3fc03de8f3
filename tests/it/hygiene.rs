//! What comes from outside is bounded, and what is confidential stays inside.

mod answers;
mod echo;
mod files;
mod markers;
mod raw_api;
mod silence;
